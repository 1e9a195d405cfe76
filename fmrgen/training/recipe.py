"""Training recipes: on which images, of what, for how long."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, SerializeAsAny

from fmrgen.config import Section, component
from fmrgen.kinds import GeneratorSection, SourceSection
from fmrgen.recipe import load_section
from fmrgen.training.objectives.base import TraineeConfig


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
    model: Annotated[SerializeAsAny[TraineeConfig], component("fmrgen.training.objectives")]
    schedule: ScheduleSection
    augment: AugmentSection = AugmentSection()
    generator: GeneratorSection | None = None


def load_train_recipe(reference: str | Path, overrides: Sequence[str] = ()) -> TrainRecipe:
    """A training recipe from a file or a shipped name (`train/mnist-lenet`). Raises UserError."""
    return load_section(TrainRecipe, reference, overrides)
