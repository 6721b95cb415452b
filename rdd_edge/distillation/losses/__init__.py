"""The losses, the objective that sums them, the pixel queue, and LPIPS."""
