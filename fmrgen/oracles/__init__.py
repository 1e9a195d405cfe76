"""Foundation models that judge whether an image still shows its label. Each module beside `base` is a built-in kind."""
