"""The paper's comparison: a split for each classifier, all classifiers on all splits (Tables 1 and 6)."""

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from fmrgen.config import ComponentConfig
from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import UserError
from fmrgen.jobs.bars import OnRows, job_bar
from fmrgen.jobs.evaluate import evaluate
from fmrgen.jobs.evaluation import Evaluation
from fmrgen.jobs.generate import make_split
from fmrgen.jobs.objects import AnyClassifier, classifier_section
from fmrgen.jobs.progress import Progress
from fmrgen.recipe import OutputConfig, Recipe, load_recipe

OnProgress = Callable[[Progress], None]
JobProgress = Callable[[Recipe], AbstractContextManager[OnProgress]]


def untold(recipe: Recipe) -> AbstractContextManager[OnProgress]:
    """Progress that nobody is told of."""
    return nullcontext(lambda told: None)


def compare(
    recipe: Recipe | str,
    classifiers: Mapping[str, AnyClassifier],
    output: str | Path,
    *,
    seeds: int = 1,
    attack: str | None = None,
    batch_size: int = 64,
    progress: bool = True,
    job_progress: JobProgress | None = None,
    on_note: Callable[[str], None] = print,
    on_rows: OnRows | None = None,
) -> Evaluation:
    """Makes a split for each classifier, or goes on with it, and evaluates all classifiers on all of them.

    Runs on every process of a launch, as `generate` and `evaluate` do.

    Args:
        recipe: of all the splits but for classifier and `output.split`; or its file or shipped name.
        classifiers: by their names, which the splits get too: modules, sections, or what `fmrgen.load_classifier`
            takes.
        output: the dataset folder.
        seeds: how many splits each classifier gets, of `perturb.seed` and those after it; the ranking is of the first,
            and the others tell how far chance alone moves FMR.
        attack: on pixels, as for `evaluate`.
        batch_size: images that a classifier gets at once when it is evaluated.
        progress: show bars.
        job_progress: in the place of the bars: makes, for a split's recipe, what is told how far it is.
        on_note: told, in a line, what was found or is left to do.
        on_rows: called with (split, rows done, rows in all or None) while classifiers are evaluated.

    Returns:
        Figures, predictions and samples; `own` has each classifier on its own split.

    Raises:
        UserError: fewer than two classifiers, or what `generate` and `evaluate` raise.
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    sections = {name: classifier_section(given) for name, given in classifiers.items()}
    of_first_seed = _recipes(recipe, sections)
    recipes = [_of_seed(made, more) for more in range(seeds) for made in of_first_seed]
    if seeds > 1 and not recipe.perturb.start_noise and recipe.perturb.update != "random" and is_first_process():
        on_note("perturb.start_noise is 0: seeds change only what is random in the generator")
    for made in recipes:
        with (job_progress or partial(job_bar, progress))(made) as on_progress:
            make_split(made, output, on_progress=on_progress, on_note=on_note)
    splits = [f"{output}:{made.output.config}/{made.output.split}" for made in recipes]
    return evaluate(splits, sections, attack=attack, batch_size=batch_size, progress=progress, on_rows=on_rows)


def _recipes(recipe: Recipe, classifiers: Mapping[str, ComponentConfig]) -> list[Recipe]:
    """A recipe for each classifier, its split of the same name as far as that can be one."""
    if len(classifiers) < 2:
        raise UserError("--classifier: a comparison needs at least two")
    recipes: dict[str, Recipe] = {}  # by their splits
    for name, section in classifiers.items():
        split = re.sub(r"\W+", "_", name).strip("_") or "classifier"
        if split in recipes:
            raise UserError(f"classifier {name}: its split {split} is that of another; give it a name, NAME=…")
        named = {"classifier": section, "description": "", "output": _renamed(recipe.output, split)}
        recipes[split] = recipe.model_copy(update=named)
    return list(recipes.values())


def _of_seed(recipe: Recipe, more: int) -> Recipe:
    """The recipe with the seed so many after its own, and a split of that name."""
    if more == 0:
        return recipe
    seed = recipe.perturb.seed + more
    output = _renamed(recipe.output, f"{recipe.output.split}_seed{seed}")
    return recipe.model_copy(update={"perturb": replace(recipe.perturb, seed=seed), "output": output})


def _renamed(output: OutputConfig, split: str) -> OutputConfig:
    return OutputConfig.model_validate(output.model_dump() | {"split": split})
