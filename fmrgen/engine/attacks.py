"""Attacks on pixels: FGSM (Goodfellow et al. 2015) and PGD (Madry et al. 2018), as foolbox has them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from fmrgen.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_SHORT_FORM = re.compile(r"(fgsm|pgd-(?P<steps>\d{1,4}))(?P<l2>-l2)?@(?P<over>\d*\.?\d+)(/(?P<under>\d+))?")


@dataclass(frozen=True)
class Attack:
    """Steps up the cross-entropy of the labels, or down that of targets, within a ball around each image."""

    epsilon: float  # radius of the ball, in pixel values from 0 to 1
    steps: int = 1
    step_size: float = 0.0  # in the unit of `epsilon`
    is_l2: bool = False  # whether lengths are Euclidean over the whole image, not the largest change of a pixel
    random_start: bool = False  # whether it begins at a random point of the ball

    @classmethod
    def fgsm(cls, epsilon: float, *, is_l2: bool = False) -> Self:
        """Return the attack of one step as long as the radius."""
        return cls(epsilon, 1, epsilon, is_l2)

    @classmethod
    def pgd(cls, epsilon: float, steps: int, *, is_l2: bool = False, random_start: bool = True) -> Self:
        """Return the attack of `steps` steps, each 2.5 radii divided by their number as in Madry et al.'s own code."""
        return cls(epsilon, steps, 2.5 * epsilon / steps, is_l2, random_start)

    def __call__(
        self,
        classifier: "Callable[[Tensor], Tensor]",
        images: "Tensor",
        labels: "Tensor",
        *,
        is_targeted: bool = False,
        row_seeds: Sequence[int] = (),
    ) -> "Tensor":
        """Return the attacked images, [B, 3, H, W] in [0, 1] as `images` are.

        `classifier` turns images into logits [B, K], each row by itself, in evaluation mode. `labels` [B] are those of
        the images, or with `is_targeted` the classes that they should be mistaken for. `row_seeds` hold a seed for the
        random start of each row; without seeds torch's global state is used.
        """
        import torch
        from torch.nn.functional import cross_entropy

        sign = -1.0 if is_targeted else 1.0
        attacked = images
        if self.random_start:
            attacked = (images + self.epsilon * self._random(images, row_seeds)).clamp(0, 1)
        for _ in range(self.steps):
            moving = attacked.detach().requires_grad_(True)
            with torch.enable_grad():
                loss = cross_entropy(classifier(moving), labels, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, moving)
            if self.is_l2:
                moved = attacked + sign * self.step_size * gradient / _lengths(gradient)
                change = moved - images
                change = change * (self.epsilon / _lengths(change)).clamp(max=1)
            else:
                moved = attacked + sign * self.step_size * gradient.sign()
                change = (moved - images).clamp(-self.epsilon, self.epsilon)
            attacked = (images + change).clamp(0, 1)
        return attacked.detach()

    def _random(self, images: "Tensor", row_seeds: Sequence[int]) -> "Tensor":
        """Return a random point of the unit ball for each image, [B, 3, H, W]."""
        import torch

        seeds: Sequence[int | None] = row_seeds or [None] * len(images)
        points = [self._random_point(image.shape, seed) for image, seed in zip(images, seeds, strict=True)]
        return torch.stack(points).to(images)

    def _random_point(self, shape: "torch.Size", seed: int | None) -> "Tensor":
        import torch

        generator = None if seed is None else torch.Generator().manual_seed(seed)
        if not self.is_l2:
            return torch.rand(shape, generator=generator) * 2 - 1
        # All but two coordinates of a point on a sphere of two more dimensions: uniform in the ball (Voelker et al.
        # 2017).
        flat = torch.randn(shape.numel() + 2, generator=generator)
        return (flat / flat.norm())[:-2].view(shape)


def attack_of_short_form(text: str) -> Attack:
    """Return the attack that `fgsm@8/255`, `pgd-20@8/255` or `pgd-20-l2@0.5` stands for.

    PGD starts at random. Raises UserError for any other text.
    """
    match = _SHORT_FORM.fullmatch(text)
    if not match or (match["under"] and int(match["under"]) == 0):
        raise UserError(f"{text}: not an attack; write fgsm@8/255, pgd-20@8/255 or pgd-20-l2@0.5")
    epsilon = float(match["over"]) / int(match["under"] or 1)
    is_l2 = match["l2"] is not None
    if epsilon == 0 or (epsilon > 1 and not is_l2):
        raise UserError(f"{text}: a pixel's change must be from 0 to 1; write pgd-20@8/255")
    if match["steps"] is None:
        return Attack.fgsm(epsilon, is_l2=is_l2)
    steps = int(match["steps"])
    if steps == 0:
        raise UserError(f"{text}: an attack needs at least one step; write pgd-20@8/255")
    return Attack.pgd(epsilon, steps, is_l2=is_l2)


def _lengths(rows: "Tensor") -> "Tensor":
    """Return the Euclidean length of each row, [B, 1, 1, 1], at least 1e-12: it is divided by."""
    return rows.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
