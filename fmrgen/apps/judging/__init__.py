"""Do others see the class too? Other models, and people on a page of their own, look at a split's images."""
