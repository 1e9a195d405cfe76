"""Splits without images, for images that you may not redistribute."""
