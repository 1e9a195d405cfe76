"""Weights: where they come from, how they are read, which they are."""
