"""Benchmark runs and their scores as an HTML page, as Markdown or as JSON."""
