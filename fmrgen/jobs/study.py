"""A table of the paper as a study: models to train or load, splits to make, and what is claimed of them.

Each part is the ordinary job in an ordinary folder, so a study that was killed goes on when it is run again.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from fmrgen.config import StrictConfig
from fmrgen.distributed.rank import is_first_process
from fmrgen.engine.attacks import attack_of_short_form
from fmrgen.errors import UserError
from fmrgen.evaluation.claims import Claim, ClaimFound, find_claim, part_and_models
from fmrgen.jobs.bars import OnRows
from fmrgen.jobs.compare import JobProgress, compare
from fmrgen.jobs.evaluation import Evaluation
from fmrgen.recipe import load_classifiers, load_config, load_recipe
from fmrgen.training.loop import train
from fmrgen.training.recipe import load_train_recipe

Scale = Literal["small", "full"]


class TrainPart(StrictConfig):
    """A model to train: a recipe of training, some of it changed."""

    train: str
    name: str = Field(pattern=r"^[\w-]+$")
    change: list[str] = Field([], description="section.key=value each")


class ComparePart(StrictConfig):
    """A split for each model, and all models on all splits: a recipe, some of it changed.

    `models` are those trained before, by their names, and others as `NAME=…` in short form.
    """

    compare: str
    name: str = Field(pattern=r"^[\w-]+$")
    change: list[str] = Field([], description="section.key=value each")
    models: list[str] = Field(min_length=2)
    attack: str | None = None

    @field_validator("attack")
    @classmethod
    def _is_attack(cls, attack: str | None) -> str | None:
        try:
            return attack if attack is None or attack_of_short_form(attack) else None
        except UserError as error:
            raise ValueError(str(error)) from None


def _kind_of(part: object) -> str:
    """A part is what its first key says."""
    told = part if isinstance(part, dict) else vars(part)
    return "train" if "train" in told else "compare"


Part = Annotated[
    Annotated[TrainPart, Tag("train")] | Annotated[ComparePart, Tag("compare")],
    Discriminator(_kind_of),
]


class Study(StrictConfig):
    """What the paper reports, and how to see it: at small scale with what is at hand, at full with public weights.

    In changes, `{output}` stands for the study's folder.
    """

    title: str
    paper: str = Field(description="what the paper's table says, in Markdown")
    small: list[Part] = Field(min_length=1)
    full: list[Part] = Field([], description="parts with public weights")
    claims: list[Claim] = Field([], description="of the figures of its parts")

    @model_validator(mode="after")
    def _claims_are_of_parts(self) -> "Study":
        for parts in filter(None, (self.small, self.full)):
            known = {part.name: part for part in parts if isinstance(part, ComparePart)}
            for claim in self.claims:
                for figure in (claim.higher, claim.lower):
                    part, models = part_and_models(figure)
                    if part not in known:
                        raise ValueError(f"claims: {figure}: no part compares as {part}")
                    if claim.metric == "attacked_accuracy" and known[part].attack is None:
                        raise ValueError(f"claims: {figure}: {part} has no attack")
                    names = [_name_of(model) for model in known[part].models]
                    if unknown := [model for model in models if model not in names]:
                        raise ValueError(f"claims: {figure}: {part} has no model {unknown[0]}")
        return self


@dataclass(frozen=True)
class StudyFound:
    """The evaluations of a study by their parts, and its claims."""

    study: Study
    evaluations: dict[str, Evaluation]
    claims: list[ClaimFound]


def load_study(reference: str | Path) -> Study:
    """A study from a file or a shipped name (`paper/table-8`).

    Args:
        reference: the file or name.

    Returns:
        The study, every key known and checked.

    Raises:
        UserError: something in it is not right.
    """
    return load_config(Study, reference)


def parts_of(study: Study, scale: Scale) -> Sequence[TrainPart | ComparePart]:
    """The parts at a scale. Raises UserError where there are none."""
    parts = study.small if scale == "small" else study.full
    if not parts:
        raise UserError(f"{study.title}: has parts at --scale {'full' if scale == 'small' else 'small'} only")
    return parts


def run_study(
    study: Study,
    output: str | Path,
    *,
    scale: Scale = "small",
    change: Sequence[str] = (),
    on_train: Callable[[str], AbstractContextManager[Callable[[int, int, float], None]]],
    job_progress: JobProgress | None = None,
    on_rows: OnRows | None = None,
    on_note: Callable[[str], None] = print,
) -> StudyFound:
    """Trains, makes and evaluates what is not there yet, part after part.

    Args:
        study: what to do.
        output: its folder: models in `models`, a dataset folder for each comparison.
        scale: small, or full.
        change: of all recipes of comparisons, `section.key=value` each.
        on_train: makes, for a model's name, what is told how far its training is.
        job_progress, on_rows, on_note: as for `compare`.

    Returns:
        The evaluations and the claims.

    Raises:
        UserError: what the jobs raise.
    """
    folder = Path(output)
    evaluations: dict[str, Evaluation] = {}
    for part in parts_of(study, scale):
        told = [text.replace("{output}", str(folder)) for text in part.change]
        if isinstance(part, TrainPart):
            with on_train(part.name) as progress:
                train(load_train_recipe(part.train, told), folder / "models" / part.name, progress)
            continue
        models = [model if "=" in model else f"{model}={folder / 'models' / model}" for model in part.models]
        evaluations[part.name] = compare(
            load_recipe(part.compare, [*told, *change]),
            load_classifiers(models),
            folder / part.name,
            attack=part.attack,
            job_progress=job_progress,
            on_rows=on_rows,
            on_note=on_note if is_first_process() else lambda line: None,
        )
    return StudyFound(study, evaluations, [find_claim(claim, evaluations) for claim in study.claims])


def _name_of(model: str) -> str:
    return model.partition("=")[0]


def part_lines(parts: Sequence[TrainPart | ComparePart], change: Sequence[str]) -> list[str]:
    """What each part would do, and what it would download."""
    lines = []
    for part in parts:
        if isinstance(part, TrainPart):
            changes = [text.replace("{output}", "out") for text in part.change]
            schedule = load_train_recipe(part.train, changes).schedule
            lines.append(f"train {part.name}: {part.train}, {schedule.steps:,} steps of {schedule.batch_size} images")
            continue
        recipe = load_recipe(part.compare, [*(text.replace("{output}", "out") for text in part.change), *change])
        limit = getattr(recipe.source, "limit", None)
        images = "all images of its source" if limit is None else f"{limit:,} images"
        models = ", ".join(part.models)
        lines.append(f"compare {part.name}: {part.compare}, {len(part.models)} splits of {images}: {models}")
        sections = {"source": recipe.source, "generator": recipe.generator, "oracle": recipe.oracle}
        for name, section in sections.items():
            told = [getattr(section, key, None) for key in ("path", "model", "checkpoint")]
            if named := [str(place) for place in told if place is not None and not str(place).startswith("asset:")]:
                lines.append(f"  {name}: {section.kind} of {', '.join(named)}")
    return lines
