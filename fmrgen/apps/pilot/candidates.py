"""The generators among which `init` chooses, and what each does to a user's images."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fmrgen.apps.pilot.quality import mean_psnr, reconstructed
from fmrgen.engine.images import on_byte_grid
from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.engine.models import row_seed
from fmrgen.errors import UserError
from fmrgen.metrics.intervals import Estimate, paired_difference, proportion
from fmrgen.recipe.build import build_component, logits_of
from fmrgen.recipe.sections import generator_config_of
from fmrgen.records import Example

SHIPPED = "asset:gtsrb/vqgan"  # two pixels a code, so that it draws any photo
TRANSFORM = "transform"
_HUB = ("stabilityai/sd-vae-ft-mse", "madebyollin/taesd")
_SMALLEST_OF_HUB = 64  # px: of a smaller image their latents have fewer than 8×8 places
_ENLARGED = 64  # px, below which images are tried at twice their size too: finer codes
_LOST = 2.0  # points of accuracy that reconstructions may cost
_BATCH = 32
_TIMED = 8  # images


@dataclass(frozen=True)
class Candidate:
    """A generator that may be chosen.

    Attributes:
        name: for tables.
        section: of a recipe.
        psnr: of plain reconstructions, mean in dB.
        accuracy: of the tested network on plain reconstructions, in percent.
        lost: accuracy on originals, at the size that was chosen, less that, in points.
        seconds: of a step with its gradient, for one image.
        why_not: the reason why it can't be tried; empty if it was.
    """

    name: str
    section: dict[str, Any]
    psnr: float = 0.0
    accuracy: Estimate | None = None
    lost: Estimate | None = None
    seconds: float = 0.0
    why_not: str = ""

    @property
    def keeps_accuracy(self) -> bool:
        """Whether its reconstructions cost the tested network no more than 2 points."""
        return self.lost is not None and self.lost.value <= _LOST


def candidates(size: int, own: Path | None, chosen: Sequence[dict[str, Any]], *, hub: bool) -> list[Candidate]:
    """Return the generators that may be chosen for images of `size` pixels, none of them tried.

    Args:
        size: side of the images.
        own: the folder of a VQGAN that was trained on the user's images.
        chosen: sections that the user names.
        hub: whether to take some from the Hub.
    """
    all_candidates = []
    for number, section in enumerate(chosen, start=1):
        all_candidates.append(Candidate(f"yours, {number}: {section.get('kind')}", {"image_size": size, **section}))
    vqgans = {"VQGAN that comes with fmrgen": SHIPPED}
    if own is not None:
        vqgans = {"VQGAN trained on your images": str(own), **vqgans}
    for name, model in vqgans.items():
        all_candidates.append(Candidate(name, {"kind": "vqgan", "model": model, "image_size": size}))
        if size < _ENLARGED:
            section = {"kind": "vqgan", "model": model, "image_size": 2 * size}
            all_candidates.append(Candidate(f"{name}, at {2 * size} px", section))
    if hub and size >= _SMALLEST_OF_HUB:
        for repo in _HUB:
            all_candidates.append(Candidate(repo, {"kind": "vae", "model": repo, "image_size": size}))
    return [*all_candidates, Candidate(TRANSFORM, {"kind": TRANSFORM, "image_size": size})]


def tried(
    candidate: Candidate, classifier: nn.Module, examples: Sequence[Example], before: np.ndarray, device: torch.device
) -> Candidate:
    """Return a candidate with what it does to some examples, or the reason why it can't be tried.

    Args:
        candidate: to try.
        classifier: the tested network, which answers in the labels of the examples.
        examples: originals, at the candidate's size.
        before: whether the network is right on them at the size that was chosen, bool [N].
        device: of the classifier.
    """
    try:
        config = generator_config_of(candidate.section, int(candidate.section["image_size"]), "generator")
        generator = build_component(config, "generator", Generator, device)
    except UserError as error:
        return replace(candidate, why_not=str(error))
    originals = on_byte_grid(torch.stack([example.image for example in examples]).to(device))
    labels = torch.tensor([example.label for example in examples], device=device)
    _, _, plain = reconstructed(generator, originals, labels, examples, seed=0)
    after = (answers_to(classifier, plain) == labels).cpu().numpy()
    return replace(
        candidate,
        psnr=mean_psnr(originals, plain),
        accuracy=proportion(after),
        lost=paired_difference(before, after),
        seconds=_seconds_of_step(generator, classifier, originals[:_TIMED], labels[:_TIMED]),
    )


@torch.no_grad()
def answers_to(classifier: nn.Module, images: Tensor) -> Tensor:
    """Return the label that a classifier gives each of the images [N, 3, H, W], [N]."""
    return torch.cat([logits_of(classifier, batch).argmax(1) for batch in images.split(_BATCH)])


@torch.enable_grad()
def _seconds_of_step(generator: Generator, classifier: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return how long a step of one image takes, with its gradient; the second of two passes is timed."""
    generator.row_seeds = [row_seed(0, place) for place in range(len(images))]
    with torch.no_grad():
        latents = generator.encode(images, labels)
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        free = latents.free.detach().requires_grad_(True)
        logits: Tensor = classifier(generator.decode(Latents(free, latents.fixed)))
        torch.autograd.grad(logits.logsumexp(1).sum(), free)
        seconds = time.perf_counter() - started
    return seconds / len(images)


def best(all_tried: Sequence[Candidate]) -> Candidate:
    """Return the candidate to take.

    Of those whose reconstructions cost at most 2 points it is the first that is learned, in the order yours, trained on
    your images, shipped, from the Hub; `transform`, which changes no texture, comes last. If all cost more, it is the
    one that costs least.
    """
    usable = [candidate for candidate in all_tried if not candidate.why_not]
    for candidate in usable:
        if candidate.keeps_accuracy:
            return candidate
    return min(usable, key=lambda candidate: candidate.lost.value if candidate.lost is not None else float("inf"))
