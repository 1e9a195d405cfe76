"""A panel: several oracles that judge together (paper §5.2)."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from fmrgen.config import SINCE_0_2, ComponentConfig
from fmrgen.engine.interfaces import NONE, Judgement, Oracle, Originals
from fmrgen.labels import Labels
from fmrgen.oracles.base import OracleConfig
from fmrgen.recipe.sections import OracleField

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Rule = Literal["mean", "majority", "unanimous", "veto"]


class Config(OracleConfig):
    """`oracles` is a list of oracle sections, the members; what each says of a stored image is in the split's rows."""

    PLACES = ()

    kind: str = "ensemble"
    oracles: list[OracleField] = Field(min_length=1)
    rule: Rule = Field(
        "mean",
        description="mean: the highest mean probability decides; majority: what more than half of them see; "
        "unanimous: what all see, else it is not one of the classes; veto: the first judges, and where another sees "
        "something else it is not one of the classes",
        json_schema_extra=SINCE_0_2,
    )
    weights: list[Annotated[float, Field(gt=0)]] | None = Field(
        None, description="weights of the members; equal by default", json_schema_extra=SINCE_0_2
    )
    names: list[str] | None = Field(
        None, description="names of the members in rows and tables; default: their models", json_schema_extra=SINCE_0_2
    )

    @model_validator(mode="after")
    def _one_for_each(self) -> "Config":
        for name in ("weights", "names"):
            given = getattr(self, name)
            if given is not None and len(given) != len(self.oracles):
                raise ValueError(f"{name} has {len(given)} entries for {len(self.oracles)} oracles")
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
        names = self.names or _names(self.oracles)
        return EnsembleOracle(members, names, self.rule, self.weights, mean_score=self.is_image_text)


def _names(oracles: Sequence[ComponentConfig]) -> list[str]:
    """What members are called: by their model, each otherwise."""
    called = []
    for oracle in oracles:
        held = getattr(oracle, "classifier", oracle)
        which = next((label for key in ("model", "target", "checkpoint") if (label := getattr(held, key, None))), "")
        called.append(re.split(r"[/:]", str(which))[-1] or held.kind)
    counts = Counter(called)
    return [name if counts[name] == 1 else f"{name}-{place}" for place, name in enumerate(called, 1)]


class EnsembleOracle(Oracle):
    """Members that judge together, by a rule.

    Its probabilities are the mean of theirs, or by a vote the share of the votes for each label; its score is the mean
    of theirs where all are cosines, and else, as scores of several kinds have no mean, the probability. Where others
    have a veto alone, both are the first one's.
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
        self.oracles, self.member_names = list(oracles), tuple(names)
        self.rule, self.mean_score = rule, mean_score
        self.shares = None if weights is None else [weight / sum(weights) for weight in weights]
        self.needs_originals = any(oracle.needs_originals for oracle in oracles)

    @property
    def deciding(self) -> Oracle:
        return self.oracles[0].deciding if self.rule == "veto" else self

    def set_labels(self, labels: Labels) -> None:
        for oracle in self.oracles:
            oracle.set_labels(labels)

    def judge(self, images: "Tensor", originals: Originals | None = None) -> Judgement:
        members = {
            name: oracle.judge(images, originals) for name, oracle in zip(self.member_names, self.oracles, strict=True)
        }
        said = list(members.values())
        if self.rule == "veto":
            return Judgement(said[0].probabilities, said[0].score, self._vetoed(said), members)
        if self.rule == "mean":
            probabilities, labels = self._mean([judgement.probabilities for judgement in said]), None
        else:
            probabilities, labels = self._vote(said)
        score = self._mean([judgement.score for judgement in said]) if self.mean_score else probabilities
        return Judgement(probabilities, score, labels, members)

    def _vetoed(self, said: list[Judgement]) -> "Tensor":
        decided = said[0].decided
        for judgement in said[1:]:
            decided = decided.masked_fill(judgement.decided != said[0].decided, NONE)
        return decided

    def _mean(self, values: "list[Tensor]") -> "Tensor":
        import torch

        stacked = torch.stack(values)
        if self.shares is None:
            return stacked.mean(dim=0)
        return (stacked * stacked.new_tensor(self.shares).view(-1, 1, 1)).sum(dim=0)

    def _vote(self, said: list[Judgement]) -> "tuple[Tensor, Tensor]":
        """The share of the votes for each label [B, K], and what is decided [B]."""
        shares = self.shares or [1 / len(said)] * len(said)
        votes = said[0].probabilities.new_zeros(said[0].probabilities.shape)
        for share, judgement in zip(shares, said, strict=True):
            sees_one = (judgement.decided != NONE).unsqueeze(1)
            votes.scatter_add_(1, judgement.decided.clamp(min=0).unsqueeze(1), share * sees_one.to(votes))
        highest = votes.max(dim=1)
        needed = 0.5 + 1e-6 if self.rule == "majority" else 1 - 1e-6  # shares are rounded
        return votes, highest.indices.masked_fill(highest.values < needed, NONE)
