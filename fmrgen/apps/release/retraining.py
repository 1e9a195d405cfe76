"""The controls of a claim: NEW trained again without its cure, where both networks are folders of `fmrgen train`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fmrgen.apps.training.checkpoint import RECORD
from fmrgen.apps.training.loop import train
from fmrgen.apps.training.recipe import TrainRecipe
from fmrgen.errors import UserError, option
from fmrgen.files import read_json
from fmrgen.jobs.from_objects import generate
from fmrgen.recipe.job import Recipe
from fmrgen.split.open import open_own_split
from fmrgen.trust.recipes import untrusted_config

ANOTHER_SEED, RANDOM_COPIES = "another seed", "random-step copies"


def recipe_of_folder(folder: str | Path, *, trust: bool) -> TrainRecipe | None:
    """Return the recipe by which a folder of `fmrgen train` was trained; None for what is no such folder.

    Raises UserError if it can't be read, or names places and `trust` is False.
    """
    record = Path(folder) / RECORD
    if not record.is_file():
        return None
    return untrusted_config(TrainRecipe, read_json(record).get("recipe"), str(record), trust=trust)


def train_controls(
    old: str | Path,
    new: str | Path,
    output: Path,
    *,
    trust: bool,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    on_note: Callable[[str], None] = lambda line: None,
) -> dict[str, Path]:
    """Train the controls of a claim, or resume them.

    The first is NEW's training with the images and the augmentation of OLD, from another seed. If NEW was trained with
    perturbed copies too, the second has copies after as many random steps.

    Args:
        old: a folder of `fmrgen train`.
        new: likewise.
        output: a folder for theirs.
        trust: let the recipes run the code and read the places that they name.
        progress: called with (step, steps, loss) after each step.
        on_note: called with a line before each training.

    Returns:
        The folders by the names of the controls; none if either network is no such folder.

    Raises:
        UserError: a recipe can't be used, or the two are trained by recipes for different networks.
    """
    of_old, of_new = recipe_of_folder(old, trust=trust), recipe_of_folder(new, trust=trust)
    if of_old is None or of_new is None:
        return {}
    if of_old.model != of_new.model:
        raise UserError(
            f"{new}: is another network than {old}, so a training of one is no control of the other; give "
            f"{option('controls', 'controls')}"
        )
    seed = 1 + max(of_old.schedule.seed, of_new.schedule.seed)
    without_cure = {"source": of_old.source, "augment": of_old.augment, "copies": of_old.copies}
    wanted = {ANOTHER_SEED: of_new.model_copy(update={**without_cure, "schedule": _seeded(of_new, seed)})}
    if of_new.copies is not None and of_new.copies != of_old.copies:
        copies = _random_copies(of_new.copies, output / "copies", trust=trust, on_note=on_note)
        changes = {**without_cure, "copies": copies, "schedule": _seeded(of_new, seed + 1)}
        wanted[RANDOM_COPIES] = of_new.model_copy(update=changes)
    folders = {}
    for name, recipe in wanted.items():
        folders[name] = output / name.replace(" ", "-")
        on_note(f"trains a control, {name}, into {folders[name]}")
        train(recipe, folders[name], progress, on_note=on_note)
    return folders


def _seeded(recipe: TrainRecipe, seed: int) -> object:
    return recipe.schedule.model_copy(update={"seed": seed})


def _random_copies(reference: str, output: Path, *, trust: bool, on_note: Callable[[str], None]) -> str:
    """Return a split of the same originals after random steps: it is made, or resumed."""
    _, provenance = open_own_split(reference)
    title = f"{reference}: the recipe in its provenance"
    recipe = untrusted_config(Recipe, provenance.recipe.tree, title, trust=trust)
    perturb = replace(recipe.perturb.runs[0], update="random", objective="margin", control=0)
    on_note(f"makes copies after random steps, into {output}")
    generate(recipe.model_copy(update={"perturb": perturb}), output=output, progress=False)
    return f"{output}:{recipe.output.config}/{recipe.output.split}"
