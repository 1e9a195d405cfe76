"""The provenance of a split: what made it, parsed once when it is read, and whether a job may continue the split."""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import uuid4

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from fmrgen.config import NOT_FINGERPRINTED
from fmrgen.engine.options import ALONG_GRADIENT, attack_name
from fmrgen.errors import UserError, option
from fmrgen.files import check_inside, fingerprint, read_json
from fmrgen.image_files import LARGEST_SIDE
from fmrgen.labels import Labels
from fmrgen.records import ROWS_VERSION
from fmrgen.storage.paths import SHARD_FILE, SplitPaths, rows_of_a_shard, splits_in

if TYPE_CHECKING:
    from fmrgen.metrics.gradients import JudgedSteps
    from fmrgen.storage.schema import Schema

NEW_WEIGHTS = "each training without a fixed seed gives others: load those that generated the split"
SCHEMA = f"fmrgen-provenance/{ROWS_VERSION}"
_VERSIONS = ("fmrgen", "torch", "transformers", "diffusers", "timm", "datasets", "accelerate")


class _Recorded(BaseModel):
    """A part of a provenance. Keys of other versions, which are not fields, are kept as they are."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, protected_namespaces=())

    @property
    def tree(self) -> dict[str, Any]:
        """It as a recipe, or a file, has it."""
        return self.model_dump(mode="json", by_alias=True)


class RecordedComponent(_Recorded):
    """The section of a component of any kind; its other keys are in `tree`."""

    kind: str

    def get(self, key: str) -> Any:
        """Return the value of a key; None if it is absent."""
        return (self.model_extra or {}).get(key)


class RecordedAttack(_Recorded):
    """An attack of several."""

    update: str
    objective: str = "margin"
    target: int | str = "runner_up"
    step: float = 1.0
    noise: float = 0.0

    @property
    def name(self) -> str:
        """What distinguishes it, in a few words."""
        return attack_name(self.update, self.objective, self.target, self.step, self.noise)


class RecordedPerturb(_Recorded):
    """The `perturb` section."""

    budget: int
    step_size: float
    update: str
    reencode: bool = False
    oracle_rule: str
    min_probability: float = 0.0
    keep: str = "last"
    min_margin: float = 0.0
    start_noise: float = 0.0
    seed: int = 0
    objective: str = "margin"
    attacks: Literal["one"] | Annotated[list[RecordedAttack], Field(min_length=2)] = "one"

    @property
    def all_attacks(self) -> list[RecordedAttack]:
        """The attacks that an image goes through, one or several."""
        if self.attacks == "one":
            return [RecordedAttack(update=self.update, objective=self.objective, noise=self.start_noise)]
        return self.attacks


class RecordedOutput(_Recorded):
    """The `output` section, which determines the shards."""

    config: str = ""
    split: str = ""
    shard_size: PositiveInt | Literal["auto"]
    keep_original: bool


class RecordedRecipe(_Recorded):
    """The recipe of a split. It may be a stranger's: only `trust.recipes` makes components of it."""

    description: str = ""
    source: RecordedComponent
    classifier: RecordedComponent
    generator: RecordedComponent
    oracle: RecordedComponent
    perturb: RecordedPerturb
    output: RecordedOutput


class RecordedWeights(_Recorded):
    """The sha256 of the weights of each model; None for one without weights."""

    classifier: str | None
    generator: str | None
    oracle: str | None


class Run(_Recorded):
    """A run of one process, which `job` names. Fields that a killed run could not write are None."""

    started: str
    job: str | None = None
    processes: int | None = None
    device: str | None = None
    versions: dict[str, str] | None = None
    finished: str | None = None
    seconds: float | None = None
    images: int | None = None
    slots: int | None = None

    @model_serializer(mode="wrap")
    def _without_gaps(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialise(self).items() if value is not None}


class Kinship(_Recorded):
    """How closely classifier and oracle are related, measured when the split was begun.

    `weights` is the share of one's weights that the other has too. `likeness` is the lower end of the interval of the
    correlation of their probabilities of the wrong classes; None if there are too few originals.
    """

    weights: Annotated[float, Field(ge=0, le=1)]
    likeness: Annotated[float, Field(ge=-1, le=1)] | None = None


class Skipped(_Recorded):
    """An example that has no row, because its image could not be read."""

    id: int
    reason: str


