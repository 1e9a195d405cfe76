"""Weights: finding, downloading and reading them, and identifying components by them."""
