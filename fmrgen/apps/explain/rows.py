"""Rows in memory, and what a classifier and an oracle say of images generated from them."""

from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor

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


@dataclass(frozen=True)
class DrawnRows:
    """Rows of a split, or of a source, with the models that judge them."""

    originals: Tensor  # [N, 3, H, W] in [0, 1]
    images: Tensor  # perturbed, likewise; of a source the originals
    columns: dict[str, np.ndarray]  # `id`, `label`, and where they are known `valid` and `accepted_labels`, [N] each
    judges: ClassifierAndOracle
    options: PerturbOptions  # by which the oracle accepts an image

    @classmethod
    def of_split(
        cls, opened: Split, provenance: Provenance, judges: ClassifierAndOracle, most: int, device: torch.device | str
    ) -> "DrawnRows":
        """Return rows of a split, drawn by a hash of their ids if it has more than `most`."""
        columns = opened.columns(("id", "label", "valid", "accepted_labels"))
        seeds = [row_seed(0, example_id, "drawn") for example_id in columns["id"].tolist()]
        rows = np.sort(sorted(range(len(seeds)), key=seeds.__getitem__)[:most])
        pixels: dict[str, list[Tensor]] = {"original": [], "image": []}
        with reading(opened.name):
            for batch in opened.images((*pixels,), rows, _BATCH):
                for name, images in batch.decode().items():
                    decoded = [image if isinstance(image, np.ndarray) else image() for image in images]
                    pixels[name].append(to_batch(np.stack(decoded), device))
        recorded = provenance.recipe.perturb
        options = PerturbOptions(
            oracle_rule=recorded.oracle_rule,  # type: ignore[arg-type]  # which it checks
            min_probability=recorded.min_probability,
            min_margin=recorded.min_margin,
        )
        drawn = {name: values[rows] for name, values in columns.items()}
        return cls(torch.cat(pixels["original"]), torch.cat(pixels["image"]), drawn, judges, options)

    @classmethod
    def of_source(
        cls,
        source: Source,
        image_size: int,
        judges: ClassifierAndOracle,
        options: PerturbOptions,
        most: int,
        device: torch.device | str,
    ) -> "DrawnRows":
        """Return originals of `image_size` pixels, at most `most`, spread evenly over a source."""
        places = np.unique(np.arange(most) * len(source) // most).tolist()
        examples = chain.from_iterable(source.load(place, place + 1, image_size) for place in places)
        loaded = [example for example in examples if isinstance(example, LoadedExample)]  # others were skipped
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
    def ids(self) -> list[int]:
        return list(self.columns["id"].tolist())

    @property
    def labels(self) -> np.ndarray:
        return self.columns["label"]

    def at(self, places: np.ndarray) -> "DrawnRows":
        """Return the rows at `places`, or where it is True."""
        on_device = torch.from_numpy(places).to(self.originals.device)
        columns = {name: values[places] for name, values in self.columns.items()}
        return replace(self, originals=self.originals[on_device], images=self.images[on_device], columns=columns)

    def predictions(self, images: Tensor) -> np.ndarray:
        """Return the classifier's predictions for images [N, 3, H, W] made of the rows, [N].

        A prediction that is another accepted label of its row is given as the row's label.
        """
        batches = [logits_of(self.judges.classifier, batch).argmax(1) for batch in images.split(_BATCH)]
        return as_label(torch.cat(batches).cpu().numpy(), self.labels, self.columns.get("accepted_labels"))

    def accepts(self, images: Tensor) -> np.ndarray:
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
