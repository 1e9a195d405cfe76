"""What can be trained. Each module beside `base` is a built-in kind."""
