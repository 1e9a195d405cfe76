"""Recipes: the sections of a job, recipe files, the short forms of components, and the building of the four."""
