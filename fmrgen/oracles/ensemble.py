"""Several oracles that vote with their probabilities (paper §5.2)."""

from typing import TYPE_CHECKING

from pydantic import Field

from fmrgen.engine.interfaces import Judgement, Oracle
from fmrgen.kinds import OracleField
from fmrgen.labels import Labels
from fmrgen.oracles.base import OracleConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Config(OracleConfig):
    """`oracles` is a list of oracle sections."""

    kind: str = "ensemble"
    oracles: list[OracleField] = Field(min_length=1)

    @property
    def is_image_text(self) -> bool:
        return all(isinstance(oracle, OracleConfig) and oracle.is_image_text for oracle in self.oracles)

    def build(self, device: "torch.device | str" = "cpu") -> "EnsembleOracle":
        return EnsembleOracle([oracle.build(device) for oracle in self.oracles])

    def code_it_runs(self) -> list[str]:
        return []

    def places_it_reads(self) -> list[str]:
        return []


class EnsembleOracle(Oracle):
    """The mean of the members' probabilities, and of their scores."""

    def __init__(self, oracles: list[Oracle]) -> None:
        self.oracles = oracles

    def set_labels(self, labels: Labels) -> None:
        for oracle in self.oracles:
            oracle.set_labels(labels)

    def judge(self, images: "Tensor") -> Judgement:
        import torch

        judgements = [oracle.judge(images) for oracle in self.oracles]
        return Judgement(
            torch.stack([j.probabilities for j in judgements]).mean(dim=0),
            torch.stack([j.score for j in judgements]).mean(dim=0),
        )
