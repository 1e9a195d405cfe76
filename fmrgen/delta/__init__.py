"""Splits without images that may not be passed on."""
