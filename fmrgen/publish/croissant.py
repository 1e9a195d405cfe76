"""Croissant metadata with RAI fields beside the card: what the splits are, file by file, for machines."""

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
# The context that Croissant asks for, word by word: its own terms, the three whose values are typed, and two others'.
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
_LICENSES = "https://huggingface.co/docs/hub/repositories-licenses"
_TYPES = {"int": "sc:Integer", "uint": "sc:Integer", "float": "sc:Float", "bool": "sc:Boolean", "string": "sc:Text"}


def write_croissant(root: Path, repo: str) -> None:
    """Writes `croissant.json` from the provenance of every finished split in `root`; where there is none, nothing.

    Args:
        root: the dataset folder, or the small files of a repo.
        repo: what the dataset is called, `OWNER/NAME` or a folder's name.
    """
    splits = {
        SplitPaths(Path(), *name): provenance
        for name, provenance in sorted(read_all(root).items())
        if provenance.is_finished
    }
    if not splits:
        return
    text = json.dumps(_dataset(splits, repo), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_changed(root / CROISSANT, text.encode())


def differences(root: Path, paths: SplitPaths, provenance: Provenance) -> list[str]:
    """Where `croissant.json` in a folder says of a split's files what its provenance does not, a line each."""
    path = root / CROISSANT
    if not path.is_file():
        return []
    try:
        content = read_json(path)
        found = content.get("distribution") if isinstance(content, dict) else None
        digests = {one["@id"]: one.get("sha256") for one in found or [] if one.get("@type") == "cr:FileObject"}
    except (UserError, AttributeError, KeyError, TypeError):
        return [f"{path}: can't be read; run the same generate command again"]
    return [
        f"{path}: its sha256 of {file} differs from that in the provenance of {paths.name}"
        for file, digest in provenance.files.items()
        if digests.get(file) != digest
    ]


def _dataset(splits: Mapping[SplitPaths, Provenance], repo: str) -> dict[str, Any]:
    address = f"https://huggingface.co/datasets/{repo}" if "/" in repo else repo
    licences = sorted({str(provenance.recipe.source.get("license") or "unknown") for provenance in splits.values()})
    ended = [run.finished for provenance in splits.values() for run in provenance.runs if run.finished]
    whole = {
        "@type": "cr:FileObject",
        "@id": "repo",
        "name": "repo",
        "description": "The repository or folder.",
        "contentUrl": address,
        "encodingFormat": "git+https",
        "sha256": "https://github.com/mlcommons/croissant/issues/80",
    }
    distribution: list[dict[str, Any]] = [whole]
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
    return {
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
        **({"datePublished": max(ended)[:10]} if ended else {}),
        **_responsible(splits),
        "distribution": distribution,
        "recordSet": [_record_set(paths, provenance) for paths, provenance in splits.items()],
    }


def _responsible(splits: Mapping[SplitPaths, Provenance]) -> dict[str, Any]:
    """The RAI fields, from what the provenance says and no more."""
    made = {paths.name: made_with(provenance) for paths, provenance in splits.items()}
    weights = {
        f"{paths.name} {name}": digest
        for paths, provenance in splits.items()
        for name, digest in provenance.weights_sha256
        if digest
    }

    def each(key: str) -> list[str]:
        return [f"{name}: {parts[key]}" for name, parts in made.items()]

    return {
        "rai:dataCollection": "\n".join(["Existing test images, perturbed by a generator.", *each("source")]),
        "rai:dataManipulationProtocol": [
            f"{name}: latents of {parts['generator']} up the gradient of {parts['classifier']}; {parts['perturbation']}"
            for name, parts in made.items()
        ],
        "rai:machineAnnotationTools": [
            *each("oracle"),
            *(f"{name} sha256 {digest}" for name, digest in weights.items()),
        ],
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
    """The type of a column as Croissant has it; None of one for which it has none."""
    if isinstance(feature, Image):
        return {"dataType": "sc:ImageObject"}
    if isinstance(feature, ClassLabel):
        return {"dataType": "sc:Integer", "description": "One of " + ", ".join(map(str, feature.names[:20]))}
    if isinstance(feature, List):
        inner = _type_of(feature.feature)
        return None if inner is None else {**inner, "repeated": True}
    if isinstance(feature, Value):
        kind = next((name for start, name in _TYPES.items() if feature.dtype.startswith(start)), None)
        return None if kind is None else {"dataType": kind}
    return None
