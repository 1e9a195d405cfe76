"""Splits and results on the Hub: cards, pushes, results, boards."""
