"""What others say of a split's images: other models, and people on a page of their own."""
