"""Tests of whether a classifier's gradient is masked: its slope along the gradient, and a search without gradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from fmrgen.engine.images import as_float32
from fmrgen.engine.objectives import OBJECTIVES, truth_of
from fmrgen.engine.options import WITHOUT_GRADIENT, PerturbOptions
from fmrgen.engine.perturb import perturb
from fmrgen.errors import UserError, option
from fmrgen.metrics.cautions import masking_caution
from fmrgen.metrics.intervals import Estimate, paired_difference, proportion
from fmrgen.metrics.summary import Summary
from fmrgen.recipe.build import Components
from fmrgen.records import Example, Perturbed

_STEP = 0.02  # length, of pixels from 0 to 1: so short that a network is as good as linear, so long that float32 tells
_BATCH_SIZE = 16
_SLOPE_IMAGES = 16
_LEAST_SLOPE = 0.5  # as a share of what the gradient says; its inverse is the largest

Slopes = tuple[float | None, float | None]  # on plain reconstructions, and on the images of valid rows


@dataclass(frozen=True)
class Search:
    """The effect of steps without gradients (`update: nes`) on the same images, under the same oracle.

    Attributes:
        rows: how many are valid after both.
        queries: to the classifier, for an image.
        guided_less_searched: FMR after guided steps less that after searching ones; None if no row is valid.
        further: percent of the rows in which the search climbed higher.
    """

    rows: int
    queries: float
    guided_less_searched: Estimate | None
    further: Estimate | None

    @property
    def beats_the_gradient(self) -> bool:
        """Return whether the search fools significantly more images."""
        less = self.guided_less_searched
        return less is not None and less.low is not None and less.low > 0


def check_follows_a_gradient(options: PerturbOptions) -> None:
    """Raise UserError for options that follow no gradient, which a search could not be compared with."""
    if options.update in WITHOUT_GRADIENT:
        raise UserError(
            f"perturb.update is {options.update}, which follows no gradient: leave out {option('masking', 'masking')}"
        )


def search(
    components: Components,
    examples: Sequence[Example],
    guided: Sequence[Perturbed],
    options: PerturbOptions,
    device: torch.device,
) -> Search:
    """Perturb examples without gradients, and compare with guided steps.

    Args:
        components: of the recipe.
        examples: to perturb.
        guided: the rows of the same examples after guided steps.
        options: of these steps.
        device: to work on.
    """
    _, classifier, generator, oracle = components
    search_options = replace(options, update="nes", control=0)
    uncontrolled = [replace(example, controlled=False) for example in examples]
    searched_rows = perturb(uncontrolled, classifier, generator, oracle, search_options, device=device)
    searched = {row.id: row for row in searched_rows}
    guided_right, searched_right, further = [], [], []
    for row in guided:
        if not row.valid or not searched[row.id].valid:
            continue
        other = searched[row.id]
        guided_right.append(row.accepts(row.prediction))
        searched_right.append(other.accepts(other.prediction))
        further.append(other.step_objectives[-1] > row.step_objectives[-1])
    queries = float(np.mean([row.queries for row in searched.values()]))
    accuracy = float(np.mean([row.accepts(row.original_prediction) for row in guided]))
    less = None
    if further and accuracy:
        less = paired_difference(np.array(guided_right), np.array(searched_right), accuracy)
    return Search(len(further), queries, less, proportion(np.array(further)))


def slopes(
    classifier: nn.Module,
    objective: str,
    plain: Tensor,
    examples: Sequence[Example],
    rows: Sequence[Perturbed],
) -> Slopes:
    """Return the slopes on plain reconstructions and on the images of valid rows; None for one without a gradient.

    Args:
        classifier: of images [N, 3, H, W] in [0, 1].
        objective: the name of what steps climb.
        plain: reconstructions [N, 3, H, W] of the examples.
        examples: N of them.
        rows: after guided steps.
    """
    climbed = OBJECTIVES[objective]
    labels = torch.tensor([example.label for example in examples[:_SLOPE_IMAGES]], device=plain.device)
    plain_slope = slope_of_what_is_said(classifier, climbed, plain[:_SLOPE_IMAGES], labels)
    valid_rows = [row for row in rows if row.valid][:_SLOPE_IMAGES]
    if not valid_rows:
        return plain_slope, None
    images = torch.stack([row.image for row in valid_rows]).to(plain.device) / 255
    labels = torch.tensor([row.label for row in valid_rows], device=plain.device)
    return plain_slope, slope_of_what_is_said(classifier, climbed, images, labels)


def gradient_warnings(guided: Summary, measured: Slopes, searched: Search | None, options: PerturbOptions) -> list[str]:
    """Return what is wrong with the classifier's gradient, a line each.

    Args:
        guided: figures of guided steps, with as many random ones.
        measured: slopes along the gradient.
        searched: figures of steps without gradients; None if there are none.
        options: of the guided steps.
    """
    warnings = []
    is_off = False
    shown_slopes = []
    for slope in measured:
        if slope is not None:
            shown_slopes.append(f"{slope:.2g}")
            is_off = is_off or not _LEAST_SLOPE <= slope <= 1 / _LEAST_SLOPE
    if is_off:
        warnings.append(
            f"along its gradient the classifier changes by {', '.join(shown_slopes)} of what the "
            "gradient says (on plain reconstructions, and on images that steps led to): it is rounded, or hands over "
            "another gradient than its own, and looks more robust than it is"
        )
    if options.is_guided:
        caution = masking_caution(guided)
        if caution is not None:
            warnings.append(caution)
    if searched is not None and searched.beats_the_gradient:
        warnings.append(
            f"a search without gradients fools the classifier more than steps along its gradient: FMR differs by "
            f"{searched.guided_less_searched} points over {searched.rows} rows. The gradient is masked: make the split "
            "with perturb.update=nes, and compare it with splits made so alone"
        )
    return warnings


def slope_of_what_is_said(
    classifier: nn.Module, objective: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor
) -> float | None:
    """Return how steep the objective really is along its gradient, as a share of what the gradient says.

    The slope is measured by finite differences and divided by the gradient's length; of the images the median is
    returned. It is 1 for a network that is differentiated as it is, about 0 where the gradient is another's, or the
    network is a staircase. Pixels are moved, not latents: a generator may have stairs of its own, as VQGAN's codes are.

    Args:
        classifier: of images [N, 3, H, W] in [0, 1].
        objective: what steps climb, of logits [N, K] and which classes are true, bool [N, K].
        images: [N, 3, H, W], of any kind: originals, or such that steps have led to.
        labels: [N].

    Returns:
        The median; None if no image has a gradient.
    """
    ratios = []
    for batch in torch.arange(len(images)).split(_BATCH_SIZE):
        start = images[batch].clone().requires_grad_(True)
        logits = as_float32(classifier(start))
        truth = truth_of(labels[batch], logits.shape[1], None)
        (gradient,) = torch.autograd.grad(objective(logits, truth).sum(), start)
        length = gradient.flatten(1).norm(dim=1)
        usable = (length > 0) & length.isfinite()
        if not usable.any():
            continue
        step = _STEP * gradient[usable] / length[usable].view(-1, 1, 1, 1)
        with torch.no_grad():
            ahead = objective(as_float32(classifier(images[batch][usable] + step)), truth[usable])
            behind = objective(as_float32(classifier(images[batch][usable] - step)), truth[usable])
        ratios.append((ahead - behind) / (2 * _STEP) / length[usable])
    if not ratios:
        return None
    return float(torch.cat(ratios).median())
