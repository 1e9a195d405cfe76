"""Words for what differs where a classifier is fooled, by a model that reads images and texts. They are proposed, and
not proven."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmrgen.config import ComponentConfig
from fmrgen.engine.interfaces import Oracle
from fmrgen.errors import UserError, option
from fmrgen.files import open_plain
from fmrgen.labels import Labels
from fmrgen.oracles._image_text import ImageTextConfig
from fmrgen.oracles.vlm import Config as VlmConfig
from fmrgen.recipe.build import build_component

PHRASES = (
    *("a blurry photo", "a sharp photo", "a noisy photo", "a distorted photo", "a dark photo", "a bright photo"),
    *("a photo with low contrast", "a photo with high contrast", "a black and white photo", "a colourful photo"),
    *(
        "a photo with a strange texture",
        "a smooth surface",
        "a drawing",
        "a painting",
        "a close-up",
        "a distant object",
    ),
    *("a small object", "a large object", "an object at the edge", "several objects", "a hidden object"),
    *("a plain background", "a cluttered background", "a green background", "a blue background", "water", "snow"),
    *("grass", "sky", "indoors", "text", "a reflection", "a shadow", "an odd shape"),
)
_BATCH = 64
_LARGEST = 1 << 20  # bytes of a file
_SHOWN = 5
_MOST = 1 << 20  # phrases at a time, of models that take any number
_LETTERED = 24  # of those that answer by a letter
_QUESTION = "Which of these fits the image best? Answer with the letter alone."


@dataclass(frozen=True)
class Word:
    """A phrase, and how much more images come to fit it where they fool the classifier than where they do not: of the
    difference of the two means, how many of its standard errors it is."""

    phrase: str
    standard_errors: float


def load_phrases(text: str) -> list[str]:
    """The lines of a file, or, of `photos`, those that are shipped. Raises UserError for a file that holds no two."""
    if text == "photos":
        return list(PHRASES)
    try:
        with open_plain(Path(text)) as file:
            lines = file.read(_LARGEST).decode().splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{text}: is no file of phrases, one in each line ({error}); name one, or photos") from None
    found = [line.strip() for line in lines if line.strip()]
    if len(found) < 2:
        raise UserError(f"{text}: holds fewer than two phrases; write one in each line")
    return found


def read_phrases(
    reader: ComponentConfig, phrases: Sequence[str], originals: Tensor, images: Tensor, fooled: np.ndarray
) -> list[Word]:
    """The phrases that images [N, 3, H, W] come to fit more than their originals, where `fooled` [N] more than
    elsewhere; those first that do so most surely. What raises all phrases alike does not count.

    Args:
        reader: the section of an oracle that reads: an image-text model, or a vision-language model, which is asked
            which of some twenty at a time fits an image best.
        phrases: two or more.
        originals: [N, 3, H, W] in [0, 1].
        images: likewise, made of them.
        fooled: which of these fool the classifier, bool [N].

    Raises:
        UserError: the section's oracle reads no texts, or can't be built; or a phrase is too long for it.
    """
    asked, together = _asked_in_phrases(reader)
    if min(fooled.sum(), (~fooled).sum()) < 2:
        return []
    oracle = build_component(asked, "reader", Oracle, images.device)
    read = tuple(dict.fromkeys(phrases))

    def scores(of: Tensor) -> Tensor:
        return torch.cat([oracle.judge(part).score for part in of.split(_BATCH)]).double().cpu()

    changes = []
    for group in np.array_split(np.arange(len(read)), -(-len(read) // together)):
        oracle.set_labels(Labels(tuple(read[place] for place in group)))
        with torch.no_grad():
            change = scores(images) - scores(originals)
        changes.append(change - change.mean(1, keepdim=True))  # of those that were weighed against each other
    change = torch.cat(changes, 1)
    where = torch.from_numpy(fooled)
    one, other = change[where], change[~where]
    error = (one.var(0) / len(one) + other.var(0) / len(other)).sqrt().clamp(min=1e-12)
    sure = ((one.mean(0) - other.mean(0)) / error).tolist()
    found = [Word(phrase, of) for phrase, of in zip(read, sure, strict=True) if of > 0]
    return sorted(found, key=lambda word: -word.standard_errors)[:_SHOWN]


def _asked_in_phrases(reader: ComponentConfig) -> tuple[ComponentConfig, int]:
    """The section of an oracle that takes phrases for labels, and how many at a time. Raises UserError where it reads
    none."""
    if isinstance(reader, ImageTextConfig):
        return reader.model_copy(update={"prompts": ["{class}"], "class_prompts": {}, "first_synonym": False}), _MOST
    if isinstance(reader, VlmConfig):
        plain: dict[str, Any] = {"question": _QUESTION, "candidates": None, "class_prompts": {}, "first_synonym": False}
        return reader.model_copy(update=plain), _LETTERED
    raise UserError(
        f"{option('phrases')}: the oracle, {reader.kind}, reads no texts; name one that does by {option('reader')}, "
        "for example zero_shot or vlm"
    )
