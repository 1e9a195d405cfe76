"""Training recipes: the images, the model and the schedule of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny, model_validator

from fmrgen.apps.explain.random_change import RandomChange
from fmrgen.apps.training.objectives.base import ObjectiveConfig
from fmrgen.config import StrictConfig, component
from fmrgen.errors import UserError
from fmrgen.recipe.job import load_config
from fmrgen.recipe.sections import ClassifierField, GeneratorField, SourceField


class ScheduleConfig(StrictConfig):
    """The steps of a run and its optimizer. `batch_size` is of all processes together."""

    steps: int = Field(ge=1)
    batch_size: int = Field(128, ge=1)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(2e-3, gt=0, description="highest value")
    decay: Literal["one_cycle", "cosine"] = Field("one_cycle", description="of the rate; cosine begins at the highest")
    weight_decay: float = Field(0.05, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    clip: float | None = Field(1.0, gt=0, description="largest norm of a gradient; null for no limit")
    precision: Literal["no", "bf16"] = Field("no", description="bf16: losses are computed under autocast")
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints, from which a killed run resumes")
    seed: int = Field(0, ge=0)
    threads: int = Field(
        2, ge=1, description="CPU threads of a process; another number rounds differently and gives other weights"
    )


class AugmentConfig(StrictConfig):
    """Per-image random changes; 0 turns one off."""

    warp: float = Field(0, ge=0, description="strength of rotation, scale, shift and elastic waves; 1 is moderate")
    colour: float = Field(0, ge=0, description="strength of brightness, contrast, saturation and tint; 1 is strong")
    cutout: float = Field(0, ge=0, le=1, description="side of a square to hide, as a share of the image's")
    crop: int = Field(0, ge=0, description="pixels of black border to add before a random crop back to the size")
    flip: bool = Field(False, description="mirrors half of the images")
    blur: float = Field(0, ge=0, description="largest Gaussian blur, in pixels")
    noise: float = Field(0, ge=0, description="largest standard deviation of pixel noise")
    mixup: float = Field(0, ge=0, description="alpha of the beta distribution by which pairs of images are mixed")
    change: dict[str, tuple[float, float]] = Field(
        {},
        description="attributes of explain, by name, and the least and most amount of a random change, from -1 to 1; "
        "the first is changed in 0.8 of the images, each further one in 0.3",
    )
    reconstruct: float = Field(0, ge=0, le=1, description="share of images replaced by the generator's reconstruction")
    latent_noise: float = Field(0, ge=0, description="largest noise on the latents of these, in latent units")

    @model_validator(mode="after")
    def _changes_what_is_there(self) -> "AugmentConfig":
        for name, amounts in self.change.items():
            try:
                RandomChange(name, *amounts)
            except UserError as error:
                raise ValueError(f"change: {error}") from None
        return self


class PerturbedConfig(StrictConfig):
    """Perturbed images to learn from, in addition to the plain ones."""

    judges: list[ClassifierField] = Field(
        min_length=2, description="classifiers; images are moved against each, and the others label the result"
    )
    images: int = Field(1200, ge=1, description="training images that are moved against each judge")
    steps: int = Field(24, ge=1, description="guided steps, each by the sign of the margin's gradient")
    step_size: float = Field(gt=0, description="length of a step, in latent units")


class TrainRecipe(StrictConfig):
    """A training run: its images, its model and its schedule."""

    description: str = ""
    source: SourceField
    test: SourceField
    model: Annotated[SerializeAsAny[ObjectiveConfig], component("fmrgen.apps.training.objectives")]
    schedule: ScheduleConfig
    augment: AugmentConfig = AugmentConfig()
    copies: str | None = Field(
        None, description="a perturbed split of the source, local or on the Hub: train on each image's copy too"
    )
    perturbed: PerturbedConfig | None = None
    generator: GeneratorField | None = None


def load_train_recipe(reference: str | Path, overrides: Sequence[str] = ()) -> TrainRecipe:
    """Return a training recipe from a file or a shipped name (`train/mnist-lenet`).

    Args:
        reference: the file or name.
        overrides: changes, `section.key=value` each.

    Returns:
        The recipe.

    Raises:
        UserError: a key or value in it is wrong.
    """
    return load_config(TrainRecipe, reference, overrides)
