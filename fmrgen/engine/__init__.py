"""Algorithm 1 as a stream. It imports only NumPy, torch, itself, and modules of fmrgen without further dependencies."""
