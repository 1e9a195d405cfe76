"""Where does it fail? Failures are named, then confirmed by changing originals until the classifier errs."""
