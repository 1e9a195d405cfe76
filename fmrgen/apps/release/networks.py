"""Networks as a command line names them."""

from pathlib import Path
from typing import TYPE_CHECKING

from fmrgen.errors import UserError

if TYPE_CHECKING:
    from fmrgen.config import ComponentConfig


def name_of(place: str) -> str:
    """Return how a network, or a set of images, is called in a title."""
    return Path(place.partition("=")[0]).name if "{" not in place else place.partition("=")[0][:40]


def several(words: str) -> list[str]:
    """Return the networks that commas part, outside of a section."""
    return [words] if "{" in words else words.split(",")


def classifier_of(text: str, network: str | None) -> "tuple[str, ComponentConfig]":
    """Return the name and section of a classifier; `network` is that of a file of weights."""
    from fmrgen.recipe.job import parse_classifier
    from fmrgen.recipe.many_classifiers import expanded

    words = expanded(text, network)
    if len(words) != 1:
        raise UserError(f"{text}: stands for {len(words)} classifiers; name one")
    return parse_classifier(words[0])
