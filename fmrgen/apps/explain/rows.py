"""Rows of a split in memory, and the predictions of a classifier and an oracle for images made of them."""

from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fmrgen.engine.acceptance import accepts
from fmrgen.engine.images import to_batch
from fmrgen.engine.interfaces import Originals
from fmrgen.engine.models import row_seed
from fmrgen.engine.options import PerturbOptions
from fmrgen.metrics.rows import as_label
from fmrgen.recipe.build import ClassifierAndOracle, judgement_of, logits_of
from fmrgen.sources.base import LoadedExample, Source
from fmrgen.split.rows import Split, reading
from fmrgen.storage.provenance import Provenance

_BATCH = 64
_COLUMNS = ("id", "label", "valid", "accepted_labels")


@dataclass(frozen=True)
class JudgedImages:
    """Rows of a split with the models that judge them.

    Attributes:
        originals: [N, 3, H, W] in [0, 1].
        images: their perturbed images, likewise.
        columns: [N] each.
        judges: the classifier and the oracle.
        options: by which the oracle accepts an image.
    """

    originals: Tensor
    images: Tensor
    columns: dict[str, np.ndarray]
    judges: ClassifierAndOracle
    options: PerturbOptions

    @classmethod
    def read(
        cls,
        opened: Split,
        provenance: Provenance,
        judges: ClassifierAndOracle,
        most: int,
        device: torch.device | str,
    ) -> "JudgedImages":
        """Return rows of a split, drawn at random if it has more than `most`.

        Args:
            opened: the split.
            provenance: of the split.
            judges: its classifier and oracle.
            most: how many rows to draw.
            device: of the images.
        """
        columns: dict[str, list[Any]] = {}
        with reading(opened.name):
            rows = _drawn_rows(opened, most)
            for start in range(0, len(rows), _BATCH):
                batch: dict[str, list[Any]] = {}
                for row in rows[start : start + _BATCH]:
                    for name, value in row.items():
                        batch.setdefault(name, []).append(value)
                for name, values in (batch | opened.decoded(batch)).items():
                    columns.setdefault(name, []).extend(values)
        originals = to_batch(np.stack(columns.pop("original")), device)
        images = to_batch(np.stack(columns.pop("image")), device)
        arrays = {}
        for name, column in columns.items():
            if name == "accepted_labels":
                arrays[name] = object_array(column)
            else:
                arrays[name] = np.asarray(column)
        recorded = provenance.recipe.perturb
        options = PerturbOptions(
            oracle_rule=recorded.oracle_rule,  # type: ignore[arg-type]  # which it checks
            min_probability=recorded.min_probability,
            min_margin=recorded.min_margin,
        )
        return cls(originals, images, arrays, judges, options)

    @classmethod
    def of_source(
        cls,
        source: Source,
        image_size: int,
        judges: ClassifierAndOracle,
        options: PerturbOptions,
        most: int,
        device: torch.device | str,
    ) -> "JudgedImages":
        """Return originals spread evenly over a source, which stand for their own images.

        Args:
            source: to load them from.
            image_size: their side in pixels.
            judges: the classifier and the oracle.
            options: by which the oracle accepts an image.
            most: how many to load.
            device: of the images.
        """
        places = np.unique(np.arange(most) * len(source) // most).tolist()
        loaded = []
        for place in places:
            for example in source.load(place, place + 1, image_size):
                if isinstance(example, LoadedExample):  # skipped examples are of another class
                    loaded.append(example)
        originals = to_batch(np.stack([example.image for example in loaded]), device)
        columns = {
            "id": np.array([example.id for example in loaded]),
            "label": np.array([example.label for example in loaded]),
        }
        if source.accepts_several:
            columns["accepted_labels"] = object_array([example.accepted for example in loaded])
        return cls(originals, originals, columns, judges, options)

    def __len__(self) -> int:
        return len(self.originals)

    @property
    def ids(self) -> list[int]:
        ids: list[int] = self.columns["id"].tolist()
        return ids

    @property
    def labels(self) -> np.ndarray:
        return self.columns["label"]

    def of(self, chosen: np.ndarray) -> "JudgedImages":
        """Return the rows where `chosen`, bool [N], is True."""
        return self.at(np.flatnonzero(chosen))

    def at(self, places: np.ndarray) -> "JudgedImages":
        """Return the rows at `places`."""
        on_device = torch.from_numpy(places).to(self.originals.device)
        columns = {name: values[places] for name, values in self.columns.items()}
        return JudgedImages(self.originals[on_device], self.images[on_device], columns, self.judges, self.options)

    def judged_by(self, classifier: nn.Module) -> "JudgedImages":
        """Return the rows judged by another classifier and the same oracle."""
        return replace(self, judges=self.judges._replace(classifier=classifier))

    def answers(self, images: Tensor) -> np.ndarray:
        """Return the classifier's predictions for images [N, 3, H, W] made of the rows, [N].

        A prediction that is another accepted label of its row is given as the row's label.
        """
        predictions = []
        for batch in images.split(_BATCH):
            predictions.append(logits_of(self.judges.classifier, batch).argmax(1))
        answers = torch.cat(predictions).cpu().numpy()
        return as_label(answers, self.labels, self.columns.get("accepted_labels"))

    def sees(self, images: Tensor) -> np.ndarray:
        """Return whether the oracle accepts images [N, 3, H, W] as what the rows are, bool [N]."""
        labels = torch.from_numpy(self.labels).to(images.device)
        accepted = []
        for places in torch.arange(len(images), device=images.device).split(_BATCH):
            originals = Originals(self.originals[places], labels[places])
            target = labels[places]
            if self.options.oracle_rule == "consistent":
                _, of_originals = judgement_of(self.judges.oracle, originals.images, originals)
                target = of_originals.decided
            _, judgement = judgement_of(self.judges.oracle, images[places], originals)
            accepted.append(accepts(judgement, target, self.options)[0])
        return torch.cat(accepted).cpu().numpy()


def _drawn_rows(opened: Split, most: int) -> list[dict[str, Any]]:
    """Return at most `most` rows, drawn by a hash of their ids, in the order of the split."""
    images = opened.image_columns
    columns = [*images, *(name for name in _COLUMNS if name in opened.features)]
    heap: list[tuple[int, int, dict[str, Any]]] = []  # its first entry is the next to drop
    for place, row in enumerate(opened.stored_rows(images, columns)):
        heappush(heap, (-row_seed(0, row["id"], "drawn"), place, row))
        if len(heap) > most:
            heappop(heap)
    return [row for *_, row in sorted(heap, key=lambda entry: entry[1])]


def object_array(values: list[Any]) -> np.ndarray:
    """Return lists of any lengths as an array of arrays, [N]."""
    array = np.empty(len(values), dtype=object)
    array[:] = [np.asarray(value) for value in values]
    return array
