"""The dataset card of a folder of perturbed splits."""

import math
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from datasets import DatasetInfo, SplitDict, SplitInfo
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


def write_card(root: Path, repo: str | None = None) -> None:
    """Writes README.md from the provenance of every finished split in `root`, and what there was in it before.

    Its `configs` are what `load_dataset(root, config, split=…)` goes by. Metadata and text that are not fmrgen's stay:
    its own text lies between two marks, its own configs are known by their descriptions. `repo` is what the dataset is
    called where the card is read; by default the folder's name.
    """
    splits: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((root / "provenance").glob("*/*.json")):
        provenance = read_json(path)
        if provenance["finished"]:
            told = {"name": path.stem, "leaderboard": _leaderboard(root, path.parent.name, path.stem, provenance)}
            splits.setdefault(path.parent.name, []).append({**told, **provenance})
    path = root / "README.md"
    data, before, after = _read_card(path, set(splits))
    text = _render(splits, repo or root.resolve().name)
    _describe(data, splits)
    parts = [f"---\n{DatasetCardData(**data).to_yaml()}\n---", before, f"{_BEGIN}\n{text}\n{_END}", after]
    content = "\n\n".join(part for part in parts if part).encode() + b"\n"
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)


def _read_card(path: Path, own_configs: set[str]) -> tuple[dict[str, Any], str, str]:
    """The metadata of a card without what fmrgen will write anew, and its text before and after fmrgen's own."""
    if not path.exists():
        return {}, "", ""
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


def _info(config: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The columns and sizes of a config, as `datasets` reads them."""
    sizes = {s["name"]: SplitInfo(s["name"], s["num_bytes"], s["summary"]["rows"]) for s in entries}
    described = DatasetInfo(
        features=split_features(entries[0]["labels"], entries[0]["recipe"]["output"]["keep_original"]),
        config_name=config,
        splits=SplitDict(sizes),
        download_size=sum(s["download_size"] for s in entries),
        dataset_size=sum(s["num_bytes"] for s in entries),
    )
    data = DatasetCardData()
    DatasetInfosDict({config: described}).to_dataset_card_data(data)
    return data.to_dict()["dataset_info"]


def _describe(data: dict[str, Any], splits: dict[str, list[dict[str, Any]]]) -> None:
    """Adds what the Hub understands of the splits to a card's metadata."""
    every = [split for entries in splits.values() for split in entries]
    sources = [split["recipe"]["source"] for split in every]
    hub_ids = [s["path"] for s in sources if s["kind"] == "datasets" and re.fullmatch(r"[\w.-]+/[\w.-]+", s["path"])]
    for name, values in {
        "license": [source.get("license") or "unknown" for source in sources],
        "task_categories": ["image-classification"],
        "source_datasets": hub_ids,
        "tags": _TAGS,
    }.items():
        before = data.get(name) or []
        known = dict.fromkeys([*([before] if isinstance(before, str) else before), *values])
        if len(known) > 1:
            known.pop("unknown", None)
        if known:
            data[name] = list(known) if name != "license" or len(known) > 1 else next(iter(known))
    data["size_categories"] = [_size_category(sum(split["summary"]["rows"] for split in every))]
    data["configs"] = data.get("configs", []) + [_config(config, entries) for config, entries in splits.items()]
    data["dataset_info"] = data.get("dataset_info", []) + [_info(config, entries) for config, entries in splits.items()]


def _size_category(rows: int) -> str:
    """The Hub's name for a number of rows."""
    names = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B"]
    return names[max(0, min(len(names) - 1, int(math.log10(max(rows, 1))) - 2))]


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


def _render(splits: dict[str, list[dict[str, Any]]], repo: str) -> str:
    """fmrgen's own text of a card. What splits say of themselves is shown, never read as a template or as markup."""
    template = Template(
        (cards_folder() / "perturbed_split.md").read_text(encoding="utf-8"),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    helpers = {"figure": _figure, "escape": escape, "part": _part, "digest": _digest, "fenced": _fenced}
    return template.render(splits=splits, repo=repo, recipe_yaml=_yaml, **helpers).strip()


def _figure(estimate: Estimate | dict[str, Any] | None) -> str:
    return figure(Estimate(**estimate) if isinstance(estimate, dict) else estimate)


def _part(section: dict[str, Any]) -> str:
    """A component in a few words: its kind, and what names it."""
    named = next(
        (section[name] for name in ("model", "target", "path", "urls", "checkpoint") if section.get(name)), None
    )
    return f"{escape(section['kind'])} {escape(str(named))}" if named else escape(section["kind"])


def _digest(sha256: str | None) -> str:
    return f"sha256 `{sha256[:16]}…`" if sha256 else "none"


def _yaml(recipe: dict[str, Any]) -> str:
    return yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=110).strip()


def _fenced(text: str) -> str:
    """A code block that nothing in the text can end."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}yaml\n{text}\n{fence}"


def cards_folder() -> Path:
    """The card templates: inside an installed package, beside it in a checkout."""
    installed = Path(__file__).parent / "dataset_cards"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "dataset_cards"
