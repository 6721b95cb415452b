"""What the targets and the exporter share about exported graphs."""
