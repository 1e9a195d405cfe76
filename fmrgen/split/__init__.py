"""A split, read: what it holds, and what classifiers say of its images."""
