"""Apps: each answers one question that people ask of splits, and is gone when its folder is deleted."""
