"""Where original images and labels come from. Each module beside `base` is a built-in kind."""
