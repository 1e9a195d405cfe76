"""What a measurement found, as plain data and the arithmetic on it; needs neither torch nor datasets."""
