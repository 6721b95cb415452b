"""A trained student as a model to ship, with its card."""
