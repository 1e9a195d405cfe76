"""What did the new one break? Two classifiers on real images, and on images that tell them apart."""
