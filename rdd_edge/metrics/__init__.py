"""Metrics on images and their features, and the networks that extract those features."""
