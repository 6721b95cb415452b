"""Functions on exported graphs that the targets and the exporter share."""
