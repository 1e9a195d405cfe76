"""The dataset card of a folder of perturbed splits."""

from pathlib import Path
from typing import Any

from datasets import DatasetInfo, Features
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard, DatasetCardData

from fmrgen.recipe import fingerprint
from fmrgen.report.markdown import escape
from fmrgen.report.tables import figure
from fmrgen.split import read_json, split_features, write_atomically
from fmrgen.statistics import Estimate

RESULT_SCHEMA = "fmrgen-result/1"  # of the files under results/


def write_card(root: Path) -> None:
    """Writes README.md from the provenance of every finished split in `root`.

    Its `configs` are what `load_dataset(root, config, split=…)` goes by.
    """
    splits: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((root / "provenance").glob("*/*.json")):
        provenance = read_json(path)
        if provenance["finished"]:
            told = {"name": path.stem, "leaderboard": _leaderboard(root, path.parent.name, path.stem, provenance)}
            splits.setdefault(path.parent.name, []).append({**told, **provenance})
    configs = [
        {
            "config_name": config,
            # load_dataset keys its cache by this mapping and not by the files: without their digest in it, the rows of
            # another folder of the same name, or of an earlier split in this one, would be loaded from the cache.
            "description": f"fmrgen split files {fingerprint([s['files'] for s in entries])}",
            "data_files": [{"split": s["name"], "path": f"{config}/{s['name']}-*.parquet"} for s in entries],
        }
        for config, entries in splits.items()
    ]
    infos = {
        config: DatasetInfo(features=_features(entries[0]), config_name=config) for config, entries in splits.items()
    }
    data = DatasetCardData(
        task_categories=["image-classification"], tags=["fmrgen", "robustness", "perturbed"], configs=configs
    )
    DatasetInfosDict(infos).to_dataset_card_data(data)
    template = str(cards_folder() / "perturbed_split.md")
    card = DatasetCard.from_template(data, template_path=template, splits=splits, figure=figure, escape=escape)
    path = root / "README.md"
    content = str(card).encode()
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)


def _leaderboard(root: Path, config: str, split: str, provenance: dict[str, Any]) -> list[dict[str, Any]]:
    """The results that were found on the split as it is now, by falling FMR; those on earlier files are passed over."""
    entries = []
    for path in sorted((root / "results" / config / split).glob("*.json")):
        told = read_json(path)
        if told.get("schema") == RESULT_SCHEMA and told.get("files") == fingerprint(provenance["files"]):
            estimates = ("standard_accuracy", "perturbed_accuracy", "fmr")
            entries.append(told | {name: told[name] and Estimate(**told[name]) for name in estimates})
    return sorted(entries, key=lambda told: told["fmr"].value if told["fmr"] else -1, reverse=True)


def _features(provenance: dict[str, Any]) -> Features:
    return split_features(provenance["labels"], provenance["recipe"]["output"]["keep_original"])


def cards_folder() -> Path:
    """The card templates: inside an installed package, beside it in a checkout."""
    installed = Path(__file__).parent / "dataset_cards"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "dataset_cards"
