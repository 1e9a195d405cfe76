"""What an evaluation is made of: rows in, predictions, figures out."""
