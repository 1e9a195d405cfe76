"""Where a split comes from: what made it, parsed once at the border, and whether a job may go on with it."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from fmrgen.config import NOT_FINGERPRINTED, without_later_defaults
from fmrgen.engine.options import ALONG_GRADIENT
from fmrgen.errors import UserError, option
from fmrgen.files import check_inside, fingerprint, read_json, write_atomically
from fmrgen.image_files import LARGEST_SIDE
from fmrgen.labels import Labels
from fmrgen.records import ROWS_VERSION
from fmrgen.storage.paths import SHARD_FILE, SplitPaths, rows_of_a_shard, splits_in

if TYPE_CHECKING:
    from fmrgen.storage.schema import Schema

_SCHEMA = "fmrgen-provenance/"  # and the version; a provenance that names none is of fmrgen 0.1.0
NEW_WEIGHTS = "each training without a fixed seed gives others: load those that made the split"
NEW_STATE = "such as a setting, a mean or a function; list attributes that it computes itself in its `derived`"
SCHEMA = f"{_SCHEMA}{ROWS_VERSION}"
_VERSIONS = ("fmrgen", "torch", "transformers", "diffusers", "timm", "datasets", "accelerate")


class _Recorded(BaseModel):
    """A part of a provenance. Readers take what is named here; what other versions say besides is kept as it is."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, protected_namespaces=())


class RecordedComponent(_Recorded):
    """The section of a component, whatever its kind; its other keys are in `tree`."""

    kind: str

    @property
    def tree(self) -> dict[str, Any]:
        """The section as a recipe has it."""
        return self.model_dump(mode="json")

    def get(self, key: str) -> Any:
        """The value of a key, None where it has none."""
        return (self.model_extra or {}).get(key)


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

    @property
    def is_guided(self) -> bool:
        """Whether the first step is along the gradient, and nothing else."""
        return self.update in ALONG_GRADIENT and not self.start_noise


class RecordedOutput(_Recorded):
    """The `output` section: what the plan of the shards follows from."""

    config: str = ""
    split: str = ""
    shard_size: PositiveInt | Literal["auto"]
    keep_original: bool


class RecordedRecipe(_Recorded):
    """The recipe of a split. It may be a stranger's: `trust.recipes` alone makes components of it."""

    description: str = ""
    source: RecordedComponent
    classifier: RecordedComponent
    generator: RecordedComponent
    oracle: RecordedComponent
    perturb: RecordedPerturb
    output: RecordedOutput

    @property
    def tree(self) -> dict[str, Any]:
        """The recipe as YAML or JSON has it."""
        return self.model_dump(mode="json")


class RecordedWeights(_Recorded):
    """The sha256 of the weights of each model; None for one without weights."""

    classifier: str | None
    generator: str | None
    oracle: str | None


class Run(_Recorded):
    """A run of one process, which `job` names. What a run that was killed did not tell is None."""

    started: str
    job: str | None = None
    processes: int | None = None
    device: str | None = None
    versions: dict[str, str] | None = None
    finished: str | None = None
    seconds: float | None = None
    images: int | None = None
    slots: int | None = None

    @property
    def id(self) -> tuple[str | None, str]:
        """Tells runs apart."""
        return self.job, self.started


class Kinship(_Recorded):
    """How near classifier and oracle are, as was seen when the split was begun.

    `weights` is the share of one's weights that lie in the other, from 0 to 1; `answers` the lower end of the
    correlation of what they say of the wrong classes, None where too few originals tell.
    """

    weights: Annotated[float, Field(ge=0, le=1)]
    answers: Annotated[float, Field(ge=-1, le=1)] | None = None


class Skipped(_Recorded):
    """An example that has no row, because its image could not be read."""

    id: int
    reason: str


# Nobody's provenance leads a reader out of the folder that it lies in.
_ShardFile = Annotated[str, Field(pattern=rf"^{SHARD_FILE}$")]


