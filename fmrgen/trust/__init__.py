"""What others wrote is data."""
