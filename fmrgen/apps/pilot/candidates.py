"""The generators among which `init` chooses, and what each does to a user's images."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fmrgen.engine.images import on_byte_grid
from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.engine.models import row_seed
from fmrgen.errors import UserError
from fmrgen.metrics.intervals import Estimate, paired_difference
from fmrgen.recipe.build import build_component, logits_of
from fmrgen.recipe.sections import generator_config_of
from fmrgen.records import Example

_TAESD = "https://raw.githubusercontent.com/madebyollin/taesd/5cccb12dc72074a4be35680c3b108548a7c69978"
_SMALLEST_OF_HUB = 64  # px: of a smaller image its latents have fewer than 8×8 places
_LOST = 2.0  # points of accuracy that reconstructions may cost
_BATCH = 32
_LEAST_ERROR = 1e-10  # a mean square: that of equal images is 0, and its logarithm infinite


@dataclass(frozen=True)
class Candidate:
    """A generator that may be chosen."""

    name: str
    section: dict[str, Any]  # of a recipe
    psnr: float = 0.0  # of plain reconstructions, mean in dB
    lost: Estimate | None = None  # accuracy on originals less that on plain reconstructions, in points
    why_not: str = ""  # the reason why it can't be tried; empty if it was

    @property
    def keeps_accuracy(self) -> bool:
        """Whether its reconstructions cost the tested network no more than 2 points."""
        return self.lost is not None and round(self.lost.value, 9) <= _LOST  # 2.0000000000000018 is 2


def candidates(size: int, chosen: Mapping[str, Any] | None, *, hub: bool) -> list[Candidate]:
    """Return the generators that may be chosen for images of `size` pixels, in this order, none of them tried.

    `chosen` is the section that the user names, which is then the only one. With `hub` one may be from the Hub.
    """
    if chosen is not None:
        return [Candidate(str(chosen.get("kind")), {"image_size": size, **chosen})]
    sections = {"the shipped VQGAN": {"kind": "vqgan", "model": "asset:gtsrb/vqgan"}}
    if hub and size >= _SMALLEST_OF_HUB:
        files = {part: f"{_TAESD}/taesd_{part}.pth" for part in ("encoder", "decoder")}
        sections["TAESD"] = {"kind": "taesd", **files}
    sections["transform"] = {"kind": "transform"}  # which changes no texture
    return [Candidate(name, {**section, "image_size": size}) for name, section in sections.items()]


def tried(candidate: Candidate, classifier: nn.Module, examples: Sequence[Example], device: torch.device) -> Candidate:
    """Return a candidate with what it does to some examples, or the reason why it can't be tried.

    The examples are originals at the candidate's size. The classifier is the tested network; it answers in their
    labels.
    """
    try:
        generator = _built(candidate, device)
    except UserError as error:
        return replace(candidate, why_not=str(error))
    originals = on_byte_grid(torch.stack([example.image for example in examples]).to(device))
    labels = torch.tensor([example.label for example in examples], device=device)
    plain = _reconstructed(generator, originals, labels, [example.id for example in examples])
    squared_error = (originals - plain).flatten(1).square().mean(1).clamp(min=_LEAST_ERROR)
    before, after = (predictions_of(classifier, images) == labels for images in (originals, plain))
    return replace(
        candidate,
        psnr=float((-10 * squared_error.log10()).mean()),
        lost=paired_difference(before.cpu().numpy(), after.cpu().numpy()),
    )


def seconds_of_step(
    candidate: Candidate, classifier: nn.Module, examples: Sequence[Example], device: torch.device
) -> float | None:
    """Return the time of one step of one image, by a few examples: decoded, classified, and back to the latent.

    None if the generator can't be built, or no gradient reaches the latent. Encoding, which is done once, is not
    counted.
    """
    try:
        generator = _built(candidate, device)
    except UserError:
        return None
    images = torch.stack([example.image for example in examples]).to(device)
    labels = torch.tensor([example.label for example in examples], device=device)
    generator.row_seeds = [row_seed(0, example.id) for example in examples]
    with torch.no_grad():
        latents = Latents(*generator.encode(images, labels))
    free = latents.free.float().requires_grad_()
    for _ in range(2):  # the first is slower
        started = time.perf_counter()
        highest = classifier(generator.decode(Latents(free, latents.fixed)).float()).amax()
        if not highest.requires_grad:
            return None
        float(torch.autograd.grad(highest, free, materialize_grads=True)[0].sum())  # waits for the device
    return (time.perf_counter() - started) / len(examples)


def _built(candidate: Candidate, device: torch.device) -> Generator:
    config = generator_config_of(candidate.section, int(candidate.section["image_size"]), "generator")
    return build_component(config, "generator", Generator, device)


@torch.no_grad()
def predictions_of(classifier: nn.Module, images: Tensor) -> Tensor:
    """Return the label that a classifier gives each of the images [N, 3, H, W], [N]."""
    return torch.cat([logits_of(classifier, batch).argmax(1) for batch in images.split(_BATCH)])


@torch.no_grad()
def _reconstructed(generator: Generator, originals: Tensor, labels: Tensor, ids: Sequence[int]) -> Tensor:
    """Return plain reconstructions [N, 3, H, W] of originals."""
    plain = []
    for batch in torch.arange(len(originals)).split(_BATCH):
        generator.row_seeds = [row_seed(0, ids[row]) for row in batch.tolist()]
        latents = generator.encode(originals[batch], labels[batch])
        plain.append(on_byte_grid(generator.decode(Latents(*latents)).float()))
    return torch.cat(plain)


def best(all_tried: Sequence[Candidate]) -> Candidate:
    """Return the one whose reconstructions cost least accuracy. Raises UserError if none could be tried."""
    usable = [candidate for candidate in all_tried if not candidate.why_not]
    if not usable:
        raise UserError(f"init: {all_tried[0].why_not}")
    return min(usable, key=lambda candidate: np.inf if candidate.lost is None else candidate.lost.value)