class Provenance(_Recorded):
    """All that is known of a split.

    Attributes:
        schema_version: `fmrgen-provenance/4`; None of fmrgen 0.1.0, which names none.
        fingerprint: 16 hex digits over all of the recipe that can change a row.
        finished: what the file says; `is_finished` is what readers go by.
        groups: the source's classes behind each label, where it groups them.
        source_classes: how many classes the source has, where it knows.
        source_names: what they are called, where it groups them.
        examples: of the source; rows and skipped ids together.
        image_size: side in pixels.
        score_column: `clip_score`, or `oracle_score` where the oracle is no image-text model.
        oracle_sha256: digests that the oracle's weights, or those of its members, may have in other files.
        judges: the members of the oracle, where that is a panel whose verdicts are in the rows.
        accepts_several: whether rows say which labels are true of them.
        code_sha256: of the files of modules that the recipe names, by the modules.
        kinship: of classifier and oracle; None where nobody looked.
        skipped: examples without a row.
        files: sha256 of the shards by their paths in the folder; if unfinished, of an earlier end or of a whole part.
        num_bytes, download_size: of the columns unpacked, and of the files.
        summary: the figures that the version which finished the split knew.
    """

    schema_version: Annotated[str | None, Field(alias="schema", pattern=rf"^{_SCHEMA}\d+$")] = None
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
    code_sha256: dict[str, str] = {}
    kinship: Kinship | None = None
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
        """Of how many shards the split consists."""
        return -(-self.examples // rows_of_a_shard(self.recipe.output.shard_size, self.examples))

    @property
    def is_finished(self) -> bool:
        """Whether there is a file for every shard, and all of them were checked."""
        return self.finished and len(self.files) == self.shard_count

    @property
    def rows_version(self) -> int:
        """By which version of Algorithm 1 its rows are made, and which columns they have.

        Of what a newer fmrgen wrote, only the columns of the first version are counted on.
        """
        version = _version_of(self.schema_version)
        return version if version <= ROWS_VERSION else 1

    @property
    def is_newer(self) -> bool:
        """Whether a later version of fmrgen wrote it."""
        return _version_of(self.schema_version) > ROWS_VERSION

    @property
    def rows(self) -> int:
        return self.examples - len(self.skipped)

    @property
    def job_labels(self) -> Labels:
        """The labels of the job."""
        groups = None if self.groups is None else tuple(tuple(group) for group in self.groups)
        source_names = None if self.source_names is None else tuple(self.source_names)
        return Labels(tuple(self.labels), groups, self.source_classes, source_names)

    @property
    def row_schema(self) -> "Schema":
        """The columns of the split."""
        from fmrgen.storage.schema import Schema  # brings `datasets`, which a look at a folder does not need

        keep_original, score_column = self.recipe.output.keep_original, self.score_column
        key = (keep_original, score_column, self.rows_version, tuple(self.judges), self.accepts_several)
        return Schema(tuple(self.labels), *key)  # type: ignore[arg-type]

    @property
    def files_digest(self) -> str:
        """16 hex digits over the very files."""
        return fingerprint(self.files)

    @property
    def tree(self) -> dict[str, Any]:
        """The provenance as its file has it."""
        tree = self.model_dump(mode="json", by_alias=True)
        if self.schema_version is None:
            del tree["schema"]
        if self.kinship is None:
            del tree["kinship"]
        tree["runs"] = [run.model_dump(mode="json", exclude_none=True) for run in self.runs]
        return tree

    def write(self, paths: SplitPaths) -> None:
        """Writes the file. Raises UserError where it can't be written."""
        text = json.dumps(self.tree, indent=2, ensure_ascii=False)
        write_atomically(paths.provenance, text.encode() + b"\n")


def _version_of(schema: Any) -> int:
    """The version that a provenance names; 1 where it names none, as fmrgen 0.1.0 did."""
    match = re.fullmatch(rf"{_SCHEMA}(\d+)", str(schema))
    return 1 if match is None else int(match[1])


def parse_provenance(tree: Mapping[str, Any]) -> Provenance | None:
    """The provenance that a JSON mapping is, None where it is none. On the Hub others may have put it there."""
    try:
        return Provenance.model_validate(tree)
    except ValidationError:
        return None


def read_provenance(paths: SplitPaths) -> Provenance:
    """What the folder says of a split. Raises UserError where it says nothing that can be read, or by a link."""
    check_inside(paths.provenance, paths.root)
    provenance = parse_provenance(read_json(paths.provenance))
    if provenance is None:
        raise UserError(f"{paths.provenance}: is not a provenance of fmrgen; delete it, or choose another folder")
    return provenance


def read_all(root: Path) -> dict[tuple[str, str], Provenance]:
    """The provenance of every split in `root`, finished or not, by config and split; other files do not count."""
    found = {}
    for paths in splits_in(root):
        with suppress(UserError):
            found[paths.config, paths.split] = read_provenance(paths)
    return found


def check_not_newer(where: str, tree: Mapping[str, Any] | Provenance) -> None:
    """Raises UserError, starting with `where`, for a split that a later version of fmrgen made: it is not rewritten."""
    schema = tree.schema_version if isinstance(tree, Provenance) else tree.get("schema")
    if _version_of(schema) > ROWS_VERSION:
        raise UserError(f"{where} was made by a newer fmrgen ({schema}); update fmrgen, or choose another folder")


def check_same_job(where: str, earlier: Provenance, fresh: Provenance, cure: str) -> None:
    """Raises UserError, from `where` to `cure`, if the split of `earlier` was not begun as that of `fresh` is."""
    if earlier.fingerprint != fresh.fingerprint:
        raise UserError(f"{where} was made by another recipe: {_difference(earlier, fresh)}; {cure}")
    for name in ("labels", "groups"):
        if getattr(earlier, name) != getattr(fresh, name):
            raise UserError(f"{where} was started with other {name}; {cure}")
    if earlier.score_column != fresh.score_column:
        raise UserError(f"{where} was started by an older fmrgen, with a column {earlier.score_column}; {cure}")
    if tuple(earlier.judges) != tuple(fresh.judges):
        raise UserError(f"{where} was started by an older fmrgen, without the column judges; {cure}")
    for name, digest in fresh.weights_sha256:
        if getattr(earlier.weights_sha256, name) != digest:
            raise UserError(f"{where} was started with other {name} weights; put them back, or {cure}")
    if earlier.examples != fresh.examples:
        raise UserError(f"{where} was started on {earlier.examples} examples, not {fresh.examples}; {cure}")


def check_same_version(where: str, earlier: Provenance, fresh: Provenance, cure: str) -> None:
    """Raises UserError, from `where` to `cure`, where rows of `fresh` would not be made as those of `earlier` were."""
    if earlier.rows_version != fresh.rows_version:
        raise UserError(f"{where} was started by an older fmrgen, whose steps were others; {cure}")


def _difference(earlier: Provenance, fresh: Provenance) -> str:
    """The first key in which two recipes differ, as `section.key was A, is B`."""

    def leaves(tree: Any, *keys: str) -> dict[str, Any]:
        if not isinstance(tree, dict) or not tree:
            return {".".join(keys): tree}
        return {name: leaf for key, value in tree.items() for name, leaf in leaves(value, *keys, str(key)).items()}

    old, new = leaves(earlier.recipe.tree), leaves(fresh.recipe.tree)
    for key in dict.fromkeys((*old, *new)):
        if key.endswith(".weights_sha256") and key in old and key in new and old[key] != new[key]:
            return f"its {key.partition('.')[0]} had other weights ({NEW_WEIGHTS})"
        if key.endswith(".state_sha256") and key in old and key in new and old[key] != new[key]:
            return f"its {key.partition('.')[0]} had different attributes or code ({NEW_STATE})"
        if key not in NOT_FINGERPRINTED and old.get(key) != new.get(key):
            return f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
    return f"fingerprint {earlier.fingerprint}, not {fresh.fingerprint}"


def provenance_to_continue(paths: SplitPaths, fresh: Provenance, begun: bool) -> Provenance:
    """The provenance to go on with: the folder's own where this very recipe has begun the split, else the new one.

    Raises UserError where something else is in its place.
    """
    where, another = f"{paths.root}:{paths.name}", option("output")
    earlier = None
    if begun:  # a run that stored nothing yet has claimed nothing
        if not paths.provenance.exists():
            raise UserError(f"{where} contains shards but no provenance file; delete them or choose another {another}")
        tree = read_json(paths.provenance)
        check_not_newer(where, tree)
        if (earlier := parse_provenance(tree)) is None:
            raise UserError(
                f"{paths.provenance}: is not a provenance of fmrgen; delete it, or choose another {another}"
            )
        check_same_job(where, earlier, fresh, f"choose another {another} or {option('output.split')}, or delete it")
    check_config(paths, earlier or fresh, str(paths.root))
    return earlier or fresh


def check_config(paths: SplitPaths, provenance: Provenance, where: str) -> None:
    """Raises UserError, starting with `where`, if other splits of the config in the folder are not of its kind."""
    for (config, split), other in read_all(paths.root).items():
        if config != paths.config or split == paths.split:
            continue
        check_not_newer(f"{where}: the split {split} of config {config}", other)
        if other.recipe.output.keep_original != provenance.recipe.output.keep_original:
            raise UserError(
                f"{where}: config {config} has another output.keep_original in its split {split}; "
                "the splits of a config have the same columns"
            )
        for section in ("source", "generator", "oracle"):
            theirs, ours = _identity(other, section), _identity(provenance, section)
            if theirs != ours:
                keys = [key for key in {**theirs[0], **ours[0]} if theirs[0].get(key) != ours[0].get(key)]
                what = (
                    f"{section}.{keys[0]}" if keys else f"labels of its {section}" if section == "source" else section
                )
                raise UserError(
                    f"{where}: config {config} has another {what} in its split {split}; "
                    f"a config is one source, generator and oracle: choose another {option('output.config')}"
                )
        if _columns_of(other) != _columns_of(provenance):
            raise UserError(
                f"{where}: config {config} has other columns, of an older fmrgen, in its split {split}; choose another "
                "output.config"
            )


def _columns_of(provenance: Provenance) -> tuple[Any, ...]:
    """What tells the columns of two splits of one config apart."""
    return provenance.score_column, provenance.rows_version, tuple(provenance.judges)


def _identity(provenance: Provenance, section: str) -> tuple[dict[str, Any], Any]:
    """What makes the section the same in two splits of one config."""
    tree = without_later_defaults(section, getattr(provenance.recipe, section).tree)
    kept = {name: value for name, value in tree.items() if name not in ("on_error", "license")}
    return kept, provenance.labels if section == "source" else getattr(provenance.weights_sha256, section)


def new_run(device: str) -> Run:
    """The record of a process that begins now."""
    versions = {name: version(name) for name in _VERSIONS}
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return Run(started=now(), job=uuid4().hex, processes=processes, device=device, versions=versions)


def now() -> str:
    """The time, in UTC and whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
