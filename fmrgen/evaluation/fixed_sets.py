"""A classifier on fixed benchmarks, in the same processes as on splits."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

from fmrgen.distributed.launch import Sharing
from fmrgen.engine.images import to_batch
from fmrgen.errors import UserError
from fmrgen.evaluation.images import batches_of_examples, pixels_of
from fmrgen.evaluation.summarise import predictions_table
from fmrgen.recipe.build import build_source
from fmrgen.recipe.fixed_sets import FixedSets
from fmrgen.results.fixed_sets import FixedSetResults, fixed_result
from fmrgen.sources.base import RawExample, Source
from fmrgen.split.classify import classify
from fmrgen.split.models import LoadedClassifier


def classify_fixed_sets(
    model: LoadedClassifier,
    chosen: Mapping[str, FixedSets],
    sharing: Sharing,
    device: torch.device,
    batch_size: int,
    on_images: Callable[[str, int, int], None],
) -> FixedSetResults:
    """Return a classifier's results on every fixed set, whose images stay as the sets hold them.

    `chosen` are fixed sets by name. `on_images` is called with a set's title, images done now, and its images in all.
    Raises UserError if the classifier or a set can't be used.
    """
    results = []
    predictions = []
    for name, config in chosen.items():
        of_sets = {}
        for (set_name, severity), section in config.sources(name).items():
            title = f"{name}: {set_name}" if config.sets else name
            if severity is not None:
                title += f"-{severity}"
            try:
                columns = _classify(title, build_source(section), model, sharing, device, batch_size, on_images)
            except UserError as error:
                raise UserError(f"{title}: {error}") from None
            predictions.append(predictions_table(title, model.name, columns))
            of_sets[set_name, severity] = columns["id"], columns["prediction"] == columns["label"]
        results.append(fixed_result(name, model.name, of_sets, config.normaliser))
    return FixedSetResults(results, predictions)


def _classify(
    title: str,
    source: Source,
    model: LoadedClassifier,
    sharing: Sharing,
    device: torch.device,
    batch_size: int,
    on_images: Callable[[str, int, int], None],
) -> dict[str, np.ndarray]:
    """Return ids, labels and predictions of all images of a source, [N] each. Raises UserError if it has none."""
    first = next(source.read(0, 1), None)
    if first is None:
        raise UserError("contains no images")
    total = len(source)
    answering = model.in_labels(source.labels, to_batch(pixels_of(first)[None], device), title)
    ids: list[int] = []
    labels: list[int] = []

    def examples() -> Iterator[tuple[int, RawExample]]:
        for row, example in enumerate(source.read(0, total)):
            ids.append(example.id)
            labels.append(example.label)
            yield row, example

    predictions = classify(
        batches_of_examples(examples(), batch_size, "image", np.asarray),
        {model.name: answering},
        lambda rows: np.array(labels[rows[0] : rows[-1] + 1]),
        sharing,
        device,
        lambda more: on_images(title, more, total),
    )
    prediction = predictions[model.name]["image"].prediction
    return {"id": np.array(ids), "label": np.array(labels), "prediction": prediction}
