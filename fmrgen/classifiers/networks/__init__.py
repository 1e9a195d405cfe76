"""Networks and clients behind the kinds of classifiers."""
