"""Benchmark runs and their scores as a page, as Markdown or as JSON."""
