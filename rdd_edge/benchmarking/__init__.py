"""Benchmark runs: the plan, the record and the samples; the worker process; host, server and the links to devices."""
