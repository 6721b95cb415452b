"""Pictures: grids of images as PNG, charts as SVG."""
