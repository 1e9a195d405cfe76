"""The search for a step size that uses the budget: `perturb.step_size=auto`"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from fmrgen.distributed.rank import note
from fmrgen.engine.interfaces import Latents
from fmrgen.engine.options import PerturbOptions
from fmrgen.engine.perturb import perturb
from fmrgen.errors import UserError
from fmrgen.jobs.finished import with_recorded_step
from fmrgen.recipe.build import Components
from fmrgen.recipe.job import Recipe
from fmrgen.records import Example, Perturbed
from fmrgen.sources.base import LoadedExample, StreamedSource
from fmrgen.storage.paths import SplitPaths


@dataclass(frozen=True)
class Trial:
    """The effect of a step size on the images."""

    step_size: float
    valid: float  # share of the rows
    mean_iterations: float  # of valid rows; 0 if there are none
    perturbed_accuracy: float = float("nan")  # of valid rows, 0 to 1; NaN if there are none

    def __str__(self) -> str:
        accuracy = f"{self.perturbed_accuracy:.0%}" if self.valid else "n/a"
        return f"{self.valid:.0%} valid, {self.mean_iterations:.1f} steps, PA {accuracy}"


@dataclass(frozen=True)
class Wanted:
    """A good step: a fifth to four fifths of the budget on average, and at least the share `valid` of valid rows."""

    budget: int
    valid: float

    def is_met_by(self, trial: Trial) -> bool:
        """Return whether the steps are no longer than that, and no shorter: then many rows are cut off."""
        return not self.is_too_long(trial) and trial.mean_iterations <= 4 * self.budget / 5

    def is_too_long(self, trial: Trial) -> bool:
        """Return whether images are refused at once, or after few steps, which are coarse."""
        return trial.valid < self.valid or trial.mean_iterations < self.budget / 5


def settled_step(recipe: Recipe, components: Components, paths: SplitPaths, device: torch.device) -> Recipe:
    """Return the recipe with a number for its step size.

    `auto` is the step of the split that is already there, or is found by perturbing a few images of the source: every
    process of a job finds the same one.
    """
    recipe = with_recorded_step(recipe, paths)
    options = recipe.perturb
    if options.step_size != "auto":
        return recipe
    step = find_step(components, options, device)[0]
    return recipe.model_copy(update={"perturb": replace(options, step_size=step)})


def find_step(components: Components, options: PerturbOptions, device: torch.device) -> tuple[float, list[str]]:
    """Return a step size with which the oracle stops images after a fair part of the budget, and a line on each trial.

    Raises UserError if no image can be read, or no gradient reaches the latent.
    """
    examples = _evenly(components)
    scale = _latent_scale(components, examples[:4], device)
    rows: list[Perturbed] = []  # of the last trial
    notes: list[str] = []
    encoded: dict[tuple[int, ...], Latents] = {}  # by the seeds of a batch, which are the same in each trial

    def encodings(images: Tensor, labels: Tensor, seeds: Sequence[int], encode: Callable[[], Latents]) -> Latents:
        key = tuple(seeds)
        if key not in encoded:
            encoded[key] = encode()
        return encoded[key]

    def trial_of(step_size: float) -> Trial | None:
        if step_size > scale:  # which would leave nothing of the latent
            return None
        run = replace(options, step_size=step_size).runs[0]
        rows[:] = perturb(examples, *components[1:], run, device=device, expected=len(examples), encodings=encodings)
        trial = Trial(step_size, 0.0, 0.0)
        if valid_rows := [row for row in rows if row.valid]:
            iterations = float(np.mean([row.iterations for row in valid_rows]))
            accuracy = float(np.mean([row.accepts(row.prediction) for row in valid_rows]))
            trial = Trial(step_size, len(valid_rows) / len(rows), iterations, accuracy)
        notes.append(f"step size {step_size:g} on {len(examples)} images: {trial}")
        note(notes[-1])
        return trial

    first = trial_of(_rounded(0.05 * scale))
    assert first is not None
    # No step, however short, makes more images valid than the oracle accepts before any step.
    acceptable = sum(_is_accepted(row, options) for row in rows) / len(rows)
    wanted = Wanted(options.budget, min(0.9, 0.95 * acceptable))
    trials = [first, *search(first, wanted, trial_of)]
    good = [trial for trial in trials if wanted.is_met_by(trial)]
    valid = [trial for trial in trials if trial.valid >= wanted.valid]
    if good:
        chosen = good[-1]
    elif valid:  # as far as the budget allows
        chosen = max(valid, key=lambda trial: trial.step_size)
    else:
        chosen = min(trials, key=lambda trial: trial.step_size)
    notes.append(f"perturb.step_size=auto: takes {chosen.step_size:g}")
    note(notes[-1])
    return chosen.step_size, notes


@torch.no_grad()
def _latent_scale(components: Components, examples: list[Example], device: torch.device) -> float:
    """Return the root mean square of the latents of some examples; 1 if all are zero, as those of `transform`."""
    generator = components.generator
    images = torch.stack([example.image for example in examples]).to(device)
    labels = torch.tensor([example.label for example in examples], device=device)
    generator.row_seeds = [0] * len(examples)
    free = generator.encode_quickly(images, labels).free
    generator.row_seeds = ()
    return float(free.float().square().mean().sqrt()) or 1.0


def search(own: Trial, wanted: Wanted, trial_of: Callable[[float], Trial | None]) -> list[Trial]:
    """Return trials of larger and smaller steps than `own`.

    The search ends when a step is good, when the way back and forth has become short, or when `trial_of` returns None.
    """
    trials: list[Trial] = []
    trial, factor, direction = own, 10**0.5, 0
    while not wanted.is_met_by(trial) and len(trials) < 10 and factor > 1.1:
        next_direction = -1 if wanted.is_too_long(trial) else 1
        if next_direction == -direction:
            factor = factor**0.5
        direction = next_direction
        next_trial = trial_of(_rounded(trial.step_size * factor**direction))
        if next_trial is None:
            break
        trial = next_trial
        trials.append(trial)
    return trials


def _is_accepted(row: Perturbed, options: PerturbOptions) -> bool:
    """Return whether the oracle accepts the plain reconstruction of an image, as far as that is on record."""
    label, probability = row.reconstruction_oracle_label, row.step_oracle_probabilities[0]
    is_right = row.accepts(label) if options.oracle_rule == "label" else label == row.original_oracle_label
    return is_right and probability >= options.min_probability


def _evenly(components: Components) -> list[Example]:
    """Return examples from all over the source, or the first ones of a stream. Raises UserError if none can be read."""
    source, size = components.source, components.generator.image_size
    count = min(32, len(source))
    places = range(count)
    if not isinstance(source, StreamedSource):
        places = np.unique(np.linspace(0, len(source) - 1, count).round().astype(int)).tolist()
    loaded = chain.from_iterable(source.load(place, place + 1, size) for place in places)
    examples = [entry.for_engine() for entry in loaded if isinstance(entry, LoadedExample)]
    if not examples:
        raise UserError("source: none of the images that were tried can be read; see source.on_error")
    return examples


def _rounded(step_size: float) -> float:
    return float(f"{step_size:.3g}")
