"""`fmrgen.generate`: a split from a recipe, or from a dataset and models in memory."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fmrgen.config import ComponentConfig, validate
from fmrgen.errors import UserError
from fmrgen.image_files import open_rgb
from fmrgen.jobs.generate import make_split
from fmrgen.progress.bars import progress_shown
from fmrgen.recipe.build import blank_image, names_of_outputs
from fmrgen.recipe.job import OutputConfig, Recipe, load_recipe, parse_classifier
from fmrgen.recipe.objects import (
    AnyClassifier,
    AnyGenerator,
    AnyOracle,
    changed_options,
    classifier_section,
    generator_section,
    oracle_section,
)
from fmrgen.sources.base import SourceConfig
from fmrgen.sources.in_memory import Config as SourceInMemory
from fmrgen.split.generated import GeneratedSplit

_RECIPES = (str, Path, Recipe)  # anything else that is a source is a dataset


def generate(
    source: Any,
    classifier: AnyClassifier | None = None,
    generator: AnyGenerator | None = None,
    oracle: AnyOracle | None = None,
    *,
    output: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    image_size: int | None = None,
    config: str | None = None,
    split: str | None = None,
    part: tuple[int, int] | None = None,
    progress: bool = True,
    **options: Any,
) -> GeneratedSplit:
    """Generate or resume a perturbed split of a dataset against a classifier (paper §3).

    The split is stored in `output` as by the command `fmrgen generate`. After an interruption the same call resumes it.
    Under `accelerate launch` all processes share the work.

    Args:
        source: a `datasets.Dataset` with a column of images and one of labels; any dataset with `len()` and items
            (image, label), as in torchvision; or a recipe, its file or its shipped name, parts of which the arguments
            below replace.
        classifier: a module from images [B, 3, H, W] in [0, 1] to logits [B, K], which is put in evaluation mode, or
            what `fmrgen.load_classifier` takes.
        generator: an object, or a folder, asset or repo of a VQGAN or an autoencoder of diffusers, `transform`, the
            import path of a config, or a section as a mapping, `{"kind": "taesd", "encoder": …, "decoder": …}`.
        oracle: an object, a torch module that classifies better than the one under test, a folder, asset or repo of a
            CLIP, the import path of a config or of a module's class, or a section as a mapping.
        output: the dataset folder, created if needed.
        class_names: names of the dataset's labels in order, for the oracle's prompts; by default the dataset's own.
        image_size: side in pixels of the perturbed images; by default that of the dataset's first image.
        config: name of source, generator and oracle in the dataset folder; by default `default`.
        split: name of the classifier there; by default the recipe's `output.split`, else the classifier's class.
        part: `(i, n)` generates the i-th of n parts; copied into one folder, the same call without it finishes them.
        progress: show a bar.
        **options: of `fmrgen.PerturbOptions`: budget, step_size, and so on.

    Returns:
        The split's reference, for `evaluate`, `verify`, `push` and the like. `summary` has its figures, and `load()`
        returns its rows.

    Raises:
        UserError: an argument can't be used; the message says what to do.
    """
    if output is None:
        raise UserError("output: name the dataset folder of the split, as output='out'")
    if not split and classifier is not None and not isinstance(source, _RECIPES):
        split = _split_name(classifier)
    recipe = recipe_of(
        source,
        classifier,
        generator=generator,
        oracle=oracle,
        class_names=class_names,
        image_size=image_size,
        config=config,
        split=split or None,
        options=options,
    )
    with progress_shown(progress):
        summary = make_split(recipe, output, part=part)
    return GeneratedSplit.of(output, recipe.output.config, recipe.output.split, summary)


def recipe_of(
    source: Any,
    classifier: AnyClassifier | None,
    *,
    generator: AnyGenerator | None,
    oracle: AnyOracle | None,
    class_names: Sequence[str] | None,
    image_size: int | None,
    config: str | None,
    split: str | None = None,
    options: dict[str, Any],
) -> Recipe:
    """Return the recipe of `generate`'s arguments. Raise UserError if one can't be used."""
    names = None if class_names is None else list(map(str, class_names))
    base = None
    if isinstance(source, _RECIPES):
        base = source if isinstance(source, Recipe) else load_recipe(source)
        if generator is None and image_size is not None:
            cure = "for a recipe's, set generator.image_size"
            raise UserError(f"image_size: only applies to a generator passed here; {cure}")
        image_size = image_size or getattr(base.generator, "image_size", None)
        section = base.source if names is None else base.source.model_copy(update={"classes": names})
    else:
        names_of_classifier = partial(_names_of_outputs, source, classifier, image_size)
        section = SourceInMemory.of(source, names, names_of_classifier)
    parts: dict[str, Any] = {}
    if base is None or names is not None:
        parts["source"] = section
    if classifier is not None:
        parts["classifier"] = classifier_section(classifier)
    if generator is not None:
        parts["generator"] = generator_section(generator, image_size or _size_of_first(section))
    if oracle is not None:
        parts["oracle"] = oracle_section(oracle)
    missing = next((name for name in ("classifier", "generator", "oracle") if name not in parts), None)
    if base is None and missing is not None:
        raise UserError(
            f"source: a dataset needs a classifier, a generator and an oracle; there is no {missing}: pass it, or "
            "let fmrgen.init(dataset, classifier) choose a recipe"
        )
    recipe = base or Recipe(output=OutputConfig(config="default", split="classifier"), **parts)
    if base is not None and parts:
        recipe = base.model_copy(update={**parts, "description": ""})
    if options:
        recipe = recipe.model_copy(update={"perturb": changed_options(recipe.perturb, options)})
    changed = {name: value for name, value in (("config", config), ("split", split)) if value is not None}
    output = recipe.output.model_dump() | changed
    return recipe.model_copy(update={"output": validate(OutputConfig, output, "generate")})


def _names_of_outputs(source: Any, classifier: AnyClassifier | None, image_size: int | None) -> list[str]:
    """Return a network's class names, or the numbers of its classes, for labels without names; none if they are
    unknown."""
    if not isinstance(classifier, nn.Module):
        return []
    size = image_size or _size_of_first(SourceInMemory.of(source))
    device = next(classifier.parameters(), torch.empty(0)).device
    return names_of_outputs(classifier.eval(), blank_image(size, device), "classifier")


def _size_of_first(section: SourceConfig) -> int:
    first = next(section.build().read(0, 1), None)
    if first is None:
        raise UserError("source: contains no examples")
    return min(open_rgb(first.image).size)


def _split_name(classifier: AnyClassifier) -> str:
    """Return a name for a split: the class of its classifier, or the name that a reference gives it."""
    if isinstance(classifier, str):
        name = parse_classifier(classifier)[0]
    elif isinstance(classifier, ComponentConfig):
        name = classifier.kind
    else:
        name = type(classifier).__name__.lower()
    return re.sub(r"\W+", "_", name).strip("_") or "classifier"
