"""The paper's comparison: a split for each classifier, all classifiers on all splits (Tables 1 and 6)."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fmrgen.errors import UserError, option
from fmrgen.jobs.evaluate import evaluate
from fmrgen.jobs.from_objects import recipe_of
from fmrgen.jobs.generate import make_split
from fmrgen.progress.bars import progress_shown
from fmrgen.recipe.job import Recipe
from fmrgen.recipe.objects import AnyClassifier, AnyGenerator, AnyOracle, classifier_section, each_training
from fmrgen.results.evaluation import Evaluation


def compare(
    source: Any,
    classifiers: Mapping[str, AnyClassifier | Sequence[AnyClassifier]],
    output: str | Path,
    *,
    generator: AnyGenerator | None = None,
    oracle: AnyOracle | None = None,
    class_names: Sequence[str] | None = None,
    image_size: int | None = None,
    config: str | None = None,
    attack: str | None = None,
    batch_size: int = 64,
    progress: bool = True,
    **options: Any,
) -> Evaluation:
    """Generate or resume a split for each classifier, and evaluate all classifiers on all splits.

    Runs on every process of a launch, as `generate` and `evaluate` do.

    Args:
        source: a dataset in memory, or a recipe, its file or its shipped name, as for `generate`.
        classifiers: a mapping of names, which the splits get too, to modules, sections, or short forms as for
            `evaluate`. A list under one name holds several trainings of one kind; the kinds are compared too.
        output: the dataset folder.
        generator: as for `generate`; a recipe has its own.
        oracle: as for `generate`; a recipe has its own.
        class_names: names of the dataset's labels in order, for the oracle's prompts; by default the dataset's own.
        image_size: side in pixels of the perturbed images; by default that of the dataset's first image.
        config: name of source, generator and oracle in the dataset folder; by default `default`, or the recipe's.
        attack: an attack on pixels, as for `evaluate`.
        batch_size: images that a classifier gets at once when it is evaluated.
        progress: show bars.
        **options: of `fmrgen.PerturbOptions`: budget, step_size, and so on.

    Returns:
        Figures, predictions and samples; `own` has each classifier on its own split.

    Raises:
        UserError: fewer than two classifiers, or what `generate` and `evaluate` raise.
    """
    each = each_training(classifiers) if isinstance(classifiers, Mapping) else {}
    if len(each) < 2:
        few = "a comparison needs at least two"
        raise UserError(option(f"classifier: {few}", f"classifiers: {few}, by their names: {{'a': net, 'b': other}}"))
    sections = {name: classifier_section(classifier) for name, (classifier, _) in each.items()}
    recipe = recipe_of(
        source,
        next(iter(each.values()))[0],
        generator=generator,
        oracle=oracle,
        class_names=class_names,
        image_size=image_size,
        config=config,
        options=options,
    )
    recipes: dict[str, Recipe] = {}  # by their splits, called as their classifiers as far as that can be
    for name, section in sections.items():
        split = re.sub(r"\W+", "_", name).strip("_") or "classifier"
        if split in recipes:
            raise UserError(f"classifier {name}: its split would be {split}, like another's; rename it, NAME=…")
        changed = {"classifier": section, "description": "", "output": recipe.output.renamed(split=split)}
        recipes[split] = recipe.model_copy(update=changed)
    with progress_shown(progress):
        for each_recipe in recipes.values():
            make_split(each_recipe, output)
    splits = [f"{output}:{recipe.output.config}/{split}" for split in recipes]
    named: dict[str, Any] = {}
    for name, (_, group) in each.items():
        if group is None:
            named[name] = sections[name]
        else:
            named.setdefault(group, []).append(sections[name])
    evaluation = evaluate(splits, named, attack=attack, batch_size=batch_size, progress=progress)
    if evaluation.failed:
        raise UserError(evaluation.failed[0].why)
    return evaluation
