"""A trained student as a model to publish, with its model card."""
