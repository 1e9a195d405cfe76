"""A table of the paper as a study: parts that are ordinary jobs, and claims about their figures.

A study that was killed resumes when it is run again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from fmrgen.apps.studies.claims import Claim, ClaimFound, find_claim, part_and_models
from fmrgen.apps.studies.parts import (
    AttackOraclePart,
    ComparePart,
    Part,
    SparsifyPart,
    StudyPart,
    TrainPart,
    Work,
)
from fmrgen.apps.studies.shipped import SHIPPED
from fmrgen.config import StrictConfig
from fmrgen.errors import UserError
from fmrgen.recipe.files import check_reference
from fmrgen.recipe.job import load_config

if TYPE_CHECKING:
    from fmrgen.apps.pilot.sparsify import SparseMask
    from fmrgen.apps.studies.attack_oracle import AttackedJudge
    from fmrgen.results.evaluation import Evaluation
    from fmrgen.results.orders import Agreement

Scale = Literal["small", "full"]
_FEWEST_COMPARED = 2
_FEWEST_RANKED = 2  # comparisons, and models but one: of two there are but one order and the other


class StudyScale(StrictConfig):
    """The parts of a study at one scale, in their order, and what is claimed of them."""

    minutes: int | None = Field(None, description="about how long it takes on two CPU cores")
    notes: list[str] = Field([], description="what it needs, a line each")
    training: list[str] = Field([], description="changes of all recipes of training, section.key=value each")
    parts: list[Part] = Field(min_length=1)
    claims: list[Claim] = Field([], description="of figures of the parts")
    agreement: list[str] = Field([], description="comparisons under several generators, whose rankings are compared")

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        parts = {part.name: part for part in self.parts}
        if len(parts) < len(self.parts):
            raise ValueError("parts: two have one name")
        trainings = self.trainings
        for part in self.parts:
            if not isinstance(part, ComparePart):
                continue
            if sum(trainings.get(model, 1) for model in part.models) < _FEWEST_COMPARED:
                raise ValueError(f"{part.name}: compares two models or more, or a model of several trainings")
        for claim in self.claims:
            _check_claim(claim, parts, trainings)
        for name in self.agreement:
            compared = parts.get(name)
            if not isinstance(compared, ComparePart):
                raise ValueError(f"agreement: no part compares as {name}")
            if min(len(self.agreement), len(compared.models) - 1) < _FEWEST_RANKED:
                raise ValueError(
                    f"agreement: needs two comparisons and three models; {name} has {len(compared.models)}"
                )
        return self

    @property
    def trainings(self) -> dict[str, int]:
        """Return the number of trainings of each model that is trained more than once."""
        trainings = {}
        for part in self.parts:
            if isinstance(part, TrainPart) and part.trainings > 1:
                trainings[part.name] = part.trainings
        return trainings


def _check_claim(claim: Claim, parts: Mapping[str, Part], trainings: Mapping[str, int]) -> None:
    """Raise ValueError if no part of a study has a claim's figures."""
    is_attacked = claim.metric == "attacked_accuracy"
    for figure in (claim.higher, claim.lower):
        name, judges = part_and_models(figure)
        if name not in parts or not parts[name].judges:
            raise ValueError(f"claims: {figure}: no part compares as {name}")
        part = parts[name]
        if claim.metric not in part.metrics:
            raise ValueError(f"claims: {figure}: {name} has no {claim.metric}")
        for judge in judges:
            if judge not in part.judges:
                raise ValueError(f"claims: {figure}: {name} has no model {judge}")
        is_attacked = is_attacked or isinstance(part, AttackOraclePart)
    if not is_attacked:
        return
    for judge in (*part_and_models(claim.higher)[1], *part_and_models(claim.lower)[1]):
        if judge in trainings:
            raise ValueError(
                f"claims: {judge}: figures under attack are not compared over trainings; name one training, "
                f"NAME={{output}}/models/{judge}-1"
            )


