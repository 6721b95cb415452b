"""From a checkpoint to bundles: the one-step graph, its rewrites, calibration, precision search and parity."""
