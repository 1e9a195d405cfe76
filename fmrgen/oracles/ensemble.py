"""A panel: several oracles that judge together (paper §5.2)."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from fmrgen.config import ComponentConfig
from fmrgen.engine.interfaces import NONE, Judgement, Oracle, Originals
from fmrgen.labels import Labels
from fmrgen.oracles.base import OracleConfig
from fmrgen.recipe.sections import OracleField

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_ROUNDING = 1e-6  # of sums of shares

Rule = Literal["mean", "majority", "unanimous", "veto"]


class Config(OracleConfig):
    """`oracles` is a list of oracle sections, the members; their judgements of stored images are in the rows."""

    PLACES = ()

    kind: str = "ensemble"
    oracles: list[OracleField] = Field(min_length=1)
    rule: Rule = Field(
        "mean",
        description="mean: the highest mean probability decides; majority: what more than half of them see; "
        "unanimous: what all see, else it is not one of the classes; veto: the first judges, and where another sees "
        "something else it is not one of the classes",
    )
    weights: list[Annotated[float, Field(gt=0)]] | None = Field(
        None, description="weights of the members; equal by default"
    )
    names: list[str] | None = Field(None, description="names of the members in rows and tables; default: their models")

    @model_validator(mode="after")
    def _one_for_each(self) -> "Config":
        for name in ("weights", "names"):
            entries = getattr(self, name)
            if entries is not None and len(entries) != len(self.oracles):
                raise ValueError(f"{name} has {len(entries)} entries for {len(self.oracles)} oracles")
        if self.rule == "veto" and self.weights is not None:
            raise ValueError("weights: a veto has none; leave them out")
        if self.names is not None and len(set(self.names)) < len(self.names):
            raise ValueError("two names are the same")
        return self

    @property
    def is_image_text(self) -> bool:
        deciding = self.oracles[:1] if self.rule == "veto" else self.oracles
        return all(isinstance(oracle, OracleConfig) and oracle.is_image_text for oracle in deciding)

    def build(self, device: "torch.device | str" = "cpu") -> "EnsembleOracle":
        members = [oracle.build(device) for oracle in self.oracles]
        names = self.names or _member_names(self.oracles)
        return EnsembleOracle(members, names, self.rule, self.weights, mean_score=self.is_image_text)


def _member_names(oracles: Sequence[ComponentConfig]) -> list[str]:
    """Return a name for each member: its model, with a number if several members have the same."""
    names = []
    for oracle in oracles:
        section = getattr(oracle, "classifier", oracle)
        reference = ""
        for key in ("model", "target", "checkpoint"):
            reference = reference or getattr(section, key, None) or ""
        last_part = re.split(r"[/:]", str(reference))[-1]
        names.append(last_part or section.kind)
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name}-{number}" for number, name in enumerate(names, 1)]


class EnsembleOracle(Oracle):
    """Members that judge together, by a rule.

    Its probabilities are the mean of the members', or in a vote the share of the votes for each label; the members'
    `weights` are equal by default. Its score is the mean of the members' if all are cosines (`mean_score`); otherwise
    the probability, since scores of several kinds have no mean. With the rule veto, both are the first member's.
    """

    def __init__(
        self,
        oracles: Sequence[Oracle],
        names: Sequence[str],
        rule: Rule = "mean",
        weights: Sequence[float] | None = None,
        *,
        mean_score: bool = False,
    ) -> None:
        self.oracles = list(oracles)
        self.member_names = tuple(names)
        self.rule = rule
        self.mean_score = mean_score
        self.shares = None if weights is None else [weight / sum(weights) for weight in weights]
        self.needs_originals = any(oracle.needs_originals for oracle in oracles)

    @property
    def deciding(self) -> Oracle:
        return self.oracles[0].deciding if self.rule == "veto" else self

    def set_labels(self, labels: Labels) -> None:
        for oracle in self.oracles:
            oracle.set_labels(labels)

    def judge(self, images: "Tensor", originals: Originals | None = None) -> Judgement:
        judgements = [oracle.judge(images, originals) for oracle in self.oracles]
        members = dict(zip(self.member_names, judgements, strict=True))
        if self.rule == "veto":
            first = judgements[0]
            return Judgement(first.probabilities, first.score, self._vetoed(judgements), members)
        labels: Tensor | None = None
        if self.rule == "mean":
            probabilities = self._mean([judgement.probabilities for judgement in judgements])
        else:
            probabilities, labels = self._vote(judgements)
        score = self._mean([judgement.score for judgement in judgements]) if self.mean_score else probabilities
        return Judgement(probabilities, score, labels, members)

    def _vetoed(self, judgements: list[Judgement]) -> "Tensor":
        """Return the first member's decisions [B], with `NONE` for images on which another member disagrees."""
        decided = first = judgements[0].decided
        for judgement in judgements[1:]:
            decided = decided.masked_fill(judgement.decided != first, NONE)
        return decided

    def _mean(self, values: "list[Tensor]") -> "Tensor":
        """Return the weighted mean of the members' values, each [B, K]."""
        import torch

        stacked = torch.stack(values)
        if self.shares is None:
            return stacked.mean(dim=0)
        return (stacked * stacked.new_tensor(self.shares).view(-1, 1, 1)).sum(dim=0)

    def _vote(self, judgements: list[Judgement]) -> "tuple[Tensor, Tensor]":
        """Return the share of the votes for each label [B, K], and the decision [B]."""
        shares = self.shares or [1 / len(judgements)] * len(judgements)
        votes = judgements[0].probabilities.new_zeros(judgements[0].probabilities.shape)
        for share, judgement in zip(shares, judgements, strict=True):
            has_label = (judgement.decided != NONE).unsqueeze(1)
            labels = judgement.decided.clamp(min=0).unsqueeze(1)
            votes.scatter_add_(1, labels, share * has_label.to(votes))
        highest = votes.max(dim=1)
        needed = 0.5 + _ROUNDING if self.rule == "majority" else 1 - _ROUNDING
        return votes, highest.indices.masked_fill(highest.values < needed, NONE)
