"""Croissant metadata with RAI fields, beside the card: the splits described for machines, file by file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Features, Image, List, Value

from fmrgen.errors import UserError
from fmrgen.files import json_text, package_data, read_json, write_changed
from fmrgen.storage.made_with import made_with
from fmrgen.storage.paths import CROISSANT, SplitPaths
from fmrgen.storage.provenance import Provenance, read_all

_DATE_LENGTH = len("2026-11-28")  # characters of a time
_NAMED = 20  # classes in the description of a label
_LICENSES = "https://huggingface.co/docs/hub/repositories-licenses"
_TYPES = {"int": "sc:Integer", "uint": "sc:Integer", "float": "sc:Float", "bool": "sc:Boolean", "string": "sc:Text"}


def write_croissant(root: Path, repo: str) -> None:
    """Write `croissant.json` from the provenance of every finished split in `root`, if there is any.

    Args:
        root: the dataset folder, or the small files of a repo.
        repo: the dataset's name, `OWNER/NAME` or that of a folder.
    """
    splits = {}
    for (config, split), provenance in sorted(read_all(root).items()):
        if provenance.is_finished:
            splits[SplitPaths(Path(), config, split)] = provenance
    if not splits:
        return
    text = json_text(_dataset(splits, repo), strict=True)
    write_changed(root / CROISSANT, text.encode())


def differences(root: Path, paths: SplitPaths, provenance: Provenance) -> list[str]:
    """Return a line for each file of a split whose digest in `croissant.json` is not that in the provenance.

    Args:
        root: the dataset folder.
        paths: of the split.
        provenance: of the split.
    """
    path = root / CROISSANT
    if not path.is_file():
        return []
    digests = {}
    try:
        content = read_json(path)
        distribution = content.get("distribution") if isinstance(content, dict) else None
        for entry in distribution or []:
            if entry.get("@type") == "cr:FileObject":
                digests[entry["@id"]] = entry.get("sha256")
    except (UserError, AttributeError, KeyError, TypeError):
        return [f"{path}: can't be read; run the same generate command again"]
    lines = []
    for file, digest in provenance.files.items():
        if digests.get(file) != digest:
            lines.append(f"{path}: its sha256 of {file} differs from that in the provenance of {paths.name}")
    return lines


def _dataset(splits: Mapping[SplitPaths, Provenance], repo: str) -> dict[str, Any]:
    """Return the content of `croissant.json`: the template, with what the provenance of each split says."""
    dataset: dict[str, Any] = read_json(package_data("dataset_cards") / CROISSANT)
    dataset["name"] = repo
    licences = sorted({str(provenance.recipe.source.get("license") or "unknown") for provenance in splits.values()})
    dataset["license"] = [f"{_LICENSES}#{licence}" for licence in licences]
    dataset["url"] = f"https://huggingface.co/datasets/{repo}" if "/" in repo else repo
    dates, collection, manipulation, oracles, weights = [], [dataset["rai:dataCollection"]], [], [], []
    for paths, provenance in splits.items():
        dates += [run.finished for run in provenance.runs if run.finished]
        parts = made_with(provenance)
        collection.append(f"{paths.name}: {parts['source']}")
        manipulation.append(
            f"{paths.name}: latents of {parts['generator']} up the gradient of {parts['classifier']}; "
            f"{parts['perturbation']}"
        )
        oracles.append(f"{paths.name}: {parts['oracle']}")
        for component, digest in provenance.weights_sha256:
            if digest:
                weights.append(f"{paths.name} {component} sha256 {digest}")
    dataset["datePublished"] = max(dates)[:_DATE_LENGTH] if dates else None
    dataset["rai:dataCollection"] = "\n".join(collection)
    dataset["rai:dataManipulationProtocol"] = manipulation
    dataset["rai:machineAnnotationTools"] = oracles + weights
    dataset["distribution"] = _distribution(splits, dataset["url"])
    dataset["recordSet"] = [_record_set(paths, provenance) for paths, provenance in splits.items()]
    return {key: value for key, value in dataset.items() if value is not None}


def _distribution(splits: Mapping[SplitPaths, Provenance], address: str) -> list[dict[str, Any]]:
    """Return the repo at `address`, each file of each split, and the files of each split as a set."""
    repo = {
        "@type": "cr:FileObject",
        "@id": "repo",
        "name": "repo",
        "description": "The repository or folder.",
        "contentUrl": address,
        "encodingFormat": "git+https",
        "sha256": "https://github.com/mlcommons/croissant/issues/80",
    }
    distribution: list[dict[str, Any]] = [repo]
    for paths, provenance in splits.items():
        for file, digest in provenance.files.items():
            distribution.append(
                {
                    "@type": "cr:FileObject",
                    "@id": file,
                    "name": file,
                    "contentUrl": file,
                    "containedIn": {"@id": "repo"},
                    "encodingFormat": "application/x-parquet",
                    "sha256": digest,
                }
            )
        distribution.append(
            {
                "@type": "cr:FileSet",
                "@id": f"files-{paths.config}-{paths.split}",
                "name": f"files-{paths.config}-{paths.split}",
                "containedIn": {"@id": "repo"},
                "encodingFormat": "application/x-parquet",
                "includes": paths.shard_pattern,
            }
        )
    return distribution


def _record_set(paths: SplitPaths, provenance: Provenance) -> dict[str, Any]:
    """Return the columns of a split, without those that have no type in Croissant."""
    name = f"{paths.config}-{paths.split}"
    fields = []
    for column, feature in provenance.row_schema.features.items():
        data_type = _type_of(feature)
        if data_type is None:
            continue
        extract = {"fileSet": {"@id": f"files-{name}"}, "extract": {"column": column}}
        if isinstance(feature, Image):
            extract["transform"] = {"jsonPath": "bytes"}
        fields.append(
            {"@type": "cr:Field", "@id": f"{name}/{column}", "name": f"{name}/{column}", "source": extract, **data_type}
        )
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"{provenance.rows} rows, recipe {provenance.fingerprint}.",
        "field": fields,
    }


def _type_of(feature: Features) -> dict[str, Any] | None:
    """Return the type of a column in Croissant; None if it has none."""
    if isinstance(feature, Image):
        return {"dataType": "sc:ImageObject"}
    if isinstance(feature, ClassLabel):
        return {"dataType": "sc:Integer", "description": "One of " + ", ".join(map(str, feature.names[:_NAMED]))}
    if isinstance(feature, List):
        inner = _type_of(feature.feature)
        return None if inner is None else {**inner, "repeated": True}
    if isinstance(feature, Value):
        for start, data_type in _TYPES.items():
            if feature.dtype.startswith(start):
                return {"dataType": data_type}
    return None
