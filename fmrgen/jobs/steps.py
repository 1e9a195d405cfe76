"""The images between the original and the stored image of a row: its steps are taken again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmrgen.config import StrictConfig
from fmrgen.engine.images import to_batch
from fmrgen.engine.perturb import perturb
from fmrgen.errors import UserError
from fmrgen.image_files import open_rgb, png_bytes
from fmrgen.jobs.verify import load_judges
from fmrgen.metrics.rows import as_label
from fmrgen.progress.bars import report
from fmrgen.recipe.build import build_generator
from fmrgen.recipe.job import PerturbField
from fmrgen.recipe.sections import GeneratorField
from fmrgen.records import Example
from fmrgen.results.samples import Sample
from fmrgen.split.rows import Split
from fmrgen.trust.recipes import untrusted_config


class _Steps(StrictConfig):
    """The sections of a recipe that move an image."""

    generator: GeneratorField
    perturb: PerturbField


def decode_steps(
    split: Split,
    samples: Sequence[Sample],
    *,
    most: int = 12,
    trust: bool = False,
    device: torch.device | str | None = None,
) -> dict[int, dict[int, bytes]]:
    """Take the steps of some rows of a split again, with the models of its recipe, and return their images.

    This costs what making the rows cost. A row whose steps come out otherwise than the split says, on another device
    for example, is left out.

    Returns PNG files by the rows' ids and the numbers of the steps, which rise from 0, the plain reconstruction. Of
    more steps than `most`, these are the first, the last, those around the first mistake, and some between. The samples
    have their originals and all columns. With `trust` the split's recipe, which may be a stranger's, may run the code
    and read the places that it names. `device` is by default a GPU if there is one. Raises UserError if the split does
    not keep its steps or its originals, or its models can't be loaded.
    """
    provenance = split.provenance
    if provenance is None:
        raise UserError(f"{split.name}: stores no steps; only splits of guided steps do")
    for sample in samples:
        if sample.original is None or not {"id", "step_predictions"} <= sample.columns.keys():
            raise UserError(f"{split.name}: its steps need the originals (output.keep_original) and the stored steps")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    judges, *_ = load_judges(split.name, provenance, trust=trust, device=device)
    recorded = provenance.recipe
    tree = {"generator": recorded.generator.tree, "perturb": recorded.perturb.model_dump(mode="json")}
    recipe = untrusted_config(_Steps, tree, f"{split.name}: the recipe in its provenance", trust=trust)
    options = replace(recipe.perturb, slots=min(32, max(1, len(samples))), compile=False)

    by_id = {sample.columns["id"]: sample for sample in samples}
    samples = list(by_id.values())  # each row once
    wanted = {example_id: _chosen(sample.columns, most) for example_id, sample in by_id.items()}
    images: dict[int, dict[int, bytes]] = {example_id: {} for example_id in by_id}

    def keep(example_id: int, attack: int, step: int, image: Tensor) -> None:
        if attack == (by_id[example_id].columns.get("attack") or 0) and step in wanted[example_id]:
            images[example_id][step] = png_bytes(image.permute(1, 2, 0).cpu().numpy())

    generator = build_generator(recipe.generator, device)
    rows = perturb(
        map(_example, samples), judges.classifier, generator, judges.oracle, options, device=device, on_step=keep
    )
    for done, row in enumerate(rows, 1):
        columns = by_id[row.id].columns
        accepted = columns.get("accepted_labels") or [row.label]
        (predictions,) = as_label(np.array([row.step_predictions]), np.array([row.label]), np.array([accepted]))
        if predictions.tolist() != list(columns["step_predictions"]) or sorted(images[row.id]) != wanted[row.id]:
            del images[row.id]
        report("steps", done, len(samples))
    return images


def _example(sample: Sample) -> Example:
    columns = sample.columns
    assert sample.original is not None
    image = to_batch(np.asarray(open_rgb(sample.original))[None])[0]
    accepted = columns.get("accepted_labels")
    return Example(columns["id"], image, columns["label"], False, None if accepted is None else tuple(accepted))


def _chosen(columns: Mapping[str, Any], most: int) -> list[int]:
    """Return which steps of a row are decoded: the ends, those around the first mistake, and some between."""
    predictions = columns["step_predictions"]
    last = len(predictions) - 1
    if last < most:
        return list(range(last + 1))
    chosen = {0, last}
    wrong = [step for step, prediction in enumerate(predictions) if prediction != columns["label"]]
    if wrong:
        chosen |= {max(0, wrong[0] - 1), wrong[0]}
    chosen.update(np.linspace(0, last, most - len(chosen) + 2).round().astype(int).tolist())
    return sorted(chosen)
