"""A pilot on a few images: how well a recipe's parts work together, and which step size suits its generator."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from fmrgen.apps.pilot.masking import Search, Slopes, check_follows_a_gradient, gradient_warnings, search, slopes
from fmrgen.apps.pilot.photos import spaced
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
from fmrgen.jobs.step_size import LEAST_VALID, Trial, Wanted, acceptable
from fmrgen.jobs.step_size import search as search_steps
from fmrgen.metrics.summary import Summary
from fmrgen.recipe.build import Components
from fmrgen.recipe.job import Recipe
from fmrgen.records import Example, Perturbed
from fmrgen.sources.base import LoadedExample, RawExample

_LEAST_ACCURACY = 0.5  # of the classifier on originals
_FACTOR = 10**0.5  # to a step size that a warning proposes
_ACCURACY_LOST = 0.05  # on reconstructions, against originals
_SECONDS = 90.0  # that a pilot may take; how many are measured on a few images, and a busy machine may need more
_OF_OWN_STEP = 0.35  # of that for the recipe's own step, with what is measured first
_OF_TRIALS = 0.85  # by when the last other step must have ended: the rest is for all else
_PROBED = 4  # images, and the fewest that are tried


@dataclass(frozen=True)
class Inspection:
    """The results of a pilot. Accuracies and shares are from 0 to 1, times in seconds.

    Attributes:
        images: of the pilot.
        psnr: of plain reconstructions, mean in dB.
        classifier_accuracy, oracle_accuracy: on originals at the generator's size.
        classifier_native, oracle_native: on the source's own pixels, before they are resized; None for one that takes
            no images of other sizes.
        classifier_reconstructed, oracle_reconstructed: on their plain reconstructions.
        oracle_probability: the oracle's mean probability of the label on originals.
        latent_size, latent_scale: how many dimensions may move, and their root mean square.
        own: the recipe's own step.
        proposed: the step that is proposed; None if none of those tried is good.
        trials: all steps tried, by size.
        seconds_per_pass: of one image, in the trial of the recipe's own step.
        seconds_of_job: estimate for the whole job with the proposed step (or else its own) on this device.
        lpips, rfid: perceptual distances of plain reconstructions to originals, or why there are none.
        spectrum: of the changes that the recipe's own step makes in valid rows; None if it changes nothing.
        cost: of a pass of one image.
        guided: the figures of the recipe's own step, with as many random steps.
        slopes: the classifier's slope along its gradient as a share of what that says, on plain reconstructions and on
            images that steps have led to (`fmrgen.apps.pilot.masking`): 1 for a gradient of its own.
        searched: the effect of steps without gradients on the same images; None if not requested.
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
    """Try a recipe on a few images, and look for a step size that uses the budget.

    With a good step the oracle stops images after 10 to 40 steps on average (of a budget of 50), and accepts the first
    step of at least 90 % of them, or of nearly all whose original it accepts.

    Args:
        recipe: the job's recipe. Nothing is written.
        images: number of images, taken evenly from the whole source.
        masking: also perturb the images without gradients, as `update: nes` does.
        download: download the weights of perceptual distances if they are not on this machine.
        seconds: approximate time limit, without the search of `masking`. Other steps, the random control and some
            images are left out if they would take longer.
        on_trial: called with each step that is tried.
        on_passes: called with (passes of an image done, at most so many in all).

    Returns:
        The results, with a warning and its cure for whatever does not look right.

    Raises:
        UserError: a component can't be built, or no image can be read.
    """
    options = recipe.perturb.runs[0]  # of several attacks, the first is tried
    if masking:
        check_follows_a_gradient(options)
    device = start_process()
    started = time.perf_counter()
    components = recipe.build(device)
    raw, examples = _evenly(components, images)
    pilot = _Pilot(components, options, device, raw, examples, started, seconds, on_trial, on_passes)
    pilot.fit_into_time()
    own, rows = pilot.try_own_step()
    examples = pilot.examples
    accepted = acceptable(rows, options)
    wanted = Wanted.of(options, accepted)
    trials = search_steps(own, wanted, pilot.try_step) if accepted else []
    proposed = next((trial for trial in [own, *trials] if wanted.is_met_by(trial)), None)
    mean_passes = 2 + (proposed or own).mean_iterations
    plain = Plain.of(components, examples, rows, options.seed, device)
    native = _native_accuracies(components, pilot.raw, device)
    answers = first_answers(components, device)
    kinship = [common_weights_caution(weights_in_common(components))]
    if answers is not None:
        kinship.append(likeness_caution(answers))
    guided = summarise_rows(rows)
    searched = search(components, examples, rows, options, device) if masking else None
    measured_slopes: Slopes = (None, None)
    if options.follows_gradient:
        measured_slopes = slopes(components.classifier, options.objective, plain.images, examples, rows)
    warnings = _native_warnings(plain, native, len(examples))
    warnings += _warnings(plain, accepted, len(examples))
    warnings += _step_warnings(own, proposed, wanted, nothing_else_tried=not trials and bool(pilot.left_out))
    warnings += gradient_warnings(guided, measured_slopes, searched, options, recipe.generator.kind)
    warnings += [caution for caution in kinship if caution is not None]
    warnings += components.notes()
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
        seconds_per_pass=pilot.seconds_per_pass,
        seconds_of_job=pilot.seconds_per_pass * mean_passes * len(components.source),
        lpips=lpips(plain.originals, plain.images, download),
        rfid=rfid(plain.originals, plain.images, download),
        spectrum=plain.spectrum_of_changes(examples, rows),
        cost=plain.cost,
        guided=guided,
        slopes=measured_slopes,
        searched=searched,
        warnings=warnings,
        left_out=pilot.left_out,
    )


