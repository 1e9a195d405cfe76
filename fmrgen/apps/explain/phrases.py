"""Words for what differs where a classifier is fooled, by a model that reads images and texts: proposed, not proven."""

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
    "a blurry photo",
    "a sharp photo",
    "a noisy photo",
    "a distorted photo",
    "a dark photo",
    "a bright photo",
    "a photo with low contrast",
    "a photo with high contrast",
    "a black and white photo",
    "a colourful photo",
    "a photo with a strange texture",
    "a smooth surface",
    "a drawing",
    "a painting",
    "a close-up",
    "a distant object",
    "a small object",
    "a large object",
    "an object at the edge",
    "several objects",
    "a hidden object",
    "a plain background",
    "a cluttered background",
    "a green background",
    "a blue background",
    "water",
    "snow",
    "grass",
    "sky",
    "indoors",
    "text",
    "a reflection",
    "a shadow",
    "an odd shape",
)
_BATCH = 64
_MAX_FILE_BYTES = 1 << 20
_WORDS_SHOWN = 5
_ANY_NUMBER = 1 << 20  # phrases at a time, for image-text models
_PER_QUESTION = 24  # phrases at a time, for models that answer by a letter
_NO_VARIANCE = 1e-12  # keeps a standard error above 0
_QUESTION = "Which of these fits the image best? Answer with the letter alone."


@dataclass(frozen=True)
class Word:
    """A phrase, and how much more images come to fit it where they fool the classifier than where they do not.

    `standard_errors` is the difference of the two means, in standard errors of that difference.
    """

    phrase: str
    standard_errors: float


def load_phrases(text: str) -> list[str]:
    """Return the lines of a file, or the built-in phrases for `photos`. Raises UserError for fewer than two lines."""
    if text == "photos":
        return list(PHRASES)
    try:
        with open_plain(Path(text)) as file:
            lines = file.read(_MAX_FILE_BYTES).decode().splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{text}: is no file of phrases, one in each line ({error}); name one, or photos") from None
    phrases = [line.strip() for line in lines if line.strip()]
    if len(phrases) < 2:
        raise UserError(f"{text}: holds fewer than two phrases; write one in each line")
    return phrases


def read_phrases(
    reader: ComponentConfig, phrases: Sequence[str], originals: Tensor, images: Tensor, fooled: np.ndarray
) -> list[Word]:
    """Return the phrases that perturbed images come to fit more where they fool the classifier than elsewhere.

    Scores are compared with those of the originals, and with the mean over all phrases: a change that raises all
    phrases equally does not count.

    Args:
        reader: the section of an oracle that reads: an image-text model, or a vision-language model, which is asked
            which of some twenty at a time fits an image best.
        phrases: two or more.
        originals: [N, 3, H, W] in [0, 1].
        images: likewise, made of them.
        fooled: which of these fool the classifier, bool [N].

    Returns:
        The strongest evidence first; none if there are too few images.

    Raises:
        UserError: the section's oracle reads no texts, or can't be built; or a phrase is too long for it.
    """
    section, group_size = _phrase_reader(reader)
    if min(fooled.sum(), (~fooled).sum()) < 2:
        return []
    oracle = build_component(section, "reader", Oracle, images.device)
    phrases = tuple(dict.fromkeys(phrases))

    def scores(batch: Tensor) -> Tensor:
        return torch.cat([oracle.judge(part).score for part in batch.split(_BATCH)]).double().cpu()

    changes = []
    for group in np.array_split(np.arange(len(phrases)), -(-len(phrases) // group_size)):
        oracle.set_labels(Labels(tuple(phrases[place] for place in group)))
        with torch.no_grad():
            change = scores(images) - scores(originals)
        changes.append(change - change.mean(1, keepdim=True))  # scores are relative to the phrases of the group
    change = torch.cat(changes, 1)
    is_fooled = torch.from_numpy(fooled)
    where_fooled, elsewhere = change[is_fooled], change[~is_fooled]
    error = (where_fooled.var(0) / len(where_fooled) + elsewhere.var(0) / len(elsewhere)).sqrt()
    standard_errors = (where_fooled.mean(0) - elsewhere.mean(0)) / error.clamp(min=_NO_VARIANCE)
    words = []
    for phrase, number in zip(phrases, standard_errors.tolist(), strict=True):
        if number > 0:
            words.append(Word(phrase, number))
    return sorted(words, key=lambda word: -word.standard_errors)[:_WORDS_SHOWN]


def _phrase_reader(reader: ComponentConfig) -> tuple[ComponentConfig, int]:
    """Return the section of an oracle that takes phrases for labels, and how many at a time.

    Raises UserError if the oracle reads no texts.
    """
    if isinstance(reader, ImageTextConfig):
        return reader.model_copy(
            update={"prompts": ["{class}"], "class_prompts": {}, "first_synonym": False}
        ), _ANY_NUMBER
    if isinstance(reader, VlmConfig):
        plain: dict[str, Any] = {"question": _QUESTION, "candidates": None, "class_prompts": {}, "first_synonym": False}
        return reader.model_copy(update=plain), _PER_QUESTION
    raise UserError(
        f"{option('phrases')}: the oracle, {reader.kind}, reads no texts; name one that does by {option('reader')}, "
        "for example zero_shot or vlm"
    )
