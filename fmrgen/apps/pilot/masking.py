"""Tests of whether a classifier's gradient is masked: its slope along the gradient, and a search without gradients."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from fmrgen.engine.objectives import OBJECTIVES
from fmrgen.engine.options import WITHOUT_GRADIENT, PerturbOptions
from fmrgen.engine.perturb import perturb
from fmrgen.engine.slope import slope_along_gradient
from fmrgen.errors import UserError, option
from fmrgen.metrics.gradients import judged_steps, masking_caution, slope_caution
from fmrgen.metrics.intervals import Estimate, paired_difference, proportion
from fmrgen.metrics.summary import Summary
from fmrgen.recipe.build import Components
from fmrgen.records import Example, Perturbed

_SLOPE_IMAGES = 16

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
    plain_slope = slope_along_gradient(classifier, climbed, plain[:_SLOPE_IMAGES], labels)
    valid_rows = [row for row in rows if row.valid][:_SLOPE_IMAGES]
    if not valid_rows:
        return plain_slope, None
    images = torch.stack([row.image for row in valid_rows]).to(plain.device) / 255
    labels = torch.tensor([row.label for row in valid_rows], device=plain.device)
    return plain_slope, slope_along_gradient(classifier, climbed, images, labels)


def gradient_warnings(
    guided: Summary, measured: Slopes, searched: Search | None, options: PerturbOptions, generator: str
) -> list[str]:
    """Return what is wrong with the classifier's gradient, a line each.

    Args:
        guided: figures of guided steps, with as many random ones.
        measured: slopes along the gradient.
        searched: figures of steps without gradients; None if there are none.
        options: of the guided steps.
        generator: its kind.
    """
    plain, moved = measured
    cautions = [
        slope_caution(plain, "on plain reconstructions"),
        slope_caution(moved, "on images that steps led to"),
    ]
    steps = judged_steps(
        is_guided=options.is_guided,
        reencodes=options.reencode,
        objective=options.runs[0].objective,
        generator=generator,
    )
    cautions.append(masking_caution(guided, steps))
    warnings = [caution for caution in cautions if caution is not None]
    if searched is not None and searched.beats_the_gradient:
        warnings.append(
            f"a search without gradients fools the classifier more than steps along its gradient: FMR differs by "
            f"{searched.guided_less_searched} points over {searched.rows} rows. The gradient is masked: make the split "
            "with perturb.update=nes, and compare it with splits made so alone"
        )
    return warnings