def _evenly(components: Components, images: int) -> tuple[list[RawExample], list[Example]]:
    """Return examples from all over the source, as far as they can be read: as they are stored, and for the engine."""
    source, size = components.source, components.generator.image_size
    raw: list[RawExample] = []
    examples: list[Example] = []
    for place in np.unique(spaced(len(source), min(images, len(source)))).tolist():
        for loaded in source.load(place, place + 1, size):
            if isinstance(loaded, LoadedExample):
                examples.append(loaded.for_engine())
                raw += source.read(place, place + 1)
    if not examples:
        raise UserError("source: none of the images that were tried can be read; see source.on_error")
    return raw, examples


@dataclass
class _Pilot:
    """Perturbs a few images, counts passes, and keeps to a time.

    Attributes:
        components: of the recipe.
        options: of the recipe.
        device: to work on.
        raw: the images as they are stored.
        examples: the same for the engine.
        started: when the pilot started, by `time.perf_counter`.
        seconds: about how long it may take.
        on_trial: called with each step that is tried.
        on_passes: called with (passes of an image done, at most so many in all).
        seconds_per_pass: of one image, as last measured.
        passes: the number of images in each pass.
        most_passes: of an image, in all; 0 until the first measurement.
        is_controlled: whether the recipe's own step is compared with random ones.
        left_out: what would have taken too long, in words.
    """

    components: Components
    options: PerturbOptions
    device: torch.device
    raw: list[RawExample]
    examples: list[Example]
    started: float
    seconds: float
    on_trial: Callable[[Trial], None]
    on_passes: Callable[[int, int], None]
    seconds_per_pass: float = 0.0
    passes: list[int] = field(default_factory=list)
    most_passes: int = 0
    is_controlled: bool = False
    left_out: list[str] = field(default_factory=list)

    def fit_into_time(self) -> None:
        """Leave out the random control and some images if the recipe's own step would take too long with them."""
        self._measure_pass()
        self.is_controlled = self.options.can_be_controlled
        most_of_image = self._passes_of_image(self.is_controlled)
        seconds_left = _OF_OWN_STEP * self.seconds - (time.perf_counter() - self.started)
        affordable = int(seconds_left / (self.seconds_per_pass * most_of_image))  # images
        if affordable < len(self.examples) and self.is_controlled:
            self.left_out.append("the random control")
            self.is_controlled = False
            affordable = affordable * most_of_image // self._passes_of_image(False)
        if affordable < len(self.examples) and len(self.examples) > _PROBED:
            places = spaced(len(self.examples), max(_PROBED, affordable)).tolist()
            self.left_out.append(f"{len(self.examples) - len(places)} of {len(self.examples)} images")
            self.raw = [self.raw[place] for place in places]
            self.examples = [self.examples[place] for place in places]

    def _measure_pass(self) -> None:
        """Measure a pass on a few images, after a first one on which libraries get ready."""
        one_step = replace(self.options, budget=1)
        self._perturb(one_step, self.examples[:1])
        self._perturb_timed(one_step, self.examples[:_PROBED])

    def try_own_step(self) -> tuple[Trial, list[Perturbed]]:
        """Return the trial of the recipe's own step and its rows, and measure a pass again."""
        self.most_passes = len(self.examples) * self._passes_of_image(self.is_controlled)
        examples = [replace(example, controlled=self.is_controlled) for example in self.examples]
        rows = self._perturb_timed(self.options, examples)
        return self._report(self.options.step, rows), rows

    def try_step(self, step_size: float) -> Trial | None:
        """Return the trial of another step; None if there is no time for it."""
        if not self._has_time():
            return None
        self.most_passes = sum(self.passes) + len(self.examples) * self._passes_of_image(False)
        options = replace(self.options, step_size=step_size)
        return self._report(step_size, self._perturb(options, self.examples))

    def _has_time(self) -> bool:
        """Return whether one more step can be tried; if not, say so in `left_out`."""
        most_seconds = self.seconds_per_pass * len(self.examples) * self._passes_of_image(False)
        if time.perf_counter() - self.started + most_seconds <= _OF_TRIALS * self.seconds:
            return True
        self.left_out.append("other step sizes")
        return False

    def _passes_of_image(self, is_controlled: bool) -> int:
        """Return how many passes an image takes that uses the budget.

        These are its reconstruction, each step, and the step that the oracle rejects.
        """
        return 2 + self.options.budget * (2 if is_controlled else 1)

    def _report(self, step_size: float, rows: list[Perturbed]) -> Trial:
        trial = Trial.of(step_size, rows)
        self.on_trial(trial)
        return trial

    def _perturb_timed(self, options: PerturbOptions, examples: list[Example]) -> list[Perturbed]:
        self.passes.clear()
        started = time.perf_counter()
        rows = self._perturb(options, examples)
        self.seconds_per_pass = (time.perf_counter() - started) / max(1, sum(self.passes))
        return rows

    def _perturb(self, options: PerturbOptions, examples: list[Example]) -> list[Perturbed]:
        _, classifier, generator, oracle = self.components
        rows = perturb(examples, classifier, generator, oracle, options, device=self.device, on_pass=self._count)
        return list(rows)

    def _count(self, active: int) -> None:
        self.passes.append(active)
        if self.most_passes:  # is known after the first measurement
            done = sum(self.passes)
            self.on_passes(done, max(self.most_passes, done))


