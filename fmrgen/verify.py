"""Whether a split tells the truth: every stored image judged and classified again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import cross_entropy

from fmrgen.components import weights_sha256
from fmrgen.errors import UserError
from fmrgen.recipe import Recipe, validate
from fmrgen.split import open_split

_BATCH = 64
_TOLERANCE = 1e-4  # of clip_score, oracle_probability and loss: float noise between batch sizes and devices


@dataclass(frozen=True)
class Disagreement:
    """A stored value that the stored image does not bear out."""

    id: int
    column: str
    stored: Any
    found: Any


@dataclass(frozen=True)
class Verification:
    """The outcome: how many of `rows` are true in every column, and what is not."""

    rows: int
    disagreements: list[Disagreement]

    @property
    def true_rows(self) -> int:
        return self.rows - len({entry.id for entry in self.disagreements})


def verify(
    split: str, *, device: torch.device | str | None = None, on_rows: Callable[[int, int], None] = lambda done, rows: None
) -> Verification:
    """Judges and classifies every stored image of `split` (`PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]`) again.

    Uses the oracle and the classifier of the recipe in the split's provenance. `on_rows(done, rows)` tells how far it
    is. Raises UserError where the split or its models can't be had, or are not the ones that made it.
    """
    dataset, provenance = open_split(split)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    recipe = validate(Recipe, provenance["recipe"], f"{split}: recipe in the provenance")
    components = recipe.build(device)
    for name in ("classifier", "oracle"):
        if weights_sha256(getattr(components, name)) != provenance["weights_sha256"][name]:
            raise UserError(f"{split}: the {name} that the recipe loads now has other weights than the one that made it")
    disagreements: list[Disagreement] = []
    for start in range(0, len(dataset), _BATCH):
        rows = dataset.select(range(start, min(start + _BATCH, len(dataset))))
        found = _measure(rows, "image", "", components.classifier, components.oracle, device)
        if "original" in rows.features:
            found |= _measure(rows, "original", "original_", components.classifier, components.oracle, device)
        for column, values in found.items():
            disagreements += _compare(rows, column, values)
        disagreements += _check_invalid_rows(rows)
        on_rows(start + len(rows), len(dataset))
    return Verification(len(dataset), disagreements)


def _measure(
    rows: Dataset, column: str, prefix: str, classifier: torch.nn.Module, oracle: Any, device: torch.device | str
) -> dict[str, Tensor]:
    pixels = np.stack([np.asarray(image) for image in rows[column]])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device).float() / 255
    labels = torch.tensor(rows["label"], device=device)
    with torch.no_grad():
        logits = classifier(images)
        probabilities, score = oracle.judge(images)
    found = {f"{prefix}prediction": logits.argmax(1), f"{prefix}oracle_label": probabilities.argmax(1)}
    if not prefix:
        found["clip_score"] = score.gather(1, labels.unsqueeze(1)).squeeze(1)
        found["oracle_probability"] = probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)
        found["loss"] = cross_entropy(logits, labels, reduction="none")
    return found


def _compare(rows: Dataset, column: str, found: Tensor) -> list[Disagreement]:
    stored, now = np.asarray(rows[column]), found.cpu().numpy()
    if np.issubdtype(stored.dtype, np.floating):
        same = np.isclose(now, stored, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
    else:
        same = now == stored
    ids = rows["id"]
    return [Disagreement(ids[i], column, stored[i].item(), now[i].item()) for i in np.flatnonzero(~same)]


def _check_invalid_rows(rows: Dataset) -> list[Disagreement]:
    """An invalid row has taken no step, and its image is the original."""
    wrong = [
        Disagreement(example_id, "iterations", iterations, "0 where and only where invalid")
        for example_id, valid, iterations in zip(rows["id"], rows["valid"], rows["iterations"], strict=True)
        if valid != (iterations > 0)
    ]
    if "original" not in rows.features:
        return wrong
    for row in rows.select([i for i, valid in enumerate(rows["valid"]) if not valid]):
        if not np.array_equal(np.asarray(row["image"]), np.asarray(row["original"])):
            wrong.append(Disagreement(row["id"], "image", "another image", "the original, as the row is invalid"))
    return wrong
