"""Failures named, then proved: what originals look like that are changed until a classifier errs, by intervention."""
