"""Modules that also run on devices, unchanged: they need only the standard library and NumPy."""
