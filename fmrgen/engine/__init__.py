"""Algorithm 1 as a stream. Imports torch and itself, and what has no needs of its own."""
