"""Images at all stages of guided perturbation, labelled by classifiers that they were not moved against.

An oracle has to tell when a perturbed image stops showing its class. It learns that from images that were moved, as
Algorithm 1 moves them, to fool one classifier, and from the predictions of the other classifiers for them.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from fmrgen.apps.training.images import TrainingImages
from fmrgen.config import StrictConfig
from fmrgen.engine.images import StraightThroughBytes, to_bytes
from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.engine.objectives import margin, truth_of
from fmrgen.labels import Labels
from fmrgen.recipe.build import build_classifier
from fmrgen.recipe.sections import ClassifierField

_BATCH = 50
_STAGE_STEPS = 2  # steps between two stages


class PerturbedConfig(StrictConfig):
    """Perturbed images to learn from, in addition to the plain ones."""

    judges: list[ClassifierField] = Field(
        min_length=2, description="classifiers; images are moved against each, and the others label the result"
    )
    images: int = Field(1200, ge=1, description="training images that are moved against each judge")
    steps: int = Field(24, ge=1, description="guided steps, each by the sign of the margin's gradient")
    step_size: float = Field(gt=0, description="length of a step, in latent units")


class PerturbedImages:
    """Images of all stages of perturbation, of some training images, with soft labels.

    The label of an image is the mean of the probabilities of the judges that it was not moved against.
    """

    def __init__(
        self, config: PerturbedConfig, images: TrainingImages, generator: Generator, names: Labels, device: torch.device
    ) -> None:
        judges = []
        for number, section in enumerate(config.judges):
            judges.append(build_classifier(section, names, images.size, device, f"perturbed.judges.{number}"))
        moved, targets = [], []
        for judge in judges:
            others = [other for other in judges if other is not judge]
            pixels, labels, _ = images.sample(config.images)
            for batch, batch_labels in zip(pixels.split(_BATCH), labels.split(_BATCH), strict=True):
                stages = _stages(judge, batch.to(device) / 255, batch_labels.to(device), generator, config)
                stages = stages.flatten(0, 1)
                moved.append(stages.cpu())
                targets.append(_mean_probabilities(others, stages).cpu())
        self.images, self.targets = torch.cat(moved), torch.cat(targets)

    def draw(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return `count` images [B, 3, H, W] in [0, 1] and their probabilities [B, K]."""
        rows = torch.randint(len(self.images), (count,))
        return self.images[rows].to(device) / 255, self.targets[rows].to(device)


def _stages(judge: nn.Module, images: Tensor, labels: Tensor, generator: Generator, config: PerturbedConfig) -> Tensor:
    """Return stages of moving images against a judge, plain reconstructions first, uint8 [stages, B, 3, H, W]."""
    with torch.no_grad():
        free, fixed = generator.encode(images, labels)
    stages = []
    for step in range(config.steps + 1):
        free = free.detach().requires_grad_(True)
        decoded = StraightThroughBytes.apply(generator.decode(Latents(free, fixed)))
        if step % _STAGE_STEPS == 0:
            stages.append(to_bytes(decoded.detach()))
        logits = judge(decoded)
        truth = truth_of(labels, logits.shape[1], None)
        (gradient,) = torch.autograd.grad(margin(logits, truth).sum(), free)
        free = free + config.step_size * gradient.sign()
    return torch.stack(stages)


@torch.no_grad()
def _mean_probabilities(judges: Sequence[nn.Module], images: Tensor) -> Tensor:
    return torch.stack([judge(images / 255).softmax(1) for judge in judges]).mean(0)