# A provenance must not lead a reader out of its folder.
_ShardFile = Annotated[str, Field(pattern=rf"^{SHARD_FILE}$")]
_ColumnName = Annotated[str, Field(pattern=r"^[A-Za-z]\w{0,63}$")]


def _is_absent(value: object) -> bool:
    return value in (None, {})


class Provenance(_Recorded):
    """The provenance of a split.

    Attributes:
        schema_version: `fmrgen-provenance/4`.
        fingerprint: 16 hex digits over all of the recipe that can change a row.
        finished: the flag in the file; readers use `is_finished`.
        groups: the source's classes behind each label, if the recipe groups them.
        source_classes: how many classes the source has, if it knows.
        source_names: the names of the source's classes, if the recipe groups them.
        examples: how many the source has; rows and skipped ids together.
        image_size: side in pixels.
        score_column: `clip_score`, or `oracle_score` if the oracle is no image-text model.
        oracle_sha256: digests that the oracle's weights, or those of its members, may have in other files.
        judges: the members of the oracle, if that is a panel whose verdicts are in the rows.
        accepts_several: whether each row has all labels that are true of it.
        source_columns: columns that the source has beside images and labels, and their types.
        models_read: of the files and the Hub's commits that the models were loaded from, 16 hex digits; None if files
            can't tell, as for code of others.
        code_sha256: of the files of modules that the recipe names, by the modules.
        kinship: of classifier and oracle; None if nobody looked.
        slope: of the classifier along its gradient, as a share of what that says, on the stored images nearest its
            boundary; None if nobody looked.
        skipped: examples without a row.
        files: sha256 of the shards by their paths in the folder; if the split is unfinished, those from when it was
            last finished, or of a part that is whole.
        num_bytes: of the uncompressed columns.
        download_size: of the files, in bytes.
        summary: the figures that were known to the version which finished the split.
    """

    schema_version: Annotated[str, Field(alias="schema", pattern=f"^{SCHEMA}$")]
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    finished: bool = False
    recipe: RecordedRecipe
    labels: Sequence[str]
    groups: Sequence[Sequence[int]] | None
    source_classes: int | None
    source_names: Sequence[str] | None = None
    examples: PositiveInt
    image_size: Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
    score_column: Annotated[str, Field(pattern="^(clip|oracle)_score$")] = "clip_score"
    weights_sha256: RecordedWeights
    oracle_sha256: Sequence[str] = ()
    judges: Sequence[str] = ()
    accepts_several: bool = False
    source_columns: dict[_ColumnName, Literal["int64", "float64", "string"]] = Field(
        {}, max_length=100, exclude_if=_is_absent
    )
    models_read: str | None = None
    code_sha256: dict[str, str] = {}
    kinship: Kinship | None = Field(None, exclude_if=_is_absent)
    slope: float | None = Field(None, exclude_if=_is_absent)
    skipped: Sequence[Skipped] = ()
    runs: Sequence[Run]
    files: dict[_ShardFile, str] = {}
    num_bytes: int = 0
    download_size: int = 0
    summary: dict[str, Any] = {}

    @field_validator("labels")
    @classmethod
    def _differ(cls, labels: Sequence[str]) -> Sequence[str]:
        if len(set(labels)) < len(labels):
            raise ValueError("two labels are the same")
        return labels

    @property
    def shard_count(self) -> int:
        """The number of shards of the finished split."""
        return -(-self.examples // rows_of_a_shard(self.recipe.output.shard_size, self.examples))

    @property
    def is_finished(self) -> bool:
        """Whether every shard has a file, and all of them were checked."""
        return self.finished and len(self.files) == self.shard_count

    @property
    def rows(self) -> int:
        return self.examples - len(self.skipped)

    @property
    def job_labels(self) -> Labels:
        """The labels of the job."""
        groups = None if self.groups is None else tuple(map(tuple, self.groups))
        source_names = None if self.source_names is None else tuple(self.source_names)
        return Labels(tuple(self.labels), groups, self.source_classes, source_names)

    @property
    def row_schema(self) -> "Schema":
        """The columns of the split."""
        from fmrgen.storage.schema import Schema  # brings `datasets`, which a look at a folder does not need

        return Schema(
            tuple(self.labels),
            keep_original=self.recipe.output.keep_original,
            score_column=self.score_column,
            judges=tuple(self.judges),
            accepts_several=self.accepts_several,
            attacks=len(self.recipe.perturb.all_attacks),
            source_columns=self.source_columns,
        )

    @property
    def judged_steps(self) -> "JudgedSteps":
        """Which of its steps show whether its classifier's gradient is masked."""
        from fmrgen.metrics.gradients import judged_steps  # brings scipy, which a look at a folder does not need

        first = self.recipe.perturb.all_attacks[0]
        return judged_steps(
            is_guided=first.update in ALONG_GRADIENT and not first.noise,
            reencodes=self.recipe.perturb.reencode,
            objective=first.objective,
            generator=self.recipe.generator.kind,
        )

    @property
    def files_digest(self) -> str:
        """16 hex digits over the digests of the files."""
        return fingerprint(self.files)

    @property
    def encoded(self) -> bytes:
        """The content of its file."""
        return json.dumps(self.tree, indent=2, ensure_ascii=False).encode() + b"\n"


class FormatError(UserError):
    """A split has the format of another version of fmrgen."""


def parse_provenance(tree: Mapping[str, Any], where: str) -> Provenance | None:
    """Return the provenance in a JSON mapping; None if it is not one, since anyone may have put it on the Hub.

    Raises UserError, which starts with `where`, if another version of fmrgen wrote it in another format.
    """
    schema = str(tree.get("schema"))
    if schema != SCHEMA and schema.startswith("fmrgen-provenance/"):
        raise FormatError(f"{where} has the format {schema}, this fmrgen {SCHEMA}: use the version that generated it")
    try:
        return Provenance.model_validate(tree)
    except ValidationError:
        return None


def read_provenance(paths: SplitPaths) -> Provenance:
    """Return the provenance of a split; of an unfinished one with the runs so far.

    Raises UserError if it is missing, can't be read, or lies behind a link.
    """
    check_inside(paths.provenance, paths.root)
    path = paths.provenance
    if path.is_file() or not paths.begun.is_file():
        tree = read_json(path)
    else:
        path, tree = paths.begun, _tree_on_record(paths)
    provenance = parse_provenance(tree, f"{paths.root}:{paths.name}")
    if provenance is None:
        raise UserError(f"{path}: is not a provenance of fmrgen; delete it, or choose another folder")
    return provenance


def _tree_on_record(paths: SplitPaths) -> dict[str, Any]:
    """Return the beginning of an unfinished split, with what was put on record since: runs, and what they measured."""
    check_inside(paths.begun, paths.root)
    tree, runs = read_json(paths.begun), dict[str, Any]()
    for name in paths.records_among(os.listdir(paths.begun.parent)):
        path = paths.begun.with_name(name)
        if path != paths.begun:
            check_inside(path, paths.root)
            recorded = read_json(path)
            recorded_runs = recorded.pop("runs", {})  # by name; one that has ended replaces itself
            if not isinstance(recorded_runs, dict):
                raise UserError(f"{path}: is not a record of fmrgen; delete it")
            runs |= recorded_runs
            tree |= recorded
    if isinstance(tree.get("runs"), list):
        tree["runs"] += runs.values()
    return tree | {"finished": False}


def read_all(root: Path) -> dict[tuple[str, str], Provenance]:
    """Return the provenance of every split in `root`, finished or not, by config and split; others' files are left
    out.

    Raises UserError if a split has another version's format.
    """
    provenances = {}
    for paths in splits_in(root):
        try:
            provenances[paths.config, paths.split] = read_provenance(paths)
        except FormatError:
            raise
        except UserError:
            continue
    return provenances


def check_same_job(where: str, earlier: Provenance, fresh: Provenance, cure: str) -> None:
    """Raise UserError if a split was not begun by the job that is to continue it, whose provenance is `fresh`.

    The message starts with `where` and ends with `cure`.
    """
    if earlier.fingerprint != fresh.fingerprint:
        raise UserError(f"{where} was generated by another recipe: {_difference(earlier, fresh)}; {cure}")
    for name in ("labels", "groups"):
        if getattr(earlier, name) != getattr(fresh, name):
            raise UserError(f"{where} was started with other {name}; {cure}")
    for name, digest in fresh.weights_sha256:
        if getattr(earlier.weights_sha256, name) != digest:
            raise UserError(f"{where} was started with other {name} weights; put them back, or {cure}")
    if earlier.examples != fresh.examples:
        raise UserError(f"{where} was started on {earlier.examples} examples, not {fresh.examples}; {cure}")


def _difference(earlier: Provenance, fresh: Provenance) -> str:
    """Return the first key in which two recipes differ, as `section.key was A, is B`."""
    old, new = _leaves(earlier.recipe.tree), _leaves(fresh.recipe.tree)
    for key in dict.fromkeys((*old, *new)):
        section = key.partition(".")[0]
        if key in old and key in new and old[key] != new[key]:
            if key.endswith(".weights_sha256"):
                return f"its {section} had other weights ({NEW_WEIGHTS})"
            if key.endswith(".state"):
                return f"its {section} had different attributes or code (such as a setting, a mean or a function)"
        if key not in NOT_FINGERPRINTED and old.get(key) != new.get(key):
            return f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
    return f"fingerprint {earlier.fingerprint}, not {fresh.fingerprint}"


def _leaves(tree: Any, *keys: str) -> dict[str, Any]:
    """Return the values in a tree by their paths, as `section.key`."""
    if not isinstance(tree, dict) or not tree:
        return {".".join(keys): tree}
    leaves = {}
    for key, value in tree.items():
        leaves.update(_leaves(value, *keys, str(key)))
    return leaves


def provenance_to_continue(paths: SplitPaths, fresh: Provenance, begun: bool) -> Provenance:
    """Return the provenance to continue with: the folder's if this very recipe has begun the split, else the new one.

    `fresh` is the job's; `begun` says whether the folder has shards of the split. Raises UserError if another job's
    split is in its place.
    """
    where, another = f"{paths.root}:{paths.name}", option("output")
    provenance = fresh
    if begun:  # else a run has stored nothing yet, and its provenance does not count
        if not paths.is_on_record:
            raise UserError(f"{where} contains shards but no provenance file; delete them or choose another {another}")
        provenance = read_provenance(paths)
        check_same_job(where, provenance, fresh, f"choose another {another} or {option('output.split')}, or delete it")
    check_config(paths, provenance, str(paths.root))
    return provenance


def check_config(paths: SplitPaths, provenance: Provenance, where: str) -> None:
    """Raise UserError if a split does not fit to the other splits of its config; the message starts with `where`."""
    for (config, split), other in read_all(paths.root).items():
        if config != paths.config or split == paths.split:
            continue
        if other.recipe.output.keep_original != provenance.recipe.output.keep_original:
            raise UserError(
                f"{where}: config {config} has another output.keep_original in its split {split}; "
                "the splits of a config have the same columns"
            )
        for section in ("source", "generator", "oracle"):
            difference = _section_difference(other, provenance, section)
            if difference is not None:
                raise UserError(
                    f"{where}: config {config} has another {difference} in its split {split}; "
                    f"a config is one source, generator and oracle: choose another {option('output.config')}"
                )
        if (other.recipe.perturb.attacks == "one") != (provenance.recipe.perturb.attacks == "one"):
            raise UserError(
                f"{where}: {config}/{paths.split} would have other columns than {config}/{split} (attack, attacks); "
                f"the splits of a config have the same columns: choose another {option('output.config')}"
            )


def _section_difference(theirs: Provenance, ours: Provenance, section: str) -> str | None:
    """Return the name of what makes a section differ between two splits; None if they may share a config."""
    their_config, our_config = _config_of(theirs, section), _config_of(ours, section)
    for key in {**their_config, **our_config}:
        if their_config.get(key) != our_config.get(key):
            return f"{section}.{key}"
    if section == "source":
        return None if theirs.labels == ours.labels else "labels of its source"
    return None if getattr(theirs.weights_sha256, section) == getattr(ours.weights_sha256, section) else section


def _config_of(provenance: Provenance, section: str) -> dict[str, Any]:
    """Return the keys of a section that are the same in all splits of a config."""
    tree = getattr(provenance.recipe, section).tree
    return {key: value for key, value in tree.items() if key not in ("on_error", "license")}


def new_run(device: str) -> Run:
    """Return the record of a process that begins now."""
    versions = {name: version(name) for name in _VERSIONS}
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return Run(started=now(), job=uuid4().hex, processes=processes, device=device, versions=versions)


def now() -> str:
    """Return the time, in UTC and whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