class Study(StrictConfig):
    """A table of the paper, and how to reproduce it: small with what is at hand, full with public weights."""

    title: str
    paper: str = Field("", description="what the paper's table says, in Markdown")
    small: StudyScale | None = None
    full: StudyScale | None = None
    by_class: bool = Field(False, description="whether to print each model on its own split by class")

    @model_validator(mode="after")
    def _has_parts(self) -> Self:
        if self.small is None and self.full is None:
            raise ValueError("has neither small nor full; write small: {parts: [...]}")
        return self

    def at(self, scale: Scale) -> StudyScale:
        """Return the study at a scale. Raises UserError if it has no parts there."""
        chosen, other = self.small, "full"
        if scale == "full":
            chosen, other = self.full, "small"
        if chosen is None:
            raise UserError(f"{self.title}: has parts at --scale {other} only")
        return chosen


@dataclass(frozen=True)
class StudyFound:
    """The results of a study.

    Attributes:
        study: that was run.
        scale, change: how, as for `run_study`.
        evaluations: of its comparisons, by their names.
        attacked: judges under attack, likewise.
        masks: of generators, likewise.
        claims: with their verdicts.
        agreement: how far rankings under several generators agree; None if not requested, or unknown.
    """

    study: Study
    scale: Scale
    change: list[str]
    evaluations: "dict[str, Evaluation]"
    attacked: "dict[str, list[AttackedJudge]]"
    masks: "dict[str, SparseMask]"
    claims: list[ClaimFound]
    agreement: "Agreement | None"

    @property
    def how(self) -> str:
        """Return the scale that it was run at, and what was changed in all recipes of splits."""
        if not self.change:
            return f"{self.scale} scale"
        return f"{self.scale} scale, changed: {', '.join(self.change)}"


def load_study(reference: str | Path) -> Study:
    """Load a study from a file or a shipped name (`paper/table-8`).

    Args:
        reference: the file or name.

    Returns:
        The study, every key known and checked.

    Raises:
        UserError: the file is not a valid study.
    """
    check_reference(reference, "study", SHIPPED)
    return load_config(Study, reference)


def run_study(study: Study, scale: Scale, work: Work) -> StudyFound:
    """Train, make and evaluate what is not there yet, part after part.

    Args:
        study: the study to run.
        scale: small, or full.
        work: its folder, changes and callbacks.

    Returns:
        The results.

    Raises:
        UserError: there is nothing at that scale, or what the jobs raise.
    """
    from fmrgen.results.orders import agreement

    chosen = study.at(scale)
    work = replace(work, trainings=chosen.trainings, training=chosen.training)
    results: dict[str, Any] = {}
    for part in chosen.parts:
        results[part.name] = part.run(work)

    def results_of(kind: type[StudyPart]) -> dict[str, Any]:
        return {part.name: results[part.name] for part in chosen.parts if isinstance(part, kind)}

    evaluations, attacked, masks = results_of(ComparePart), results_of(AttackOraclePart), results_of(SparsifyPart)
    ranking_agreement = None
    if chosen.agreement:
        try:
            ranking_agreement = agreement({name: evaluations[name] for name in chosen.agreement})
        except UserError as error:  # the other results stand
            work.on_note(f"agreement: {error}")
    claims = [find_claim(claim, evaluations, attacked) for claim in chosen.claims]
    return StudyFound(
        study,
        scale,
        work.change,
        evaluations,
        attacked,
        masks,
        claims,
        ranking_agreement,
    )


def study_lines(study: Study, scale: Scale, work: Work) -> list[str]:
    """Return the notes of a study and what its parts would do, a line each.

    Args:
        study: the study.
        scale: small, or full.
        work: its folder and changes.

    Raises:
        UserError: as `run_study` at its start.
    """
    chosen = study.at(scale)
    work = replace(work, trainings=chosen.trainings, training=chosen.training)
    lines = [*chosen.notes]
    if chosen.minutes:
        lines.insert(0, f"takes about {chosen.minutes} minutes on two CPU cores")
    for part in chosen.parts:
        lines += part.lines(work)
    return lines
