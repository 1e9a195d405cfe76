"""What makes the perturbed images. Each module beside `base` is a built-in kind."""
