"""The diffusion model: the network, its schedule and samplers, and the checkpoint folders that hold it."""
