"""The input and output of the engine, row by row. This module imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

ROWS_VERSION = 4  # of the columns of rows, which the provenance records


class StopReason(StrEnum):
    """Why a row ended."""

    BUDGET = "budget"  # the oracle accepted every step
    ORACLE = "oracle"  # the oracle rejected the step after the stored image
    REJECTED = "rejected"  # the oracle rejected the first step: invalid
    NONFINITE = "nonfinite"  # the next step, or the judgement of it, is NaN or infinite
    STUCK = "stuck"  # the gradient is zero: it shows no direction
    REACHED = "reached"  # the objective is above zero, and the first such image is kept


@dataclass(frozen=True)
class Example:
    """A source example.

    Attributes:
        id: its number in the source.
        image: [3, H, W] in [0, 1].
        label: its class.
        controlled: whether it takes random steps too.
        accepted: all true labels of the image, `label` among them; None in a job with one label per example.
    """

    id: int
    image: "Tensor"
    label: int
    controlled: bool = False
    accepted: tuple[int, ...] | None = None


@dataclass(frozen=True)
class AttackRecord:
    """The record of one attack of an ensemble on one example; lists have an entry for the plain reconstruction and for
    each step that the oracle accepted.

    Attributes:
        stop_reason: why it ended.
        predictions: of the classifier.
        objectives: what its steps climb.
        oracle_probabilities: of the class that the oracle rule asks for.
        rejected_prediction: the prediction for the image that the oracle rejected; -1 if it rejected none.
    """

    stop_reason: StopReason
    predictions: list[int]
    objectives: list[float]
    oracle_probabilities: list[float]
    rejected_prediction: int


@dataclass(frozen=True)
class Perturbed:
    """The result for one example. Images are uint8 [3, H, W] on the CPU; every value is true of exactly these bytes.

    A label of an oracle is -1 if it sees none of the classes. Of several attacks, `stop_reason`, `step_…` and
    `rejected_…` are those of the attack that made `image`.

    Attributes:
        id: of the example.
        label: of the example.
        image: the last image that the oracle accepted, or of several attacks the one with the highest margin; the
            original if `valid` is False.
        original: the source's image.
        valid: whether the oracle accepted the first step, of any attack.
        iterations: number of steps in `image`.
        queries: number of classifier queries for this example, without the random steps of a control.
        stop_reason: why the row ended.
        score: the oracle's score of `label` for `image`.
        probability: the oracle's probability of `label` for `image`.
        oracle_label: the oracle's label of `image`; `original_…` and `reconstruction_…` are of these images.
        prediction: the classifier's prediction for `image`; `original_…` and `reconstruction_…` are for these images.
        loss: of the classifier for `image`.
        margin: of the classifier for `image`: the lead of the best false class; above 0 where it is wrong.
        latent_shift: root mean square of the change in the free latent (in a sparse generator, of the part that moves).
        step_predictions: at each pass, from the plain reconstruction (0) to the image after the last step,
            number `iterations`. The other `step_…` have the same entries.
        step_losses: of the classifier.
        step_oracle_probabilities: of the class that the oracle rule asks for.
        step_objectives: what the steps climb.
        rejected_prediction: of the image after the step that the oracle rejected; -1 if it rejected none.
        rejected_oracle_label: the oracle's label of that image; -1 if it rejected none.
        control_predictions: along random steps, as far as the oracle accepts them and at most as many as
            the first attack took; empty if none were taken.
        control_objectives: the objectives along these.
        member_labels: the label of `image` by each member of a panel, in the order of its `member_names`; the other
            `member_…` likewise. Empty for another oracle.
        member_probabilities: of `label`.
        member_scores: of `label`.
        fault: which output was not finite, if that ended the row: generator, classifier, oracle or gradient.
        latents: the free latents of the original and of `image`, if `keep_latents` was set.
        accepted_labels: all true labels of the image, `label` first; empty in a job with one label per example.
        attack: number, from 0, of the attack that made `image`.
        attacks: of each attack on the example, in their order, which ends with the first that fools; empty if there is
            but one in the options.
        extra: what else the source knows of the example, by the names of columns.
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
    margin: float
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
    attack: int = 0
    attacks: list[AttackRecord] = field(default_factory=list)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pixel_shift(self) -> float:
        """Root mean square of the change from `original` to `image`, in values from 0 to 1."""
        return float((self.image.double() - self.original.double()).square().mean().sqrt() / 255)

    def accepts(self, prediction: int) -> bool:
        """Return whether a label is true of the image."""
        return prediction == self.label or prediction in self.accepted_labels
