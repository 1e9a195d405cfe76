"""The models under test. Each module beside `base` is a built-in kind."""
