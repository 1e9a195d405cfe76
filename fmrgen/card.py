"""The dataset card of a folder of perturbed splits."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datasets import DatasetInfo
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard, DatasetCardData
from jinja2 import StrictUndefined, Template
from pydantic import TypeAdapter, ValidationError

from fmrgen.errors import UserError, one_line
from fmrgen.recipe import fingerprint
from fmrgen.report.markdown import escape
from fmrgen.report.tables import figure
from fmrgen.split import read_json, split_features, write_atomically
from fmrgen.statistics import Estimate

RESULT_SCHEMA = "fmrgen-result/1"  # of the files under results/

_BEGIN, _END = "<!-- fmrgen: written by a machine from here -->", "<!-- fmrgen: to here -->"
_DESCRIBED = "fmrgen split files"
_TAGS = ["fmrgen", "robustness", "perturbed"]


def write_card(root: Path) -> None:
    """Writes README.md from the provenance of every finished split in `root`, and what there was in it before.

    Its `configs` are what `load_dataset(root, config, split=…)` goes by. Metadata and text that are not fmrgen's stay:
    its own text lies between two marks, its own configs are known by their descriptions.
    """
    splits: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((root / "provenance").glob("*/*.json")):
        provenance = read_json(path)
        if provenance["finished"]:
            told = {"name": path.stem, "leaderboard": _leaderboard(root, path.parent.name, path.stem, provenance)}
            splits.setdefault(path.parent.name, []).append({**told, **provenance})
    path = root / "README.md"
    data, before, after = _read_card(path, set(splits))
    text = _template().render(splits=splits, figure=figure, escape=escape).strip()
    data["configs"] = data.get("configs", []) + [_config(config, entries) for config, entries in splits.items()]
    data["dataset_info"] = data.get("dataset_info", []) + [
        _info(config, entries[0]) for config, entries in splits.items()
    ]
    parts = [f"---\n{DatasetCardData(**data).to_yaml()}\n---", before, f"{_BEGIN}\n{text}\n{_END}", after]
    content = "\n\n".join(part for part in parts if part).encode() + b"\n"
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)


def _read_card(path: Path, own_configs: set[str]) -> tuple[dict[str, Any], str, str]:
    """The metadata of a card without what fmrgen will write anew, and its text before and after fmrgen's own."""
    if not path.exists():
        return {"task_categories": ["image-classification"], "tags": _TAGS}, "", ""
    try:
        card = DatasetCard.load(path)
        data = card.data.to_dict()
    except Exception as error:  # anyone may have written it
        raise UserError(f"{path}: its metadata can't be read, mend it by hand: {one_line(error)}") from None
    configs = [
        entry for entry in data.pop("configs", []) if not _is_own(entry) and entry["config_name"] not in own_configs
    ]
    kept = {entry["config_name"] for entry in configs}
    infos = data.pop("dataset_info", [])
    infos = [entry for entry in ([infos] if isinstance(infos, dict) else infos) if entry.get("config_name") in kept]
    data["tags"] = [*data.get("tags", []), *(tag for tag in _TAGS if tag not in data.get("tags", []))]
    data.setdefault("task_categories", ["image-classification"])
    data |= {name: entries for name, entries in (("configs", configs), ("dataset_info", infos)) if entries}
    before, _, rest = card.text.partition(_BEGIN)
    return data, before.strip(), rest.partition(_END)[2].strip()


def _is_own(config: dict[str, Any]) -> bool:
    return str(config.get("description", "")).startswith(_DESCRIBED)


def _config(config: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "config_name": config,
        # load_dataset keys its cache by this mapping and not by the files: without their digest in it, the rows of
        # another folder of the same name, or of an earlier split in this one, would be loaded from the cache.
        "description": f"{_DESCRIBED} {fingerprint([s['files'] for s in entries])}",
        "data_files": [{"split": s["name"], "path": f"{config}/{s['name']}-*.parquet"} for s in entries],
    }


def _info(config: str, provenance: dict[str, Any]) -> dict[str, Any]:
    """The columns of a config, as `datasets` reads them."""
    features = split_features(provenance["labels"], provenance["recipe"]["output"]["keep_original"])
    data = DatasetCardData()
    DatasetInfosDict({config: DatasetInfo(features=features, config_name=config)}).to_dataset_card_data(data)
    return data.to_dict()["dataset_info"]


@dataclass(frozen=True)
class _Entry:
    """What the leaderboard shows of a file under results/."""

    schema: Literal["fmrgen-result/1"]
    files: str
    classifier: str
    conditioned: bool
    standard_accuracy: Estimate | None
    perturbed_accuracy: Estimate | None
    fmr: Estimate | None


def _leaderboard(root: Path, config: str, split: str, provenance: dict[str, Any]) -> list[_Entry]:
    """The results that were found on the split as it is now, by falling FMR.

    Those on earlier files are passed over, and files that are no results: anyone may have put them there.
    """
    entries = []
    for path in sorted((root / "results" / config / split).glob("*.json")):
        with suppress(UserError, ValidationError):
            entry = TypeAdapter(_Entry).validate_python(read_json(path))
            if entry.files == fingerprint(provenance["files"]):
                entries.append(entry)
    return sorted(entries, key=lambda entry: entry.fmr.value if entry.fmr else -1, reverse=True)


def _template() -> Template:
    path = cards_folder() / "perturbed_split.md"
    return Template(path.read_text(encoding="utf-8"), undefined=StrictUndefined)


def cards_folder() -> Path:
    """The card templates: inside an installed package, beside it in a checkout."""
    installed = Path(__file__).parent / "dataset_cards"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "dataset_cards"
