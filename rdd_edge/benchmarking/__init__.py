"""Benchmark runs: how an artifact is executed on this machine or another one, what is recorded, and reading it back.

bench executes and writes one, on this machine or through ssh; isolation and worker are the parent and the child process
around a runtime; facts measures in the child; record is the schema; run reads one back; verify checks a bundle.
"""
