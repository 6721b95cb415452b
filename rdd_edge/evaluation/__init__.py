"""Quality: of a checkpoint, of a benchmark run against the reference, of methods side by side; and regressions."""
