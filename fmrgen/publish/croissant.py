"""Croissant metadata with RAI fields, beside the card: the splits described for machines, file by file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Features, Image, List, Value

from fmrgen.errors import UserError
from fmrgen.files import read_json, write_changed
from fmrgen.storage.made_with import made_with
from fmrgen.storage.paths import CROISSANT, SplitPaths
from fmrgen.storage.provenance import Provenance, read_all

_VERSION = "http://mlcommons.org/croissant/1.1"
_RAI = "http://mlcommons.org/croissant/RAI/1.0"
# The context that Croissant prescribes: its own terms, the three whose values are typed, and those of two others.
_TERMS = (
    "column data dataType equivalentProperty examples extract field fileObject fileProperty fileSet format includes "
    "isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace samplingRate "
    "separator source subField transform citeAs"
)
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    **{term: f"cr:{term}" for term in _TERMS.split()},
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
}
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
    text = json.dumps(_dataset(splits, repo), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
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
    """Return the content of `croissant.json`."""
    address = f"https://huggingface.co/datasets/{repo}" if "/" in repo else repo
    licences = sorted({str(provenance.recipe.source.get("license") or "unknown") for provenance in splits.values()})
    dataset: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [_VERSION, _RAI],
        "name": repo,
        "description": "Test images perturbed against one image classifier each, for as long as a foundation model "
        "still sees the right class (Foundation Model-oriented Robustness), with everything that was measured.",
        "license": [f"{_LICENSES}#{licence}" for licence in licences],
        "url": address,
        "version": "1.0.0",
        "citeAs": "Zhang et al., Foundation Model-oriented Robustness: Robust Image Model Evaluation with Pretrained "
        "Models, 2024, https://arxiv.org/abs/2308.10632",
    }
    finished = []
    for provenance in splits.values():
        finished += [run.finished for run in provenance.runs if run.finished]
    if finished:
        dataset["datePublished"] = max(finished)[:_DATE_LENGTH]
    dataset.update(_responsible(splits))
    dataset["distribution"] = _distribution(splits, address)
    dataset["recordSet"] = [_record_set(paths, provenance) for paths, provenance in splits.items()]
    return dataset


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


def _responsible(splits: Mapping[SplitPaths, Provenance]) -> dict[str, Any]:
    """Return the RAI fields, which say no more than the provenance."""
    collection = ["Existing test images, perturbed by a generator."]
    manipulation, oracles, weights = [], [], []
    for paths, provenance in splits.items():
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
    return {
        "rai:dataCollection": "\n".join(collection),
        "rai:dataManipulationProtocol": manipulation,
        "rai:machineAnnotationTools": oracles + weights,
        "rai:dataLimitations": [
            "The oracle decides whether an image still shows its class, and may be wrong; rows rejected at once keep "
            "their original and are not valid.",
            "Each image was made against one classifier and fools others less.",
        ],
        "rai:dataBiases": ["Those of the source, of the generator, and of the foundation model that judges."],
        "rai:dataUseCases": [
            "Testing the robustness of image classifiers. Not for training a model that is then tested on these images."
        ],
        "rai:personalSensitiveInformation": ["Whatever the source's images show."],
        "rai:hasSyntheticData": True,
    }


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
