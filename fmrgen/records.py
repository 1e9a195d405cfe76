"""What goes into the engine and what comes out of it, row by row. Nothing here imports torch when it is loaded."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ROWS_VERSION = 4  # of the columns that rows have, and of the provenance that says so


class StopReason(StrEnum):
    """Why a row ended."""

    BUDGET = "budget"  # the oracle accepted every step
    ORACLE = "oracle"  # the oracle rejected the step after the stored image
    REJECTED = "rejected"  # the oracle rejected the first step: invalid
    NONFINITE = "nonfinite"  # the next step, or what judges it, is not a number
    STUCK = "stuck"  # the gradient is zero: nothing says where to go
    REACHED = "reached"  # the objective is above zero, and the first such image is kept


@dataclass(frozen=True)
class Example:
    """A source example: `image` [3, H, W] in [0, 1]. Of a `controlled` one random steps are taken too.

    `accepted` are all labels that are true of it, `label` among them; None in a job in which each has one.
    """

    id: int
    image: "Tensor"
    label: int
    controlled: bool = False
    accepted: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Perturbed:
    """The result for one example. Images are uint8 [3, H, W] on the CPU; every value is true of exactly these bytes.

    `image` is the last image that the oracle accepted, the original where `valid` is False. `score`, `probability`,
    `oracle_label`, `prediction` and `loss` are of `image`; `score` and `probability` are the oracle's for `label`.
    The `step_…` have an entry for each pass from the plain reconstruction (0) to the image after the last step, number
    `iterations`; `step_oracle_probabilities` are of the class that the oracle rule asks for, `step_objectives` what the
    steps climb. The `control_…` have the same of random steps, at most `iterations` many and as far as the oracle
    accepts them; they are empty where none were taken.
    `queries` counts the images of it that the classifier was asked about, but for random steps of a control.
    `rejected_prediction` and `rejected_oracle_label` are of the image after the step that the oracle rejected; -1 where
    it rejected none.
    `latent_shift` is the root mean square of the change in the free latent (of a sparse generator, of what moves).
    `member_…` are what each member of a panel says of `image`, in the order of its `member_names`; empty for another
    oracle. A label of an oracle that is -1 is not one of the classes.
    `fault` is what was not finite where that ended the row: generator, classifier, oracle or gradient.
    `latents` are the free latents of the original and of `image`, where the engine was asked to keep them.
    `accepted_labels` are all that are true of it, its `label` first; empty in a job in which each has one.
    """

    id: int
    label: int
    image: "Tensor"
    original: "Tensor"
    valid: bool
    iterations: int
    queries: int
    stop_reason: StopReason
    score: float
    probability: float
    oracle_label: int
    original_oracle_label: int
    reconstruction_oracle_label: int
    prediction: int
    original_prediction: int
    reconstruction_prediction: int
    loss: float
    latent_shift: float
    step_predictions: list[int]
    step_losses: list[float]
    step_oracle_probabilities: list[float]
    step_objectives: list[float]
    rejected_prediction: int
    rejected_oracle_label: int
    control_predictions: list[int] = field(default_factory=list)
    control_objectives: list[float] = field(default_factory=list)
    member_labels: list[int] = field(default_factory=list)
    member_probabilities: list[float] = field(default_factory=list)
    member_scores: list[float] = field(default_factory=list)
    fault: str | None = None
    latents: "tuple[Tensor, Tensor] | None" = None
    accepted_labels: list[int] = field(default_factory=list)

    @property
    def pixel_shift(self) -> float:
        """Root mean square of the change from `original` to `image`, in values from 0 to 1."""
        return float((self.image.double() - self.original.double()).square().mean().sqrt() / 255)

    def accepts(self, answer: int) -> bool:
        """Whether an answer is true of it."""
        return answer == self.label or answer in self.accepted_labels
