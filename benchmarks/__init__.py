"""Measurements, not tests: ratios taken in one run, since machines and their neighbours differ."""
