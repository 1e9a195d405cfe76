"""Results of a measurement as plain data, and the arithmetic on them; needs neither torch nor datasets."""
