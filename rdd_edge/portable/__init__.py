"""Modules that also run on a device, unchanged: the standard library and NumPy alone."""
