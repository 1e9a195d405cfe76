"""Whether a classifier's gradient shows the way: by what its answers do along it, and by a search that does without."""

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
_TOGETHER = 16
_SLOPED, _LEAST_SLOPE = 16, 0.5  # images; of what a gradient says, or as many times that

Slopes = tuple[float | None, float | None]  # on plain reconstructions, and on the images of valid rows


@dataclass(frozen=True)
class Search:
    """What steps without gradients (`update: nes`) do to the same images, under the same oracle.

    Attributes:
        rows: that are valid after both.
        queries: to the classifier, for an image.
        guided_less_searched: FMR after guided steps less that after searching ones; None where no row is valid.
        further: percent of the rows in which the search climbed higher.
    """

    rows: int
    queries: float
    guided_less_searched: Estimate | None
    further: Estimate | None

    @property
    def beats_the_gradient(self) -> bool:
        """Whether the search fools more images, beyond chance."""
        less = self.guided_less_searched
        return less is not None and less.low is not None and less.low > 0


def check_follows_a_gradient(options: PerturbOptions) -> None:
    """Raises UserError for options under which there is none to compare a search with."""
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
    """Perturbs examples without gradients, and compares with the `guided` rows of the same."""
    _, classifier, generator, oracle = components
    without = replace(options, update="nes", control=0)
    plain = [replace(example, controlled=False) for example in examples]
    found = {row.id: row for row in perturb(plain, classifier, generator, oracle, without, device=device)}
    pairs = [(row, found[row.id]) for row in guided if row.valid and found[row.id].valid]
    queries = float(np.mean([row.queries for row in found.values()]))
    right = np.array([[row.accepts(row.prediction) for row in pair] for pair in pairs]).reshape(-1, 2)
    further = [two.step_objectives[-1] > one.step_objectives[-1] for one, two in pairs]
    accuracy = float(np.mean([row.accepts(row.original_prediction) for row in guided]))
    less = paired_difference(right[:, 0], right[:, 1], accuracy) if pairs and accuracy else None
    return Search(len(pairs), queries, less, proportion(np.array(further)))


def slopes(
    classifier: nn.Module,
    objective: str,
    plain: Tensor,
    examples: Sequence[Example],
    rows: Sequence[Perturbed],
) -> Slopes:
    """`slope_of_what_is_said` on plain reconstructions [N, 3, H, W] of examples, and on the images of valid rows."""
    climbed = OBJECTIVES[objective]
    labels = torch.tensor([example.label for example in examples[:_SLOPED]], device=plain.device)
    of_plain = slope_of_what_is_said(classifier, climbed, plain[:_SLOPED], labels)
    moved = [row for row in rows if row.valid][:_SLOPED]
    if not moved:
        return of_plain, None
    images = torch.stack([row.image for row in moved]).to(plain.device) / 255
    labels = torch.tensor([row.label for row in moved], device=plain.device)
    return of_plain, slope_of_what_is_said(classifier, climbed, images, labels)


def gradient_warnings(guided: Summary, found: Slopes, searched: Search | None, options: PerturbOptions) -> list[str]:
    """What is wrong with the classifier's gradient, a line each."""
    warnings = []
    known = [slope for slope in found if slope is not None]
    if any(not _LEAST_SLOPE <= slope <= 1 / _LEAST_SLOPE for slope in known):
        warnings.append(
            f"along its gradient the classifier changes by {', '.join(f'{slope:.2g}' for slope in known)} of what the "
            "gradient says (on plain reconstructions, and on images that steps led to): it is rounded, or hands over "
            "another gradient than its own, and looks more robust than it is"
        )
    if options.is_guided and (about := masking_caution(guided)) is not None:
        warnings.append(about)
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
    """The median over images of the objective's slope along its gradient, by finite differences, to the gradient's own
    length: 1 for a network that is differentiated as it is, about 0 where the gradient is another's, or the network is
    a staircase.

    In the space of pixels, for a generator may have stairs of its own, as VQGAN's codes are.

    Args:
        classifier: of images [N, 3, H, W] in [0, 1].
        objective: what steps climb, of logits [N, K] and which classes are true, bool [N, K].
        images: [N, 3, H, W], of any kind: originals, or such that steps have led to.
        labels: [N].

    Returns:
        None where no image has a gradient.
    """
    ratios = []
    for batch in torch.arange(len(images)).split(_TOGETHER):
        start = images[batch].clone().requires_grad_(True)
        logits = as_float32(classifier(start))
        truth = truth_of(labels[batch], logits.shape[1], None)
        (gradient,) = torch.autograd.grad(objective(logits, truth).sum(), start)
        length = gradient.flatten(1).norm(dim=1)
        there = (length > 0) & length.isfinite()
        if not there.any():
            continue
        step = _STEP * gradient[there] / length[there].view(-1, 1, 1, 1)
        with torch.no_grad():
            ahead, behind = (
                objective(as_float32(classifier(images[batch][there] + sign * step)), truth[there]) for sign in (1, -1)
            )
        ratios.append((ahead - behind) / (2 * _STEP) / length[there])
    return float(torch.cat(ratios).median()) if ratios else None
