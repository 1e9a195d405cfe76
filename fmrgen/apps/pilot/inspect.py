"""A pilot on a few images: what a recipe's parts are worth together, and which step suits its generator."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from fmrgen.apps.pilot.masking import Search, Slopes, check_follows_a_gradient, gradient_warnings, search, slopes
from fmrgen.apps.pilot.quality import Cost, Distance, Plain, Spectrum, lpips, rfid
from fmrgen.distributed.launch import start_process
from fmrgen.engine.images import to_batch
from fmrgen.engine.interfaces import Originals
from fmrgen.engine.options import PerturbOptions
from fmrgen.engine.perturb import perturb
from fmrgen.errors import UserError, option
from fmrgen.image_files import open_rgb
from fmrgen.jobs.batch import summarise_rows
from fmrgen.jobs.self_check import common_weights_caution, first_answers, likeness_caution, weights_in_common
from fmrgen.metrics.summary import Summary
from fmrgen.recipe.build import Components
from fmrgen.recipe.job import Recipe
from fmrgen.records import Example, Perturbed, StopReason
from fmrgen.sources.base import LoadedExample, RawExample

_FEWEST_STEPS, _MOST_STEPS = 10, 40  # on average, of a budget of 50: fewer are coarse, of more many are cut off
_LEAST_VALID = 0.9
_KEPT_VALID = 0.95  # of the images that the oracle accepts before any step, where those are few
_LITTLE = 0.5
_FACTOR = 10**0.5
_TRIALS = 10
_ACCURACY_LOST = 0.05  # on reconstructions, against originals
_TOGETHER = 16
_SECONDS = 90.0  # that a pilot may take; how many are measured on a few images, and a busy machine may need more
_OF_OWN_STEP = 0.35  # of that for the recipe's own step, with what is measured first
_OF_TRIALS = 0.85  # by when the last other step must have ended: the rest is for all else
_PROBED = 4  # images, and the fewest that are tried


@dataclass(frozen=True)
class Trial:
    """What a step size does to the images: shares of valid rows, of rows ended by the budget and of stuck ones."""

    step_size: float
    valid: float
    mean_iterations: float
    by_budget: float
    stuck: float
    perturbed_accuracy: float  # of valid rows; NaN where there are none

    def __str__(self) -> str:
        accuracy = f"{self.perturbed_accuracy:.0%}" if self.valid else "n/a"
        return f"{self.valid:.0%} valid, {self.mean_iterations:.1f} steps, PA {accuracy}"


@dataclass(frozen=True)
class Inspection:
    """What a pilot found. Accuracies and shares are from 0 to 1, times in seconds.

    Attributes:
        images: of the pilot.
        psnr: of plain reconstructions, mean in dB.
        classifier_accuracy, oracle_accuracy: on originals at the generator's size.
        classifier_native, oracle_native: on the source's own pixels, before they come to that size; None for one that
            takes no images of other sizes.
        classifier_reconstructed, oracle_reconstructed: on their plain reconstructions.
        oracle_probability: the oracle's mean probability of the label on originals.
        latent_size, latent_scale: how many dimensions may move, and their root mean square.
        own: the recipe's own step.
        proposed: the step that is proposed; None where none of those tried is good.
        trials: all steps tried, by size.
        seconds_per_pass: of one image, in the trial of the recipe's own step.
        seconds_of_job: what the whole job takes with the proposed step (or else its own) on this device.
        lpips, rfid: perceptual distances of plain reconstructions to originals, where they can be had.
        spectrum: of what the recipe's own step changes in valid rows; None where it changes nothing.
        cost: of a pass of one image.
        guided: the figures of the recipe's own step, with as many random steps beside.
        slopes: the classifier's slope along its gradient to what that says, on plain reconstructions and on images that
            steps have led to (`fmrgen.apps.pilot.masking`): 1 of a gradient of its own.
        searched: what steps without gradients do to the same images; None where nobody asked.
        warnings: what is wrong, each with its cure.
        left_out: what would have taken too long.
    """

    images: int
    psnr: float
    classifier_accuracy: float
    oracle_accuracy: float
    classifier_native: float | None
    oracle_native: float | None
    classifier_reconstructed: float
    oracle_reconstructed: float
    oracle_probability: float
    latent_size: int
    latent_scale: float
    own: Trial
    proposed: Trial | None
    trials: list[Trial]
    seconds_per_pass: float
    seconds_of_job: float
    lpips: Distance
    rfid: Distance
    spectrum: Spectrum | None
    cost: Cost
    guided: Summary
    slopes: tuple[float | None, float | None]
    searched: Search | None
    warnings: list[str]
    left_out: list[str]


def inspect(
    recipe: Recipe,
    *,
    images: int = 32,
    download: bool = False,
    masking: bool = False,
    seconds: float = _SECONDS,
    on_trial: Callable[[Trial], None] = lambda trial: None,
    on_passes: Callable[[int, int], None] = lambda done, most: None,
) -> Inspection:
    """Tries a recipe on a few images, and looks for a step size that uses the budget.

    A good step leads images to where the oracle stops them in 10 to 40 steps on average (of a budget of 50), and at
    least 90 % of them pass the first one, or nearly all of those that the oracle accepts before it.

    Args:
        recipe: of the job; nothing is written.
        images: how many, taken evenly from the whole source.
        masking: perturb the images without gradients too, as `update: nes` does.
        download: fetch the weights of perceptual distances, if they are not on this machine.
        seconds: about how long it may take, without the search of `masking`: other steps, the random control and some
            of the images are left out if they would take longer.
        on_trial: called with each step that is tried.
        on_passes: called with (passes of an image done, at most so many in all).

    Returns:
        What was found, with a warning and its cure for whatever does not look right.

    Raises:
        UserError: a component can't be built, or no image can be read.
    """
    if masking:
        check_follows_a_gradient(recipe.perturb)
    device = start_process()
    began = time.perf_counter()
    components = recipe.build(device)
    raw, examples = _evenly(components, images)
    budget, controlled = recipe.perturb.budget, recipe.perturb.can_be_controlled
    passes: list[int] = []  # images in each
    most_passes = 0

    def perturbed(options: PerturbOptions, tried: list[Example]) -> list[Perturbed]:
        _, classifier, generator, oracle = components

        def count(active: int) -> None:
            passes.append(active)
            if most_passes:  # is known after the first measurement
                on_passes(sum(passes), max(most_passes, sum(passes)))

        return list(perturb(tried, classifier, generator, oracle, options, device=device, on_pass=count))

    left_out: list[str] = []
    per_pass = _seconds_per_pass(lambda tried: perturbed(replace(recipe.perturb, budget=1), tried), examples, passes)
    most_of_image = _most_passes(budget, controlled)
    affordable = int((_OF_OWN_STEP * seconds - (time.perf_counter() - began)) / (per_pass * most_of_image))
    if affordable < len(examples) and controlled:
        left_out.append("the random control")
        affordable = affordable * most_of_image // _most_passes(budget, False)
        controlled, most_of_image = False, _most_passes(budget, False)
    if affordable < len(examples) and len(examples) > _PROBED:
        kept = np.linspace(0, len(examples) - 1, max(_PROBED, affordable)).round().astype(int).tolist()
        left_out.append(f"{len(examples) - len(kept)} of {len(examples)} images")
        raw, examples = [raw[place] for place in kept], [examples[place] for place in kept]

    def trial_of(step_size: float, rows: list[Perturbed]) -> Trial:
        trial = _trial(step_size, rows)
        on_trial(trial)
        return trial

    def has_time() -> bool:
        """Whether one more step can be tried."""
        most = per_pass * len(examples) * _most_passes(budget, False)
        if time.perf_counter() - began + most <= _OF_TRIALS * seconds:
            return True
        left_out.append("other step sizes")
        return False

    def attempt(step_size: float) -> Trial:
        nonlocal most_passes
        most_passes = sum(passes) + len(examples) * _most_passes(budget, False)
        return trial_of(step_size, perturbed(replace(recipe.perturb, step_size=step_size), examples))

    passes.clear()
    started = time.perf_counter()
    most_passes = len(examples) * most_of_image
    rows = perturbed(recipe.perturb, [replace(example, controlled=controlled) for example in examples])
    per_pass = (time.perf_counter() - started) / max(1, sum(passes))
    own = trial_of(recipe.perturb.step_size, rows)
    acceptable = _acceptable(rows, recipe.perturb)
    wanted = _Wanted(recipe.perturb.budget, min(_LEAST_VALID, _KEPT_VALID * acceptable))
    trials = _search(own, attempt, wanted, has_time) if acceptable else []
    proposed = next((trial for trial in [own, *trials] if wanted.is_met_by(trial)), None)
    per_image = 2 + (proposed or own).mean_iterations
    plain = Plain.of(components, examples, rows, recipe.perturb.seed, device)
    native = _native_accuracies(components, raw, device)
    answers = first_answers(components, device)
    about_weights = common_weights_caution(weights_in_common(components))
    guided = summarise_rows(rows)
    searched = search(components, examples, rows, recipe.perturb, device) if masking else None
    found: Slopes = (None, None)
    if recipe.perturb.follows_gradient:
        found = slopes(components.classifier, recipe.perturb.objective, plain.images, examples, rows)
    return Inspection(
        images=len(examples),
        psnr=plain.psnr,
        classifier_accuracy=plain.classifier[0],
        oracle_accuracy=plain.oracle[0],
        classifier_native=native[0],
        oracle_native=native[1],
        classifier_reconstructed=plain.classifier[1],
        oracle_reconstructed=plain.oracle[1],
        oracle_probability=plain.oracle_probability,
        latent_size=plain.latent_size,
        latent_scale=plain.latent_scale,
        own=own,
        proposed=proposed,
        trials=sorted([own, *trials], key=lambda trial: trial.step_size),
        seconds_per_pass=per_pass,
        seconds_of_job=per_pass * per_image * len(components.source),
        lpips=lpips(plain.originals, plain.images, download),
        rfid=rfid(plain.originals, plain.images, download),
        spectrum=plain.spectrum_of_changes(examples, rows),
        cost=plain.cost,
        guided=guided,
        slopes=found,
        searched=searched,
        warnings=[
            *_native_warnings(plain, native, len(examples)),
            *_warnings(plain, acceptable, len(examples)),
            *_step_warnings(own, proposed, wanted, nothing_else_tried=not trials and bool(left_out)),
            *gradient_warnings(guided, found, searched, recipe.perturb),
            *filter(None, [about_weights, None if answers is None else likeness_caution(answers)]),
            *components.notes(),
        ],
        left_out=left_out,
    )


def _most_passes(budget: int, controlled: bool) -> int:
    """Passes of an image that uses the budget: its reconstruction, each step, and the step that the oracle rejects."""
    return 2 + budget * (2 if controlled else 1)


def _seconds_per_pass(
    perturbed: Callable[[list[Example]], list[Perturbed]], examples: list[Example], passes: list[int]
) -> float:
    """Of one image among a few, after a first one on which libraries get ready."""
    perturbed(examples[:1])
    passes.clear()
    started = time.perf_counter()
    perturbed(examples[:_PROBED])
    return (time.perf_counter() - started) / max(1, sum(passes))


def _evenly(components: Components, images: int) -> tuple[list[RawExample], list[Example]]:
    """Examples from all over the source, as far as they can be read: as they are stored, and for the engine."""
    source, size = components.source, components.generator.image_size
    raw: list[RawExample] = []
    examples: list[Example] = []
    for at in np.unique(np.linspace(0, len(source) - 1, min(images, len(source))).round().astype(int)).tolist():
        for loaded in source.load(at, at + 1, size):
            if isinstance(loaded, LoadedExample):
                examples.append(loaded.for_engine())
                raw += source.read(at, at + 1)
    if not examples:
        raise UserError("source: none of the images that were tried can be read; see source.on_error")
    return raw, examples


@torch.no_grad()
def _native_accuracies(
    components: Components, examples: list[RawExample], device: torch.device
) -> tuple[float | None, float | None]:
    """What classifier and oracle get right of the images at their own sizes; None for one that fails on these."""

    def accuracy(says: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> float | None:
        try:
            right = [int(says(image, label)) == int(label) for image, label in zip(images, labels, strict=True)]
        except Exception:  # anyone's code stands there, and some networks take one size alone
            return None
        return sum(right) / len(right)

    images = [to_batch(np.asarray(open_rgb(example.image))[None], device) for example in examples]
    labels = [torch.tensor([example.label], device=device) for example in examples]
    _, classifier, _, oracle = components
    return (
        accuracy(lambda image, _: classifier(image).argmax()),
        accuracy(lambda image, label: oracle.judge(image, Originals(image, label)).decided),
    )


def _trial(step_size: float, rows: list[Perturbed]) -> Trial:
    valid = [row for row in rows if row.valid]
    return Trial(
        step_size=step_size,
        valid=len(valid) / len(rows),
        mean_iterations=float(np.mean([row.iterations for row in valid])) if valid else 0.0,
        by_budget=sum(row.stop_reason is StopReason.BUDGET for row in rows) / len(rows),
        stuck=sum(row.stop_reason is StopReason.STUCK for row in rows) / len(rows),
        perturbed_accuracy=float(np.mean([row.accepts(row.prediction) for row in valid])) if valid else float("nan"),
    )


def _acceptable(rows: list[Perturbed], options: PerturbOptions) -> float:
    """The share of the images whose plain reconstruction the oracle accepts, as far as that is on record.

    No step, however short, makes more of them valid.
    """

    def is_accepted(row: Perturbed) -> bool:
        seen, probability = row.reconstruction_oracle_label, row.step_oracle_probabilities[0]
        is_target = row.accepts(seen) if options.oracle_rule == "label" else seen == row.original_oracle_label
        return is_target and probability >= options.min_probability

    return sum(map(is_accepted, rows)) / len(rows)


@dataclass(frozen=True)
class _Wanted:
    """What a step is to do: of a budget of 50, 10 to 40 iterations on average, and at least so large a share valid."""

    budget: int
    valid: float

    @property
    def fewest(self) -> float:
        return _FEWEST_STEPS * self.budget / 50

    @property
    def most(self) -> float:
        return _MOST_STEPS * self.budget / 50

    def is_met_by(self, trial: Trial) -> bool:
        return trial.valid >= self.valid and self.fewest <= trial.mean_iterations <= self.most


def _search(
    own: Trial, attempt: Callable[[float], Trial], wanted: _Wanted, has_time: Callable[[], bool]
) -> list[Trial]:
    """Trials of larger and smaller steps, until one is good, the way back and forth has become short, or time is up."""
    trials: list[Trial] = []
    trial, factor, direction = own, _FACTOR, 0
    while not wanted.is_met_by(trial) and len(trials) < _TRIALS and factor > 1.1 and has_time():
        # Images that are refused at once, or after few steps, took too long ones.
        towards = -1 if trial.mean_iterations < wanted.fewest or trial.valid < wanted.valid else 1
        factor = factor**0.5 if direction and towards != direction else factor
        direction = towards
        trial = attempt(float(f"{trial.step_size * factor**towards:.3g}"))
        trials.append(trial)
    return trials


def _is_less(share: float, than: float, images: int) -> bool:
    """Whether a share of the images is markedly less than another, and not by chance."""
    error = ((share * (1 - share) + than * (1 - than)) / images) ** 0.5
    return than - share > max(_ACCURACY_LOST, 2 * error)


def _native_warnings(plain: Plain, native: tuple[float | None, float | None], images: int) -> list[str]:
    found = []
    for who, own, resized in (
        ("classifier", native[0], plain.classifier[0]),
        ("oracle", native[1], plain.oracle[0]),
    ):
        if own is not None and _is_less(resized, own, images):
            found.append(
                f"the {who} is right on {own:.0%} of the source's own pixels and on {resized:.0%} at the generator's "
                "size: SA is too low by that; look at source.fit, at generator.image_size, and at how the classifier "
                "resizes (interpolation)"
            )
    return found


def _warnings(plain: Plain, acceptable: float, images: int) -> list[str]:
    found = []
    if plain.classifier[0] < _LITTLE:
        found.append(
            f"the classifier is right on {plain.classifier[0]:.0%} of the originals: are its weights loaded, and its "
            "classes in the order of the labels?"
        )
    for who, (originals, reconstructed) in (("classifier", plain.classifier), ("oracle", plain.oracle)):
        if _is_less(reconstructed, originals, images):
            found.append(
                f"the {who} is right on {originals:.0%} of the originals and on {reconstructed:.0%} of their plain "
                f"reconstructions ({plain.psnr:.1f} dB): FMR will measure the generator; use a better one"
            )
    if _is_less(plain.oracle[0], plain.classifier[0], images):
        found.append(
            f"the oracle is right on {plain.oracle[0]:.0%} of the originals, the classifier on "
            f"{plain.classifier[0]:.0%}: check the oracle's classes (a CLIP's prompts), or use "
            "perturb.oracle_rule=consistent"
        )
    if _is_less(acceptable, _LEAST_VALID, images):
        found.append(
            f"the oracle accepts {acceptable:.0%} of the plain reconstructions, so VR can't be higher: use a better "
            "generator or a larger generator.image_size, another oracle, or a lower perturb.min_probability"
        )
    return found


def _step_warnings(own: Trial, proposed: Trial | None, wanted: _Wanted, nothing_else_tried: bool = False) -> list[str]:
    found = []
    if own.stuck:
        found.append(
            f"{own.stuck:.0%} of the images are stuck: no gradient reaches the latent; is something in classifier or "
            "generator not differentiable?"
        )
    elif not wanted.is_met_by(own):
        what = (
            f"{1 - own.valid:.0%} of the images are refused at the first step"
            if own.valid < wanted.valid
            else f"images take {own.mean_iterations:.1f} steps; {wanted.fewest:.0f} to {wanted.most:.0f} of "
            f"{wanted.budget} would be right"
        )
        if proposed is not None:
            cure = f"use perturb.step_size={proposed.step_size:g}"
        elif nothing_else_tried:
            is_too_long = own.valid < wanted.valid or own.mean_iterations < wanted.fewest
            other = own.step_size / _FACTOR if is_too_long else own.step_size * _FACTOR
            cure = (
                f"there was no time to try others: try perturb.step_size={other:.3g}, or a larger {option('seconds')}"
            )
        else:
            cure = "no step size that was tried is good. Does the oracle accept the originals?"
        found.append(f"with perturb.step_size={own.step_size:g} {what}; {cure}")
    step = proposed or own
    if step.perturbed_accuracy == 0:
        found.append(
            f"with perturb.step_size={step.step_size:g} PA is 0%, and nothing can be ranked there; try "
            f"perturb.step_size={step.step_size / _FACTOR:.3g}"
        )
    return found
