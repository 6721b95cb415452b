"""The training stages: each a loss and its networks, run by the trainer."""
