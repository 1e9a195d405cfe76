"""The parts of a study: each is an ordinary job in a folder or file of its own, and resumes when it is run again.

Jobs are imported where they run, so that a mistake in a study is reported at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Field, Tag, field_validator

from fmrgen.apps.training.recipe import TrainRecipe, load_train_recipe
from fmrgen.config import ComponentConfig, StrictConfig
from fmrgen.distributed.rank import is_first_process
from fmrgen.engine.attacks import attack_of_short_form, radius
from fmrgen.errors import UserError
from fmrgen.recipe.job import Recipe, load_classifiers, load_recipe, parse_classifier

if TYPE_CHECKING:
    from fmrgen.apps.pilot.sparsify import SparseMask
    from fmrgen.apps.studies.attack_oracle import AttackedJudge
    from fmrgen.jobs.compare import JobProgress
    from fmrgen.progress.tqdm_bars import OnRows
    from fmrgen.results.evaluation import Evaluation

Bar = Callable[[str], AbstractContextManager[Callable[[int, int | None], None]]]

_SPEEDS = (40, 100, 300)  # TFLOP/s that a GPU really does, as in docs/results/performance.md
_HOURS_SHOWN = 48  # above, days


@dataclass(frozen=True)
class Work:
    """The folder, changes and callbacks of a study.

    Attributes:
        folder: of the study: models in `models`, each other part under its name.
        change: of all recipes but those of training, `section.key=value` each.
        bar: returns a progress callback for a named piece of work.
        training: changes of all recipes of training.
        trainings: of the models that are trained more than once, by their names.
        job_progress, on_rows, on_note: as for `compare`.
    """

    folder: Path
    change: list[str]
    bar: Bar
    training: Sequence[str] = ()
    trainings: Mapping[str, int] = field(default_factory=dict)
    job_progress: "JobProgress | None" = None
    on_rows: "OnRows | None" = None
    on_note: Callable[[str], None] = print

    def filled_in(self, text: str) -> str:
        """Return `text` with the folder for `{output}`."""
        return text.replace("{output}", str(self.folder))

    def model(self, text: str) -> str:
        """Return `NAME=…` of a model.

        A model that the study trains is given by its name alone, and stands for all its trainings.
        """
        if "=" in text:
            return self.filled_in(text)
        folders = [str(self.folder / "models" / name) for name in names_of(text, self.trainings)]
        return f"{text}={','.join(folders)}"

    def networks(self, models: Sequence[str]) -> dict[str, ComponentConfig]:
        """Return each training of models that the study trains, and others, `NAME=…`, by their names."""
        networks = {}
        for model in models:
            if "=" in model:
                name, section = parse_classifier(self.filled_in(model))
                networks[name] = section
            else:
                for name in names_of(model, self.trainings):
                    networks[name] = parse_classifier(str(self.folder / "models" / name))[1]
        return networks

    def count(self, models: Sequence[str]) -> int:
        """Return how many networks models stand for."""
        return sum(len(names_of(model, self.trainings)) for model in models)

    def recipe(self, reference: str, change: list[str]) -> Recipe:
        """Return a recipe with the part's changes, followed by those of all parts."""
        return load_recipe(reference, [*map(self.filled_in, change), *self.change])


def model_names(models: Sequence[str]) -> list[str]:
    """Return the names of models, which are given as NAME or `NAME=…`."""
    return [model.partition("=")[0] for model in models]


def names_of(model: str, trainings: Mapping[str, int]) -> list[str]:
    """Return the networks that a model's name stands for: of three trainings `NAME-1`, `NAME-2` and `NAME-3`."""
    count = trainings.get(model, 1)
    if count == 1:
        return [model]
    return [f"{model}-{number}" for number in range(1, count + 1)]


class StudyPart(StrictConfig, ABC):
    """A part of a study. In changes and models, `{output}` stands for the study's folder.

    A claim can be of its `judges` and their `metrics`.
    """

    name: str = Field(pattern=r"^[\w-]+$")
    change: list[str] = Field([], description="section.key=value each")

    @property
    def judges(self) -> list[str]:
        return []

    @property
    def metrics(self) -> tuple[str, ...]:
        return ()

    @abstractmethod
    def run(self, work: Work) -> Any:
        """Do what is not done yet, and return the results. Raises UserError, as the job does."""

    @abstractmethod
    def lines(self, work: Work) -> list[str]:
        """Return what it would do, a line each."""