@torch.no_grad()
def _native_accuracies(
    components: Components, examples: list[RawExample], device: torch.device
) -> tuple[float | None, float | None]:
    """Return the accuracy of classifier and oracle on images at their own sizes; None for one that fails on them."""
    _, classifier, _, oracle = components
    images = [to_batch(np.asarray(open_rgb(example.image))[None], device) for example in examples]
    labels = [torch.tensor([example.label], device=device) for example in examples]

    def classify(image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return classifier(image).argmax()

    def judge(image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return oracle.judge(image, Originals(image, label)).decided

    def accuracy(predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> float | None:
        right = 0
        for image, label in zip(images, labels, strict=True):
            try:
                right += int(predict(image, label)) == int(label)
            except Exception:  # a component may be any code, and some networks take one size only
                return None
        return right / len(images)

    return accuracy(classify), accuracy(judge)


def _is_less(share: float, other: float, images: int) -> bool:
    """Return whether a share of the images is markedly and significantly less than another."""
    error = ((share * (1 - share) + other * (1 - other)) / images) ** 0.5
    return other - share > max(_ACCURACY_LOST, 2 * error)


def _native_warnings(plain: Plain, native: tuple[float | None, float | None], images: int) -> list[str]:
    """Return a warning for each of classifier and oracle that is less accurate at the generator's size."""
    warnings = []
    for name, own_size, resized in (
        ("classifier", native[0], plain.classifier[0]),
        ("oracle", native[1], plain.oracle[0]),
    ):
        if own_size is not None and _is_less(resized, own_size, images):
            warnings.append(
                f"the {name} is right on {own_size:.0%} of the source's own pixels and on {resized:.0%} at the "
                "generator's size: SA is too low by that; look at source.fit, at generator.image_size, and at how the "
                "classifier resizes (interpolation)"
            )
    return warnings


def _warnings(plain: Plain, acceptable: float, images: int) -> list[str]:
    """Return warnings about classifier, generator and oracle.

    Args:
        plain: figures of originals and reconstructions.
        acceptable: the share of reconstructions that the oracle accepts.
        images: how many there are.
    """
    warnings = []
    if plain.classifier[0] < _LEAST_ACCURACY:
        warnings.append(
            f"the classifier is right on {plain.classifier[0]:.0%} of the originals: are its weights loaded, and its "
            "classes in the order of the labels?"
        )
    for name, (originals, reconstructed) in (("classifier", plain.classifier), ("oracle", plain.oracle)):
        if _is_less(reconstructed, originals, images):
            warnings.append(
                f"the {name} is right on {originals:.0%} of the originals and on {reconstructed:.0%} of their plain "
                f"reconstructions ({plain.psnr:.1f} dB): FMR will measure the generator; use a better one"
            )
    if _is_less(plain.oracle[0], plain.classifier[0], images):
        warnings.append(
            f"the oracle is right on {plain.oracle[0]:.0%} of the originals, the classifier on "
            f"{plain.classifier[0]:.0%}: check the oracle's classes (a CLIP's prompts), or use "
            "perturb.oracle_rule=consistent"
        )
    if _is_less(acceptable, LEAST_VALID, images):
        warnings.append(
            f"the oracle accepts {acceptable:.0%} of the plain reconstructions, so VR can't be higher: use a better "
            "generator or a larger generator.image_size, another oracle, or a lower perturb.min_probability"
        )
    return warnings


def _step_warnings(own: Trial, proposed: Trial | None, wanted: Wanted, nothing_else_tried: bool = False) -> list[str]:
    """Return warnings about the step size.

    Args:
        own: the trial of the recipe's own step.
        proposed: that of the step that is proposed; None if no step is good.
        wanted: a good step.
        nothing_else_tried: whether there was no time for other steps.
    """
    warnings = []
    if own.stuck:
        warnings.append(
            f"{own.stuck:.0%} of the images are stuck: no gradient reaches the latent; is something in classifier or "
            "generator not differentiable?"
        )
    elif not wanted.is_met_by(own):
        problem = (
            f"images take {own.mean_iterations:.1f} steps; {wanted.fewest:.0f} to {wanted.most:.0f} of "
            f"{wanted.budget} would be right"
        )
        if own.valid < wanted.valid:
            problem = f"{1 - own.valid:.0%} of the images are refused at the first step"
        cure = "no step size that was tried is good. Does the oracle accept the originals?"
        if proposed is not None:
            cure = f"use perturb.step_size={proposed.step_size:g}"
        elif nothing_else_tried:
            other = own.step_size / _FACTOR if wanted.is_too_long(own) else own.step_size * _FACTOR
            cure = (
                f"there was no time to try others: try perturb.step_size={other:.3g}, or a larger {option('seconds')}"
            )
        warnings.append(f"with perturb.step_size={own.step_size:g} {problem}; {cure}")
    step = proposed or own
    if step.perturbed_accuracy == 0:
        warnings.append(
            f"with perturb.step_size={step.step_size:g} PA is 0%, and nothing can be ranked there; try "
            f"perturb.step_size={step.step_size / _FACTOR:.3g}"
        )
    return warnings
