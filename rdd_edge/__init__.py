"""rdd-edge: distil a diffusion model to one step, export it to edge devices, measure it there."""

__version__ = "0.1.0"
