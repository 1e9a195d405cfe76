"""Checks of what others wrote: it is data, never code."""
