"""A table of the paper as a study: parts that are ordinary jobs, and what is claimed of their figures.

A study that was killed goes on when it is run again.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from fmrgen.apps.studies.claims import Claim, ClaimFound, find_claim, part_and_models
from fmrgen.apps.studies.parts import (
    AttackOraclePart,
    ComparePart,
    MeasurePart,
    OwnPart,
    Part,
    SparsifyPart,
    TrainPart,
    Work,
    names_of,
)
from fmrgen.apps.studies.validity import ValidityPlan
from fmrgen.config import StrictConfig
from fmrgen.errors import UserError
from fmrgen.recipe.files import check_reference
from fmrgen.recipe.job import STUDIES, load_config

if TYPE_CHECKING:
    from fmrgen.apps.pilot.sparsify import SparseMask
    from fmrgen.apps.studies.attacked import AttackedJudge
    from fmrgen.apps.studies.validity import Validity
    from fmrgen.report.tables import Table
    from fmrgen.results.evaluation import Evaluation
    from fmrgen.results.orders import Agreement
    from fmrgen.storage.shards import SplitFolder

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
    validity: ValidityPlan | None = Field(None, description="whether FMR predicts accuracy on real shifts")

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        parts = {part.name: part for part in self.parts}
        if len(parts) < len(self.parts):
            raise ValueError("parts: two have one name")
        trained = self.trainings
        for part in self.parts:
            if isinstance(part, ComparePart) and sum(trained.get(model, 1) for model in part.models) < _FEWEST_COMPARED:
                raise ValueError(f"{part.name}: compares two models or more, or a model of several trainings")
        for claim in self.claims:
            for figure in (claim.higher, claim.lower):
                name, judges = part_and_models(figure)
                if name not in parts or not parts[name].judges:
                    raise ValueError(f"claims: {figure}: no part compares as {name}")
                if claim.metric not in parts[name].metrics:
                    raise ValueError(f"claims: {figure}: {name} has no {claim.metric}")
                if unknown := [judge for judge in judges if judge not in parts[name].judges]:
                    raise ValueError(f"claims: {figure}: {name} has no model {unknown[0]}")
            figures = [part_and_models(figure) for figure in (claim.higher, claim.lower)]
            attacked = claim.metric == "attacked_accuracy" or any(
                isinstance(parts[name], AttackOraclePart) for name, _ in figures
            )
            if attacked and (several := [judge for _, judges in figures for judge in judges if judge in trained]):
                raise ValueError(
                    f"claims: {several[0]}: figures under attack are not compared over trainings; name one training, "
                    f"NAME={{output}}/models/{several[0]}-1"
                )
        if self.validity is not None:
            if unknown := [name for name in self.validity.parts if not isinstance(parts.get(name), OwnPart)]:
                raise ValueError(f"validity: no part makes own splits as {unknown[0]}")
            if sum(isinstance(part, MeasurePart) for part in self.parts) != 1:
                raise ValueError("validity: needs one part that measures")
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
        """How often each model is trained that is trained more than once."""
        return {part.name: part.trainings for part in self.parts if isinstance(part, TrainPart) and part.trainings > 1}


class Study(StrictConfig):
    """What the paper reports, and how to see it: at small scale with what is at hand, at full with public weights."""

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
        """What there is at a scale. Raises UserError where it is nothing."""
        found, other = (self.small, "full") if scale == "small" else (self.full, "small")
        if found is None:
            raise UserError(f"{self.title}: has parts at --scale {other} only")
        return found


@dataclass(frozen=True)
class StudyFound:
    """What became of a study.

    Attributes:
        study: that was run.
        scale, change: how, as for `run_study`.
        evaluations: of its comparisons, by their names.
        attacked: judges under attack, likewise.
        masks: of generators, likewise.
        claims: and what became of them.
        agreement: how far rankings under several generators agree; None where that was not asked, or is unknown.
        validity: whether FMR predicts accuracy on real shifts; None where that was not asked.
    """

    study: Study
    scale: Scale
    change: list[str]
    evaluations: "dict[str, Evaluation]"
    attacked: "dict[str, list[AttackedJudge]]"
    masks: "dict[str, SparseMask]"
    claims: list[ClaimFound]
    agreement: "Agreement | None"
    validity: "Validity | None" = None

    @property
    def how(self) -> str:
        """The scale that it was run at, and what was changed in all recipes of splits."""
        return f"{self.scale} scale" + (f", changed: {', '.join(self.change)}" if self.change else "")

    def tables(self) -> "dict[str, Table]":
        """What no comparison tells by itself, by titles."""
        from fmrgen.apps.studies.attack_oracle_report import attacked_table
        from fmrgen.apps.studies.validity_report import validity_tables
        from fmrgen.report.orders import agreement_table, concordance_table
        from fmrgen.report.tables import mask_table

        tables = {
            f"{name}, attacked towards another class": attacked_table(judges) for name, judges in self.attacked.items()
        }
        for name, mask in self.masks.items():
            figures = mask.images, mask.sparsity, mask.test_score, int(mask.mask.sum()), mask.regularization
            tables[f"{name}, a mask of the latent"] = mask_table(*figures)
        if self.agreement is not None:
            tables["rank and FMR under each generator"] = agreement_table(self.agreement)
            tables["how far rankings agree"] = concordance_table(self.agreement)
        if self.validity is not None:
            tables |= validity_tables(self.validity)
        return tables

    def class_tables(self) -> "dict[str, Table]":
        """Each classifier on its own split by class, by titles, where the study asks for it."""
        from fmrgen.apps.studies.study_report import own_class_tables

        return {
            f"{name}, {classifier} on its own split by class": table
            for name, evaluation in self.evaluations.items()
            if self.study.by_class
            for classifier, table in own_class_tables(evaluation).items()
        }


def load_study(reference: str | Path) -> Study:
    """A study from a file or a shipped name (`paper/table-8`).

    Args:
        reference: the file or name.

    Returns:
        The study, every key known and checked.

    Raises:
        UserError: something in it is not right.
    """
    check_reference(reference, "study", STUDIES)
    return load_config(Study, reference)


def run_study(study: Study, scale: Scale, work: Work) -> StudyFound:
    """Trains, makes and evaluates what is not there yet, part after part.

    Args:
        study: what to do.
        scale: small, or full.
        work: where, with what changes, and whom to tell.

    Returns:
        What was found.

    Raises:
        UserError: there is nothing at that scale, or what the jobs raise.
    """
    from fmrgen.report.plots import family_of
    from fmrgen.results.orders import agreement

    chosen = study.at(scale)
    work = replace(work, trainings=chosen.trainings, training=chosen.training)
    evaluations, attacked, masks, agreed, valid = {}, {}, {}, None, None
    own: dict[str, dict[str, SplitFolder]] = {}
    for part in chosen.parts:
        if isinstance(part, ComparePart):
            evaluations[part.name] = part.run(work)
        elif isinstance(part, OwnPart):
            own[part.name] = part.run(work)
        elif isinstance(part, MeasurePart):
            measured, found = part, part.run(work)
        elif isinstance(part, AttackOraclePart):
            attacked[part.name] = part.run(work)
        elif isinstance(part, SparsifyPart):
            masks[part.name] = part.run(work)
        else:
            part.run(work)
    try:
        if chosen.agreement:
            agreed = agreement({name: evaluations[name] for name in chosen.agreement})
    except UserError as error:  # what was found stands
        work.on_note(f"agreement: {error}")
    if chosen.validity is not None:
        from fmrgen.apps.studies.validity import figures_of, validity

        models = [model.partition("=")[0] for model in measured.models]
        recipes = {name: model for model in models for name in names_of(model, chosen.trainings)}
        trained = {part.name: part.train for part in chosen.parts if isinstance(part, TrainPart)}
        families = {model: trained.get(model, family_of(model)) for model in models}
        valid = validity(chosen.validity, recipes, families, figures_of(chosen.validity, found, own))
    claims = [find_claim(claim, evaluations, attacked) for claim in chosen.claims]
    return StudyFound(study, scale, work.change, evaluations, attacked, masks, claims, agreed, valid)


def study_lines(study: Study, scale: Scale, work: Work) -> list[str]:
    """The notes of a study and what its parts would do. Raises UserError as `run_study` does at its start."""
    chosen = study.at(scale)
    work = replace(work, trainings=chosen.trainings, training=chosen.training)
    time = [f"takes about {chosen.minutes} minutes on two CPU cores"] if chosen.minutes else []
    return [*time, *chosen.notes, *(line for part in chosen.parts for line in part.lines(work))]
