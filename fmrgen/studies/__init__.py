"""What needs several splits or models, each with its report beside it."""
