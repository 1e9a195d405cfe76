"""Metrics: each defined once, the intervals of figures, and cautions for their readers."""