class TrainPart(StudyPart):
    """A model to train: a recipe of training, some of it changed.

    Several `trainings` have seeds one after another; `{training}` stands for the number of each, from 1, in changes.
    """

    train: str
    trainings: int = Field(1, ge=1)

    def run(self, work: Work) -> None:
        from fmrgen.apps.training.loop import train

        for number, name in enumerate(names_of(self.name, {self.name: self.trainings}), 1):
            with work.bar(f"train {name}") as on_step:
                train(
                    self._recipe(work, number),
                    work.folder / "models" / name,
                    partial(_report_step, on_step),
                    on_note=_notes_of_first_process(work),
                )

    def lines(self, work: Work) -> list[str]:
        schedule = self._recipe(work, 1).schedule
        times = f", {self.trainings} times" if self.trainings > 1 else ""
        return [f"train {self.name}: {self.train}, {schedule.steps:,} steps of {schedule.batch_size} images{times}"]

    def _recipe(self, work: Work, number: int) -> TrainRecipe:
        changes = []
        for text in (*work.training, *self.change):
            changes.append(work.filled_in(text).replace("{training}", str(number)))
        recipe = load_train_recipe(self.train, changes)
        seed = recipe.schedule.seed + number - 1
        return recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"seed": seed})})


def _report_step(on_step: Callable[[int, int | None], None], step: int, steps: int, loss: float) -> None:
    on_step(step, steps)


def _notes_of_first_process(work: Work) -> Callable[[str], None]:
    if is_first_process():
        return work.on_note
    return lambda line: None


class Cost(StrictConfig):
    """The cost of one image at full size, in GFLOP, for an estimate before anything is downloaded."""

    images: int = Field(gt=0, description="of the source")
    one_pass: float = Field(gt=0, description="decode, classify, backward and judge")
    encode: float = Field(0.0, ge=0, description="once for each split")
    kept_encode: float = Field(0.0, ge=0, description="once for all splits, because latents are kept")

    def line(self, splits: int, budget: int) -> str:
        """Return the arithmetic of docs/results/performance.md, in one line."""
        passes = budget + 1
        terms = f"{splits} splits × ({passes} passes × {self.one_pass:,g} + {self.encode:,g})"
        if self.kept_encode:
            terms += f" + {self.kept_encode:,g}"
        gflop_per_image = splits * (passes * self.one_pass + self.encode) + self.kept_encode
        exa = self.images * gflop_per_image / 1e9
        times = []
        for speed in _SPEEDS:
            hours = exa * 1e6 / speed / 3600
            times.append(f"{_duration(hours)} at {speed} TFLOP/s")
        return f"  at most {self.images:,} images × ({terms}) GFLOP = {exa:,.3g} EFLOP: {', '.join(times)}"


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{60 * hours:.0f} min"
    if hours <= _HOURS_SHOWN:
        return f"{hours:.1f} h"
    return f"{hours / 24:.1f} days"


class ComparePart(StudyPart):
    """A split for each model, and all models on all splits: a recipe, some of it changed.

    `models` are those trained before, by their names, and others as `NAME=…` in short form.
    """

    compare: str
    models: list[str] = Field(min_length=1)
    attack: str | None = None
    cost: Cost | None = None

    @field_validator("attack")
    @classmethod
    def _is_attack(cls, attack: str | None) -> str | None:
        if attack is not None:
            _validate(attack_of_short_form, attack)
        return attack

    @property
    def judges(self) -> list[str]:
        return model_names(self.models)

    @property
    def metrics(self) -> tuple[str, ...]:
        metrics = ("fmr", "perturbed_accuracy", "standard_accuracy", "validation_rate")
        if self.attack is None:
            return metrics
        return (*metrics, "attacked_accuracy")

    def run(self, work: Work) -> "Evaluation":
        from fmrgen.jobs.compare import compare

        return compare(
            work.recipe(self.compare, self.change),
            load_classifiers([*map(work.model, self.models)]),
            work.folder / self.name,
            attack=self.attack,
            job_progress=work.job_progress,
            on_rows=work.on_rows,
            on_note=_notes_of_first_process(work),
        )

    def lines(self, work: Work) -> list[str]:
        recipe = work.recipe(self.compare, self.change)
        first, *others = _lines_of_splits(f"compare {self.name}: {self.compare}", self, recipe, work)
        return [f"{first}: {', '.join(self.models)}", *others]


