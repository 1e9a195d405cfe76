"""Algorithm 1 on tensors in memory: a batch of images in, a batch of images out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn

from fmrgen.distributed.launch import start_process
from fmrgen.engine.interfaces import Generator, Oracle
from fmrgen.engine.options import PerturbOptions
from fmrgen.engine.perturb import perturb
from fmrgen.errors import UserError
from fmrgen.labels import Labels
from fmrgen.metrics.summary import SUMMARY_COLUMNS, Summary, summarise
from fmrgen.progress.bars import progress_shown, report
from fmrgen.recipe.build import blank_image, component_errors, fit_oracle, fit_to_labels, names_of_outputs
from fmrgen.recipe.objects import (
    AnyClassifier,
    AnyGenerator,
    AnyOracle,
    built,
    changed_options,
    classifier_section,
    generator_section,
    oracle_section,
)
from fmrgen.records import Example, Perturbed


@dataclass(frozen=True)
class PerturbedBatch:
    """The result of `perturb_batch`, in the order of its images.

    Attributes:
        images: [B, 3, H, W], float32 in [0, 1], on the 8-bit grid; the original where `valid` is False.
        valid: [B], bool: whether the oracle accepted at least the first step.
        predictions, original_predictions: [B], int64, of the classifier on `images` and on the originals.
        rows: the complete result for each image.
    """

    images: Tensor
    valid: Tensor
    predictions: Tensor
    original_predictions: Tensor
    rows: list[Perturbed]

    def summary(self) -> Summary:
        """SA, PA, VR, FMR and the like, in percent, with 95 % intervals."""
        columns = {}
        for name in SUMMARY_COLUMNS:
            values = pa.array([getattr(row, name) for row in self.rows])
            columns[name] = values.to_numpy(zero_copy_only=False)
        return summarise(columns)

    def __repr__(self) -> str:
        summary = self.summary()
        rates = {"SA": summary.standard_accuracy, "PA": summary.perturbed_accuracy, "VR": summary.validation_rate}
        listed = [f"{name} {rate.value:.1f} %" for name, rate in rates.items() if rate is not None]
        return f"PerturbedBatch({len(self.rows)} images: {', '.join(listed)})"


def perturb_batch(
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    classifier: AnyClassifier,
    generator: AnyGenerator,
    oracle: AnyOracle,
    class_names: Sequence[str] | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
    **options: Any,
) -> PerturbedBatch:
    """Perturb a batch of images in memory (paper §3.1, Algorithm 1).

    Args:
        images: RGB [B, 3, S, S], floats in [0, 1] or uint8.
        labels: B classes, counted from 0.
        classifier: a module from images [B, 3, S, S] in [0, 1] to logits [B, K], which is put in evaluation mode, or
            what `fmrgen.load_classifier` takes.
        generator: an object, or a folder, asset or repo of a VQGAN or an autoencoder of diffusers, `transform`, the
            import path of a config, or a section as a mapping, `{"kind": "taesd", "encoder": …, "decoder": …}`.
        oracle: an object, a torch module that classifies better than the one under test, a folder, asset or repo of a
            CLIP, the import path of a config or of a module's class, or a section as a mapping.
        class_names: names of the K classes, for the oracle's prompts; by default the classifier's own, else the numbers
            0 to K-1.
        device: device of the models; by default a GPU if there is one.
        progress: show a bar.
        **options: of `fmrgen.PerturbOptions`: budget, step_size, and so on.

    Returns:
        The perturbed images and their measurements.

    Raises:
        UserError: an argument can't be used; the message says what to do.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise UserError(f"images: have the shape {list(images.shape)}; give squares, RGB [B, 3, S, S]")
    if len(labels) != len(images):
        raise UserError(f"labels: there are {len(labels)} for {len(images)} images")
    place = torch.device(device) if device is not None else start_process()
    size = images.shape[-1]
    floats = images / 255 if images.dtype == torch.uint8 else images
    blank = blank_image(size, place)
    network = built(classifier, classifier_section, "classifier", nn.Module, place)
    names = class_names or names_of_outputs(network, blank, "classifier")
    labelling = Labels(tuple(names), source_size=len(names))
    with component_errors("classifier", blank):
        network = fit_to_labels(network, labelling, blank, "classifier")
    made = built(generator, partial(generator_section, image_size=size), "generator", Generator, place)
    judge = built(oracle, oracle_section, "oracle", Oracle, place)
    fit_oracle(judge, labelling, blank)
    settings = changed_options(PerturbOptions(slots=max(1, min(len(labels), 32))), options)
    examples = [
        Example(i, floats[i], int(label), controlled=settings.is_controlled(i, len(labels)))
        for i, label in enumerate(labels)
    ]
    rows: list[Perturbed] = []
    with progress_shown(progress):
        for row in perturb(examples, network, made, judge, settings, device=place):
            rows.append(row)
            report("perturb_batch", len(rows), len(examples))
    rows.sort(key=lambda row: row.id)
    return PerturbedBatch(
        images=torch.stack([row.image for row in rows]).float() / 255,
        valid=torch.tensor([row.valid for row in rows]),
        predictions=torch.tensor([row.prediction for row in rows]),
        original_predictions=torch.tensor([row.original_prediction for row in rows]),
        rows=rows,
    )
