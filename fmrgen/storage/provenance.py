"""Where a split comes from: what made it, and whether a folder may go on with it."""

import re
from contextlib import suppress
from dataclasses import fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from fmrgen.errors import UserError
from fmrgen.files import read_json, refuse_outside
from fmrgen.metrics import SUMMARY_COLUMNS, Summary, summarise
from fmrgen.recipe import IDLE_KEYS, Recipe
from fmrgen.sources.images import LARGEST_SIDE
from fmrgen.storage.shards import SplitFolder, split_features

if TYPE_CHECKING:
    from datasets import Features

    from fmrgen.components import Components

_SCHEMA = "fmrgen-provenance/"  # and the version; a provenance that says none is of fmrgen 0.1.0
_VERSION = 1
_VERSIONS = ("fmrgen", "torch", "transformers", "diffusers", "timm", "datasets", "accelerate")


_FIGURES = {name: TypeAdapter(kind) for name, kind in get_type_hints(Summary).items()}


def new_provenance(recipe: Recipe, components: "Components", folder: SplitFolder) -> dict[str, Any]:
    """What is known of a split before its first row."""
    from fmrgen.weights.digest import weights_sha256  # brings torch, which a push does not need

    labels = components.source.labels
    models = ("classifier", "generator", "oracle")
    return {
        "schema": f"{_SCHEMA}{_VERSION}",
        "fingerprint": recipe.fingerprint,
        "finished": False,
        "recipe": recipe.model_dump(mode="json"),
        "labels": list(labels.names),
        "groups": None if labels.groups is None else [list(group) for group in labels.groups],
        "source_classes": labels.source_size,
        "examples": len(components.source),
        "image_size": components.generator.image_size,
        "shards": folder.shards,
        "weights_sha256": {name: weights_sha256(getattr(components, name)) for name in models},
        "seed": recipe.perturb.seed,
        "skipped": [],
        "runs": [],
        "files": {},
    }


class _Told(BaseModel):
    """A part of a provenance, of which readers take what is named here."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Output(_Told):
    keep_original: bool
    shard_size: PositiveInt


class _Component(_Told):
    kind: str


class _Perturb(_Told):
    budget: int
    step_size: float
    update: str
    oracle_rule: str


class _Sections(_Told):
    source: _Component
    classifier: _Component
    generator: _Component
    oracle: _Component
    perturb: _Perturb
    output: _Output


class _Weights(_Told):
    classifier: str | None
    generator: str | None
    oracle: str | None


class _Run(_Told):
    started: str


# Nobody's provenance leads a reader out of the folder that it lies in.
_ShardName = Annotated[str, Field(pattern=r"^\w[\w.-]*/\w[\w.]*-\d+-of-\d+\.parquet$")]


class _Begun(_Told):
    """What every reader takes from the provenance of a split."""

    version: Annotated[str | None, Field(alias="schema", pattern=rf"^{_SCHEMA}\d+$")] = None
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    recipe: _Sections
    labels: list[str]
    groups: list[list[int]] | None
    source_classes: int | None
    examples: PositiveInt
    image_size: Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
    weights_sha256: _Weights
    runs: list[_Run]
    files: dict[_ShardName, str] = Field(default={}, description="sha256 of shards, of an earlier end if unfinished")

    @model_validator(mode="after")
    def _labels_differ(self) -> "_Begun":
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("two labels are the same")
        return self


class _Finished(_Begun):
    """What readers of a finished split take besides."""

    finished: Literal[True]
    skipped: list[dict[str, Any]] = []
    num_bytes: int = 0
    download_size: int = 0
    summary: dict[str, Any] = {}

    @model_validator(mode="after")
    def _files_are_all(self) -> "_Finished":
        if len(self.files) != -(-self.examples // self.recipe.output.shard_size):
            raise ValueError("not a file for each shard")
        return self


def is_finished(provenance: dict[str, Any]) -> bool:
    """Whether this is the provenance of a finished split, with all that its readers need.

    False for what others put there. Figures are no part of it: versions of fmrgen differ in what they tell.
    """
    return _is_valid(_Finished, provenance)


def is_provenance(tree: dict[str, Any]) -> bool:
    """Whether a JSON mapping is the provenance of a split, finished or not."""
    return _is_valid(_Begun, tree)


def _is_valid(model: type[BaseModel], tree: dict[str, Any]) -> bool:
    try:
        model.model_validate(tree)
    except ValidationError:
        return False
    return True


def refuse_newer(where: str, tree: dict[str, Any]) -> None:
    """Raises UserError, starting with `where`, for a split that a later version of fmrgen made: it is not rewritten."""
    told = re.fullmatch(rf"{_SCHEMA}(\d+)", str(tree.get("schema")))
    if told is not None and int(told[1]) > _VERSION:
        raise UserError(
            f"{where} was made by a newer fmrgen ({tree['schema']}); update fmrgen, or choose another folder"
        )


def summary_of(provenance: dict[str, Any], folder: SplitFolder | None = None) -> Summary:
    """The figures of a finished split. What an earlier version did not tell is found from the rows where the `folder`
    has them, and None where not; what a later one tells besides is passed over.
    """
    told = provenance.get("summary", {})
    known = {field.name for field in fields(Summary)}
    summary = Summary(rows=provenance["examples"] - len(provenance.get("skipped", [])), valid_rows=0)
    if not known <= told.keys() and folder is not None and folder.is_whole:
        table = folder.read_columns(SUMMARY_COLUMNS)
        summary = summarise({name: table[name].to_numpy() for name in table.column_names})
    for name in known & told.keys():
        with suppress(ValidationError):  # anyone may have written it
            summary = replace(summary, **{name: _FIGURES[name].validate_python(told[name])})
    return summary


def features_of(provenance: dict[str, Any]) -> "Features":
    """The columns of the split."""
    return split_features(provenance["labels"], provenance["recipe"]["output"]["keep_original"])


def read_all(root: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The provenance of every split in `root`, finished or not, by config and split; files that are none do not count.

    On the Hub others may have put them there.
    """
    found = {}
    for path in sorted((root / "provenance").glob("*/*.json")):
        if not re.fullmatch(r"\w[\w.-]*/\w[\w.]*", f"{path.parent.name}/{path.stem}"):
            continue  # no name that a recipe can have
        with suppress(UserError):
            refuse_outside(path, root)
            if is_provenance(tree := read_json(path)):
                found[path.parent.name, path.stem] = tree
    return found


