"""Rows of a split in memory, and what a classifier and an oracle say of images that are made of them."""

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmrgen.apps.explain.directions import GeneratedMoves
from fmrgen.engine.acceptance import accepts
from fmrgen.engine.images import to_batch
from fmrgen.engine.interfaces import Generator, Originals
from fmrgen.engine.models import row_seed
from fmrgen.engine.options import PerturbOptions
from fmrgen.jobs.verify import check_no_gaps
from fmrgen.metrics.rows import as_label
from fmrgen.recipe.build import ClassifierAndOracle, component_errors
from fmrgen.sources.base import LoadedExample, Source
from fmrgen.split.open import Split
from fmrgen.storage.provenance import Provenance
from fmrgen.storage.schema import IMAGES

_BATCH = 64
_COLUMNS = ("id", "label", "valid", "accepted_labels")


@dataclass(frozen=True)
class JudgedImages:
    """Rows of a split, with what looks at them: images [N, 3, H, W] in [0, 1], and columns [N]."""

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
        columns = [*IMAGES, *(name for name in _COLUMNS if name in opened.features)]
        drawn: list[tuple[int, int, dict[str, Any]]] = []  # a heap, of which the one to go first is the first
        read: dict[str, list[Any]] = {name: [] for name in columns}
        for place, row in enumerate(opened.stored_rows(IMAGES, columns)):
            heappush(drawn, (-row_seed(0, row["id"], "drawn"), place, row))
            if len(drawn) > most:
                heappop(drawn)
        rows = [row for *_, row in sorted(drawn, key=lambda entry: entry[1])]
        for start in range(0, len(rows), _BATCH):
            batch = {name: [row[name] for row in rows[start : start + _BATCH]] for name in columns}
            check_no_gaps(opened.name, batch, len(provenance.labels))
            for name, column in batch.items():
                pixels = opened.pixels(batch, name) if name in IMAGES else column
                read[name].extend(pixels)
        originals, images = (to_batch(np.stack(read.pop(name)), device) for name in ("original", "image"))
        several = read.pop("accepted_labels", None)
        values = {name: np.asarray(column) for name, column in read.items()}
        if several is not None:
            values["accepted_labels"] = np.empty(len(several), dtype=object)
            values["accepted_labels"][:] = [np.asarray(one) for one in several]
        recorded = provenance.recipe.perturb
        options = PerturbOptions(
            oracle_rule=recorded.oracle_rule,  # type: ignore[arg-type]  # which it checks
            min_probability=recorded.min_probability,
            min_margin=recorded.min_margin,
        )
        return cls(originals, images, values, judges, options)

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
        """Return originals from the whole of a source, up to so many, which stand for their own images."""
        loaded = []
        for place in sorted({number * len(source) // most for number in range(most)}):
            for example in source.load(place, place + 1, image_size):
                if isinstance(example, LoadedExample):  # and none that is skipped
                    loaded.append(example)
        originals = to_batch(np.stack([example.image for example in loaded]), device)
        columns = {
            "id": np.array([example.id for example in loaded]),
            "label": np.array([example.label for example in loaded]),
        }
        if source.accepts_several:
            columns["accepted_labels"] = np.empty(len(loaded), dtype=object)
            columns["accepted_labels"][:] = [np.asarray(example.accepted) for example in loaded]
        return cls(originals, originals, columns, judges, options)

    def __len__(self) -> int:
        return len(self.originals)

    @property
    def labels(self) -> np.ndarray:
        return self.columns["label"]

    def of(self, chosen: np.ndarray) -> "JudgedImages":
        return self.at(np.flatnonzero(chosen))

    def at(self, places: np.ndarray) -> "JudgedImages":
        on_device = torch.from_numpy(places).to(self.originals.device)
        columns = {name: values[places] for name, values in self.columns.items()}
        return JudgedImages(self.originals[on_device], self.images[on_device], columns, self.judges, self.options)

    def moves_of(self, generator: Generator) -> GeneratedMoves:
        """Its originals, to be moved by a generator."""
        return GeneratedMoves(generator, self.originals, self.labels, self.columns["id"].tolist())

    @torch.no_grad()
    def answers(self, images: Tensor) -> np.ndarray:
        """What the classifier says of images [N, 3, H, W] made of the rows: the label where it is one that is true."""
        said = []
        for part in images.split(_BATCH):
            with component_errors("classifier", part):
                said.append(self.judges.classifier(part.clone()).argmax(1))
        answers = torch.cat(said).cpu().numpy() if said else np.zeros(0, dtype=int)
        return as_label(answers, self.labels, self.columns.get("accepted_labels"))

    @torch.no_grad()
    def sees(self, images: Tensor) -> np.ndarray:
        """Whether the oracle accepts images [N, 3, H, W] as what the rows are, bool [N]."""
        labels, seen = torch.from_numpy(self.labels).to(images.device), []
        for part in torch.arange(len(images), device=images.device).split(_BATCH):
            of = Originals(self.originals[part], labels[part])
            with component_errors("oracle", of.images):
                target = labels[part]
                if self.options.oracle_rule == "consistent":
                    target = self.judges.oracle.judge(of.images.clone(), of).decided
                seen.append(accepts(self.judges.oracle.judge(images[part], of), target, self.options)[0])
        return torch.cat(seen).cpu().numpy() if seen else np.zeros(0, dtype=bool)