class SparsifyPart(StudyPart):
    """A mask of a generator (App. I), in `NAME.safetensors`."""

    sparsify: str
    regularization: float | None = Field(None, gt=0)

    def run(self, work: Work) -> "SparseMask":
        from fmrgen.apps.pilot.sparsify import read_mask, sparsify

        recipe = work.recipe(self.sparsify, self.change)
        path = work.folder / f"{self.name}.safetensors"
        if path.exists():
            return read_mask(path, recipe)
        work.folder.mkdir(parents=True, exist_ok=True)
        with work.bar(f"sparsify {self.name}") as on_images:
            return sparsify(recipe, path, regularization=self.regularization, on_images=on_images)

    def lines(self, work: Work) -> list[str]:
        recipe = work.recipe(self.sparsify, self.change)
        return [f"sparsify {self.name}: {self.sparsify}, from {_images_of(recipe)}", *_places(recipe)]


class AttackOraclePart(StudyPart):
    """The oracle of a recipe under a targeted attack (App. L), beside classifiers; `models` as of comparisons."""

    attack_oracle: str
    models: list[str] = Field([], description="classifiers to attack too")
    epsilon: str = "8/255"
    steps: int = Field(20, ge=1)

    @field_validator("epsilon")
    @classmethod
    def _is_radius(cls, epsilon: str) -> str:
        _validate(radius, epsilon)
        return epsilon

    @property
    def judges(self) -> list[str]:
        return ["oracle", *model_names(self.models)]

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("attacked_accuracy", "standard_accuracy")

    def run(self, work: Work) -> "list[AttackedJudge]":
        from fmrgen.apps.studies.attack_oracle import attack_oracle

        named = load_classifiers([*map(work.model, self.models)]) if self.models else {}
        recipe = work.recipe(self.attack_oracle, self.change)
        with work.bar(f"attack {self.name}") as on_images:
            return attack_oracle(recipe, named, [radius(self.epsilon)], steps=self.steps, on_images=on_images)

    def lines(self, work: Work) -> list[str]:
        recipe = work.recipe(self.attack_oracle, self.change)
        attack = f"{_images_of(recipe)}, {self.steps} steps to {self.epsilon}"
        judges = ", ".join(self.judges)
        return [f"attack-oracle {self.name}: {self.attack_oracle}, {attack}: {judges}", *_places(recipe)]


def _validate(parse: Callable[[str], Any], text: str) -> None:
    """Raise ValueError, as pydantic wants it, where `parse` raises UserError."""
    try:
        parse(text)
    except UserError as error:
        raise ValueError(str(error)) from None


def _images_of(recipe: Recipe) -> str:
    limit = getattr(recipe.source, "limit", None)
    if limit is None:
        return "all images of its source"
    return f"{limit:,} images"


def _lines_of_splits(head: str, part: "ComparePart", recipe: Recipe, work: Work) -> list[str]:
    splits = work.count(part.models)
    lines = [f"{head}, {splits} splits of {_images_of(recipe)}", *_places(recipe)]
    if part.cost is not None:
        lines.append(part.cost.line(splits, recipe.perturb.budget))
    return lines


def _places(recipe: Recipe) -> list[str]:
    """Return where source, generator and oracle come from, a line each."""
    lines = []
    for name, section in {"source": recipe.source, "generator": recipe.generator, "oracle": recipe.oracle}.items():
        places = []
        for key in ("path", "model", "checkpoint"):
            place = getattr(section, key, None)
            if place is not None and not str(place).startswith("asset:"):
                places.append(str(place))
        if places:
            lines.append(f"  {name}: {section.kind} of {', '.join(places)}")
    return lines


_KINDS = {
    "train": TrainPart,
    "compare": ComparePart,
    "sparsify": SparsifyPart,
    "attack_oracle": AttackOraclePart,
}


def _kind_of(part: object) -> str:
    """Return the kind of a part, which is one of its keys; "compare" if there is none, whose error is understood."""
    keys = part if isinstance(part, dict) else getattr(part, "__dict__", {})
    for kind in _KINDS:
        if kind in keys:
            return kind
    return "compare"


Part = Annotated[
    Annotated[TrainPart, Tag("train")]
    | Annotated[ComparePart, Tag("compare")]
    | Annotated[SparsifyPart, Tag("sparsify")]
    | Annotated[AttackOraclePart, Tag("attack_oracle")],
    Discriminator(_kind_of),
]
