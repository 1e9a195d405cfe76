"""Images on their way under guided perturbation, and what unlike judges say that they have become.

An oracle is to say when a perturbed image stops showing its class. It learns that from images that were moved, as
Algorithm 1 moves them, against classifiers whose job it is to be fooled, and from the classifiers that were not.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from fmrgen.apps.training.images import TrainingImages
from fmrgen.classifiers.base import answer_in_labels
from fmrgen.config import StrictConfig
from fmrgen.engine.images import StraightThroughBytes, to_bytes
from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.engine.objectives import margin, truth_of
from fmrgen.labels import Labels
from fmrgen.recipe.build import blank_image
from fmrgen.recipe.sections import ClassifierField

_TOGETHER = 50
_EVERY = 2  # steps between two images that are kept


class PerturbedConfig(StrictConfig):
    """Perturbed images to learn from, beside the plain ones."""

    judges: list[ClassifierField] = Field(
        min_length=2,
        description="classifiers; images are moved against each, and the others label the result",
    )
    images: int = Field(1200, ge=1, description="training images that are moved against each judge")
    steps: int = Field(24, ge=1, description="guided steps, each by the sign of the margin's gradient")
    step_size: float = Field(gt=0, description="length of a step, in latent units")


class PerturbedImages:
    """Images of all stages of perturbation, with soft labels: the mean probabilities of the judges they were not moved
    against."""

    def __init__(
        self,
        config: PerturbedConfig,
        images: TrainingImages,
        generator: Generator,
        names: Labels,
        device: torch.device,
    ) -> None:
        """Makes them of some of the training images."""
        blank = blank_image(images.size, device)
        judges = [
            answer_in_labels(section.build(device), names, blank, f"perturbed.judges.{number}")
            for number, section in enumerate(config.judges)
        ]
        moved, targets = [], []
        for judge in judges:
            for pixels, labels, _ in zip(
                *(part.split(_TOGETHER) for part in images.sample(config.images)), strict=True
            ):
                stages = _stages(judge, pixels.to(device) / 255, labels.to(device), generator, config)
                others = [other for other in judges if other is not judge]
                moved.append(stages.flatten(0, 1).cpu())
                targets.append(_mean_probabilities(others, stages.flatten(0, 1)).cpu())
        self.images, self.targets = torch.cat(moved), torch.cat(targets)

    def draw(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """`count` images [B, 3, H, W] in [0, 1] and their probabilities [B, K]."""
        rows = torch.randint(len(self.images), (count,))
        return self.images[rows].to(device) / 255, self.targets[rows].to(device)


def _stages(judge: nn.Module, images: Tensor, labels: Tensor, generator: Generator, config: PerturbedConfig) -> Tensor:
    """Images as they are moved against a judge, uint8 [stages, B, 3, H, W], the plain reconstructions first."""
    with torch.no_grad():
        free, fixed = generator.encode(images, labels)
    stages = []
    for step in range(config.steps + 1):
        free = free.detach().requires_grad_(True)
        decoded = StraightThroughBytes.apply(generator.decode(Latents(free, fixed)))
        if step % _EVERY == 0:
            stages.append(to_bytes(decoded.detach()))
        logits = judge(decoded)
        truth = truth_of(labels, logits.shape[1], None)
        (gradient,) = torch.autograd.grad(margin(logits, truth).sum(), free)
        free = free + config.step_size * gradient.sign()
    return torch.stack(stages)


@torch.no_grad()
def _mean_probabilities(judges: Sequence[nn.Module], images: Tensor) -> Tensor:
    return torch.stack([judge(images / 255).softmax(1) for judge in judges]).mean(0)
