"""Networks as a command line names them."""

from pathlib import Path


def name_of(place: str) -> str:
    """Return how a network, or a set of images, is called in a title."""
    name, brace, _ = place.partition("{")
    return (name.rstrip("= ") or "a section") if brace else Path(place.partition("=")[0]).name


def several(words: str) -> list[str]:
    """Return the networks that commas part, outside of a section."""
    return [words] if "{" in words else words.split(",")
