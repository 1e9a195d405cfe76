"""The training loop, and the recipe that drives it. What is trained is a `Trainee`; the loop knows nothing of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, SerializeAsAny

from fmrgen.errors import UserError
from fmrgen.labels import Labels
from fmrgen.recipe import ComponentConfig, GeneratorSection, Section, SourceSection, component, load_section
from fmrgen.sources.base import LoadedExample, Source, SourceConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_TEST_BATCH = 250


class TraineeConfig(ComponentConfig):
    """What is to be trained, with random weights at first."""

    def trainee(self, device: "torch.device", labels: Labels) -> "Trainee":
        """A `Trainee` on `device` for images of `labels`."""
        raise NotImplementedError


class ScheduleSection(Section):
    """AdamW under a one-cycle learning rate."""

    steps: int = Field(ge=1)
    batch_size: int = Field(128, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    seed: int = 0


class AugmentSection(Section):
    """Per-image random changes; 0 turns one off."""

    warp: float = Field(0, ge=0, description="strength of rotation, scale, shift and elastic waves; 1 is moderate")
    blur: float = Field(0, ge=0, description="largest Gaussian blur, in pixels")
    noise: float = Field(0, ge=0, description="largest standard deviation of pixel noise")
    reconstruct: float = Field(0, ge=0, le=1, description="share of images replaced by the generator's reconstruction")
    latent_noise: float = Field(0, ge=0, description="largest noise on the latents of these, in latent units")


class TrainRecipe(Section):
    """A training run: on which images, of what, for how long."""

    description: str = ""
    source: SourceSection
    test: SourceSection
    model: Annotated[SerializeAsAny[TraineeConfig], component("fmrgen.training")]
    schedule: ScheduleSection
    augment: AugmentSection = AugmentSection()
    generator: GeneratorSection | None = None


class Trainee(ABC):
    """Something that learns: `network` holds the weights, `image_size` is the side of its images."""

    network: Any
    image_size: int

    @abstractmethod
    def loss(self, images: "Tensor", labels: "Tensor", progress: float) -> "Tensor":
        """The loss of a batch: images [B, 3, H, W] in [0, 1], labels [B]; `progress` runs from 0 to 1."""

    @abstractmethod
    def metrics(self, images: "Tensor", labels: "Tensor") -> dict[str, "Tensor"]:
        """Per-image measures [B] of a test batch."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes what `build` of the matching component reads."""


def load_train_recipe(reference: str | Path, overrides: Sequence[str] = ()) -> TrainRecipe:
    """A training recipe from a file or a shipped name (`train/mnist-lenet`). Raises UserError."""
    return load_section(TrainRecipe, reference, overrides)


def train(
    recipe: TrainRecipe, output: Path, progress: Callable[[int, int, float], None] = lambda step, steps, loss: None
) -> dict[str, float]:
    """Trains, writes the weights into `output` and returns the test metrics.

    `progress(step, steps, loss)` is called after each step. Raises UserError where the recipe can't be trained.
    """
    import torch

    from fmrgen.training.augment import augment

    torch.manual_seed(recipe.schedule.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    source = recipe.source.build()
    trainee = recipe.model.trainee(device, source.labels)
    if recipe.augment.reconstruct and recipe.generator is None:
        raise UserError("augment.reconstruct: needs a generator section to reconstruct with")
    generator = recipe.generator.build(device) if recipe.generator is not None else None
    images, labels = _load_all(source, recipe.source, trainee.image_size)
    optimizer = torch.optim.AdamW(
        trainee.network.parameters(), recipe.schedule.learning_rate, weight_decay=recipe.schedule.weight_decay
    )
    steps = recipe.schedule.steps
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.schedule.learning_rate, total_steps=steps)
    trainee.network.train()
    for step in range(steps):
        rows = torch.randint(len(images), (recipe.schedule.batch_size,))
        batch, targets = (images[rows].to(device) / 255), labels[rows].to(device)
        loss = trainee.loss(augment(batch, targets, recipe.augment, generator), targets, step / steps)
        if not torch.isfinite(loss):
            raise UserError(f"training diverged at step {step}; lower schedule.learning_rate")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainee.network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress(step + 1, steps, loss.item())
    trainee.network.eval()
    output.mkdir(parents=True, exist_ok=True)
    trainee.save(output)
    return _test(trainee, recipe.test.build(), recipe.test, device)


def _load_all(source: Source, config: Any, size: int) -> tuple["Tensor", "Tensor"]:
    import torch

    assert isinstance(config, SourceConfig)
    examples = [
        e for e in source.load(0, len(source), size, config.fit, config.on_error) if isinstance(e, LoadedExample)
    ]
    images = torch.from_numpy(np.stack([example.image for example in examples])).permute(0, 3, 1, 2)
    return images, torch.tensor([example.label for example in examples])


def _test(trainee: Trainee, source: Source, config: Any, device: "torch.device") -> dict[str, float]:
    import torch

    images, labels = _load_all(source, config, trainee.image_size)
    with torch.no_grad():
        batches = [
            trainee.metrics(batch.to(device) / 255, targets.to(device))
            for batch, targets in zip(images.split(_TEST_BATCH), labels.split(_TEST_BATCH), strict=True)
        ]
    return {name: torch.cat([batch[name].float() for batch in batches]).mean().item() for name in batches[0]}
