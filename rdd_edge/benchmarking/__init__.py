"""Benchmark runs: executing an artifact on this machine or another one, recording the result, and reading it back.

bench executes and writes a run, on this machine or through ssh and its connection; isolation and worker are the parent
and the child process around a runtime; record is the schema; run reads a run back; verify checks a bundle.
"""
