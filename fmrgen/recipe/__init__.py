"""Recipes: what a job is made of, their files, the short forms of components, and the building of the four."""
