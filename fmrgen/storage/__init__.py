"""Perturbed splits in a folder, and how any split is opened."""
