"""Splits and results on the Hub."""
