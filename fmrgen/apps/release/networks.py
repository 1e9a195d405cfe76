"""Networks as a command line names them."""

from pathlib import Path


def name_of(place: str) -> str:
    """Return how a network, or a set of images, is called in a title."""
    return Path(place.partition("=")[0]).name if "{" not in place else place.partition("=")[0][:40]


def several(words: str) -> list[str]:
    """Return the networks that commas part, outside of a section."""
    return [words] if "{" in words else words.split(",")
