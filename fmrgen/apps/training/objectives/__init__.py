"""Training objectives. Each public module except `base` is a built-in kind."""