def refuse_other(where: str, earlier: dict[str, Any], provenance: dict[str, Any], cure: str) -> None:
    """Raises UserError, from `where` to `cure`, if the split of `earlier` was not begun as that of `provenance` is."""
    if earlier.get("fingerprint") != provenance["fingerprint"]:
        raise UserError(f"{where} was made by another recipe: {_difference(earlier, provenance)}; {cure}")
    for name in ("labels", "groups"):
        if earlier.get(name) != provenance[name]:
            raise UserError(f"{where} was begun with other {name}; {cure}")
    for name, digest in provenance["weights_sha256"].items():
        if earlier["weights_sha256"].get(name) != digest:
            raise UserError(f"{where} was begun with other {name} weights; put them back, or {cure}")
    if earlier["examples"] != provenance["examples"]:
        raise UserError(f"{where} was begun on {earlier['examples']} examples, not {provenance['examples']}; {cure}")


def _difference(earlier: dict[str, Any], provenance: dict[str, Any]) -> str:
    """The first key in which two recipes differ, as `section.key was A, is B`."""

    def leaves(tree: Any, *keys: str) -> dict[str, Any]:
        if not isinstance(tree, dict) or not tree:
            return {".".join(keys): tree}
        return {name: leaf for key, value in tree.items() for name, leaf in leaves(value, *keys, str(key)).items()}

    old, new = leaves(earlier["recipe"]), leaves(provenance["recipe"])
    for key in dict.fromkeys((*old, *new)):
        if key not in IDLE_KEYS and old.get(key) != new.get(key):
            return f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
    return f"fingerprint {earlier.get('fingerprint')}, not {provenance['fingerprint']}"


def claim(folder: SplitFolder, provenance: dict[str, Any]) -> dict[str, Any]:
    """The provenance to go on with: the folder's own where this very recipe began the split, else the new one.

    Raises UserError where something else is in its place.
    """
    rows = any((folder.root / folder.config).glob(f"{folder.split}-*.parquet"))
    earlier = folder.read_provenance() if rows else None  # a run that stored nothing yet has claimed nothing
    where = f"{folder.root}:{folder.config}/{folder.split}"
    if earlier is not None:
        refuse_newer(where, earlier)
    if earlier is not None and not is_provenance(earlier):
        raise UserError(
            f"{folder.provenance_path}: is no provenance of fmrgen's; delete it, or choose another --output"
        )
    if earlier is not None:
        refuse_other(where, earlier, provenance, "choose another --output or output.split, or delete it")
    elif rows:
        raise UserError(f"{where} holds shards without a provenance file; delete them or choose another --output")
    refuse_mixed_config(folder.root, folder.config, folder.split, provenance, str(folder.root))
    return earlier or provenance


def refuse_mixed_config(root: Path, config: str, split: str, provenance: dict[str, Any], where: str) -> None:
    """Raises UserError, starting with `where`, if other splits of the config in `root` are not of its kind."""
    for (home, name), other in read_all(root).items():
        if home != config or name == split:
            continue
        refuse_newer(f"{where}: the split {name} of config {config}", other)
        if other["recipe"]["output"]["keep_original"] != provenance["recipe"]["output"]["keep_original"]:
            raise UserError(
                f"{where}: config {config} has another output.keep_original in its split {name}; "
                "the splits of a config have the same columns"
            )
        for section in ("source", "generator", "oracle"):
            if _identity(other, section) != _identity(provenance, section):
                raise UserError(
                    f"{where}: config {config} has another {section} in its split {name}; "
                    "a config is one source, generator and oracle: choose another output.config"
                )


def _identity(provenance: dict[str, Any], section: str) -> Any:
    """What makes the section the same in two splits of one config."""
    told = {name: value for name, value in provenance["recipe"][section].items() if name not in ("on_error", "license")}
    return (told, provenance["labels"]) if section == "source" else (told, provenance["weights_sha256"][section])


def new_run(job: str, processes: int, device: str) -> dict[str, Any]:
    """The record of a run that begins now; `job` names it on all of its machines."""
    versions = {name: version(name) for name in _VERSIONS}
    return {"started": now(), "job": job, "processes": processes, "device": device, "versions": versions}


def now() -> str:
    """The time, in UTC and whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
