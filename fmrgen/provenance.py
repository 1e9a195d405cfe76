"""Where a split comes from: what made it, and whether a folder may go on with it."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmrgen.errors import UserError
from fmrgen.files import read_json
from fmrgen.recipe import IDLE_KEYS, Recipe
from fmrgen.split import SplitFolder, split_features

if TYPE_CHECKING:
    from datasets import Features

    from fmrgen.components import Components

_VERSIONS = ("fmrgen", "torch", "transformers", "diffusers", "timm", "datasets", "accelerate")


def new_provenance(recipe: Recipe, components: "Components", folder: SplitFolder) -> dict[str, Any]:
    """What is known of a split before its first row."""
    from fmrgen.digest import weights_sha256  # brings torch, which a push does not need

    labels = components.source.labels
    models = ("classifier", "generator", "oracle")
    return {
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


# What every reader of a split's provenance takes from it, and of a finished one's besides.
_KEYS = {
    "fingerprint": str,
    "recipe": dict,
    "labels": list,
    "examples": int,
    "image_size": int,
    "weights_sha256": dict,
    "runs": list,
}
_KEYS_AT_THE_END = {"skipped": list, "files": dict, "num_bytes": int, "download_size": int, "summary": dict}
_SHARD = re.compile(r"\w[\w.-]*/\w[\w.]*-\d+-of-\d+\.parquet")
_SECTIONS = ("source", "classifier", "generator", "oracle", "perturb", "output")


def is_finished(provenance: dict[str, Any]) -> bool:
    """Whether this is the provenance of a finished split, with all that its readers need.

    False for what others put there, and for that of a version of fmrgen that told less.
    """
    at_the_end = all(isinstance(provenance.get(key), kind) for key, kind in _KEYS_AT_THE_END.items())
    if not (is_provenance(provenance) and at_the_end and provenance.get("finished") is True):
        return False
    # Nobody's provenance leads a reader out of the folder that it lies in.
    return all(_SHARD.fullmatch(file) and isinstance(digest, str) for file, digest in provenance["files"].items())


def is_provenance(tree: dict[str, Any]) -> bool:
    """Whether a JSON mapping is the provenance of a split, finished or not."""
    known = all(isinstance(tree.get(key), kind) for key, kind in _KEYS.items())
    if not known or not all(isinstance(tree["recipe"].get(section), dict) for section in _SECTIONS):
        return False
    shard_size = tree["recipe"]["output"].get("shard_size")
    return isinstance(shard_size, int) and shard_size > 0 and tree["examples"] >= 0


def features_of(provenance: dict[str, Any]) -> "Features":
    """The columns of the split."""
    return split_features(provenance["labels"], provenance["recipe"]["output"]["keep_original"])


def read_all(root: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The provenance of every split in `root`, finished or not, by config and split; files that are none do not count.

    On the Hub others may have put them there.
    """
    found = {}
    for path in sorted((root / "provenance").glob("*/*.json")):
        with suppress(UserError):
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
