"""The dataset card of a folder of perturbed splits."""

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from huggingface_hub import DatasetCard, DatasetCardData
from jinja2 import StrictUndefined, Template
from pydantic import Field, TypeAdapter, ValidationError

from fmrgen.errors import UserError, command_line, one_line
from fmrgen.files import (
    check_inside,
    fingerprint,
    open_plain,
    package_data,
    read_json,
    to_yaml,
    write_changed,
)
from fmrgen.metrics.cautions import cautions, tightness
from fmrgen.metrics.intervals import Estimate, format_estimate
from fmrgen.metrics.summary import COMPARED, Metric, Summary
from fmrgen.recipe.sections import ComponentConfigs
from fmrgen.report.summary import main_lines
from fmrgen.results.markdown_text import escape
from fmrgen.split.judgements import JudgeFile, JudgementsFolder, judgements_config
from fmrgen.storage.claims import Claims
from fmrgen.storage.made_with import lines_on_models, made_with
from fmrgen.storage.paths import CARD, SplitPaths, card_claim
from fmrgen.storage.provenance import Provenance, RecordedComponent, RecordedRecipe, read_all
from fmrgen.storage.shards import summary_of
from fmrgen.storage.store import Store, mirror, send
from fmrgen.trust.cards import by_config, names_of_data
from fmrgen.trust.recipes import untrusted_demands

_BEGIN, _END = "<!-- fmrgen: written by a machine from here -->", "<!-- fmrgen: to here -->"
_DESCRIBED = "fmrgen split files"  # the descriptions of fmrgen's own configs begin so
_TITLED = ": test images perturbed against "  # fmrgen's own titles have it in them
_NAMED = 4  # classifiers in a title
RESULT_SCHEMA = "fmrgen-result/1"  # of the files under results/
_TAGS = ["fmrgen", "robustness", "perturbed"]
_SIZE_CATEGORIES = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B"]  # the Hub's


def write_card(root: Path, repo: str | None = None) -> None:
    """Write README.md from the provenance of every finished split in `root`, and from the README.md that is there.

    Its `configs` are what `load_dataset(root, config, split=…)` goes by. Metadata and text that are not fmrgen's stay:
    its own text lies between two marks, and its own configs have descriptions that begin in its way.

    `root` is the dataset folder, or the small files of a repo; `repo` is the name of the dataset where the card is
    read, by default the folder's.
    """
    splits = _card_entries(root)
    path = root / CARD
    name = repo or root.resolve().name
    where = f"{repo}: README.md" if repo else str(path)
    card = _read_card(path, where)
    text = _render(splits, name)
    data = _describe(card, splits, where)
    parts = [
        f"---\n{to_yaml(DatasetCardData(**data).to_dict())}---",
        card.before,
        f"{_BEGIN}\n{text}\n{_END}",
        card.after,
    ]
    write_changed(path, "\n\n".join(filter(None, parts)).encode() + b"\n")


def renew_card(store: Store) -> None:
    """Write the card of a folder, alone, since jobs of other splits and evaluations write it too."""
    with Claims(store).alone(card_claim(store.root)):
        mirror(store)
        write_card(store.root)
        send(store, store.root / CARD)


def check_card(root: Path) -> None:
    """Raise UserError if `root` has a README.md that `write_card` can't read."""
    _read_card(root / CARD, str(root / CARD))


def data_named(path: Path, repo: str) -> list[str] | None:
    """Return the files and patterns that the configs of the card at `path` name; None if it has no configs."""
    configs = _read_card(path, f"{repo}: README.md").configs
    if not configs:
        return None
    names: list[str] = []
    for entry in configs.values():
        names += names_of_data(entry.get("data_files"))
    return names


def citation_tag(config: str, split: str, fingerprint: str, files: str) -> str:
    """Return the tag of a split on the Hub. It names the recipe and the very files, so what it cites never changes.

    `fingerprint` is that of the recipe, `files` the digest of the files.
    """
    return f"{config}-{split}-{fingerprint}-{files[:8]}".replace("..", "-")


@dataclass(frozen=True)
class FinishedSplit:
    """A finished split in a folder, or in the local copy of a repo."""

    paths: SplitPaths
    provenance: Provenance

    @property
    def repo_paths(self) -> SplitPaths:
        """Its paths in the repo."""
        return self.paths.at(Path())

    @property
    def tag(self) -> str:
        """The tag by which it is cited on the Hub."""
        provenance = self.provenance
        return citation_tag(self.paths.config, self.paths.split, provenance.fingerprint, provenance.files_digest)


@dataclass(frozen=True)
class Entry:
    """The results of one classifier, a file under results/."""

    schema: Annotated[str, Field(pattern=r"^fmrgen-result/\d+$")]
    files: str  # the digest of the split's files
    classifier: Annotated[str, Field(pattern=r"[\p{L}\p{N}\p{P}\p{S}]")]  # its name, with some visible character
    conditioned: bool  # whether the split was generated against it
    at_chance: bool  # whether it is hardly better than chance on the originals, so that it has no rank
    figures: Mapping[str, Estimate | None]  # of the compared metrics


_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)


def _results_on(paths: SplitPaths, provenance: Provenance) -> list[Entry]:
    """Return the results on the split as it is now, by falling FMR, those at chance last.

    Results on earlier files are left out, and files that are not results: anyone may have put them there.
    """
    entries = []
    for path in sorted(paths.results.glob("*.json")):
        with suppress(UserError, ValidationError):
            check_inside(path, paths.root)
            content = read_json(path)
            entry = _ENTRY.validate_python(content | {"figures": {name: content.get(name) for name in COMPARED}})
            if entry.files == provenance.files_digest:
                entries.append(entry)
    return sorted(entries, key=_rank)


def _rank(entry: Entry) -> tuple[bool, float]:
    """Return the key by which results are sorted: those at chance last, in either group those without a figure last."""
    figure = entry.figures["fmr"]
    return entry.at_chance, 1 if figure is None else -figure.value


@dataclass(frozen=True)
class _CardEntry(FinishedSplit):
    """A finished split as the template and the metadata need it."""

    summary: Summary  # the figures of its own classifier
    others: list[Entry]  # the results of `evaluate` on it, ranked
    judges: list[JudgeFile]  # that judged it in addition to its oracle


def _card_entries(root: Path) -> dict[str, list[_CardEntry]]:
    """Return the splits for the card of a folder, by their configs."""
    splits: dict[str, list[_CardEntry]] = {}
    for (config, split), provenance in read_all(root).items():
        if provenance.is_finished:
            paths = SplitPaths(root, config, split)
            summary = summary_of(provenance)
            judges = JudgementsFolder(paths).judges_of(provenance.files_digest)
            entry = _CardEntry(paths, provenance, summary, _results_on(paths, provenance), judges)
            splits.setdefault(config, []).append(entry)
    return splits


@dataclass(frozen=True)
class _Card:
    """An existing card."""

    data: dict[str, Any]  # its metadata, but for that of configs
    configs: dict[str, dict[str, Any]]  # the entries of `configs`, by the names of the configs
    infos: dict[str, dict[str, Any]]  # the entries of `dataset_info`, by the names of the configs
    before: str  # the text before fmrgen's own
    after: str  # the text after it


def _read_card(path: Path, where: str) -> _Card:
    """Return the card at `path`, an empty one if there is none. Raises UserError if it can't be read."""
    if not path.exists() and not path.is_symlink():
        return _Card({}, {}, {}, "", "")
    check_inside(path, path.parent)
    try:
        with open_plain(path) as file:
            card = DatasetCard(file.read().decode())
        data = card.data.to_dict()
    except Exception as error:  # anyone may have written it
        raise UserError(f"{where}: its metadata can't be read, fix it by hand: {one_line(error)}") from None
    configs = by_config(data.pop("configs", []), "configs", where)
    infos = by_config(data.pop("dataset_info", []), "dataset_info", where)
    if re.findall(f"{_BEGIN}|{_END}", card.text) not in ([], [_BEGIN, _END]):
        raise UserError(
            f"{where}: fmrgen writes its text between {_BEGIN} and {_END}, but these two marks are not there once "
            "each, in this order; fix that by hand"
        )
    before, _, rest = card.text.partition(_BEGIN)
    return _Card(data, configs, infos, before.strip(), rest.partition(_END)[2].strip())


def _config(config: str, entries: list[_CardEntry], earlier: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of a config in the card's `configs`; what others added to the `earlier` one stays."""
    return {
        **earlier,
        "config_name": config,
        # load_dataset keys its cache by this mapping and not by the files: without their digest in it, the rows of
        # another folder of the same name, or of an earlier split in this one, would be loaded from the cache.
        "description": f"{_DESCRIBED} {fingerprint([entry.provenance.files for entry in entries])}",
        "data_files": [{"split": entry.paths.split, "path": entry.paths.shard_pattern} for entry in entries],
    }


def _judgements_config(config: str, entries: list[_CardEntry]) -> dict[str, Any]:
    """Return the config of the judgements of a config's splits that have any."""
    files, digests = [], []
    for entry in entries:
        files.append({"split": entry.paths.split, "path": f"{entry.repo_paths.judgements}/*.parquet"})
        digests += [judge.sha256 for judge in entry.judges]
    description = f"{_DESCRIBED} {fingerprint(digests)}"
    return {"config_name": judgements_config(config), "description": description, "data_files": files}


def _info(config: str, entries: list[_CardEntry]) -> dict[str, Any]:
    """Return the sizes of a config, as `datasets` reads them. Its columns are in its files, names of classes too."""
    splits = []
    for entry in entries:
        size = {"num_bytes": entry.provenance.num_bytes, "num_examples": entry.summary.rows}
        splits.append({"name": entry.paths.split, **size})
    return {
        "config_name": config,
        "splits": splits,
        "download_size": sum(entry.provenance.download_size for entry in entries),
        "dataset_size": sum(entry.provenance.num_bytes for entry in entries),
    }


def _describe(card: _Card, splits: dict[str, list[_CardEntry]], where: str) -> dict[str, Any]:
    """Return the card's metadata, with all of the splits that the Hub understands; others' metadata stays.

    The splits are by their configs; errors start with `where`.
    """
    data = dict(card.data)
    entries = list(chain.from_iterable(splits.values()))
    sources = [entry.provenance.recipe.source for entry in entries]
    own_values = {
        "license": [source.get("license") or "unknown" for source in sources],
        "task_categories": ["image-classification"],
        "source_datasets": _hub_ids(sources),
        "tags": _TAGS,
    }
    for key, values in own_values.items():
        merged = _merge_values(data.get(key), values, f"{where}: its {key}")
        if key == "license" and len(merged) == 1:
            data[key] = merged[0]
        elif merged:
            data[key] = merged
    if not data.get("pretty_name") or _TITLED in str(data["pretty_name"]):
        data["pretty_name"] = _title(splits)
    data["size_categories"] = [_size_category(sum(entry.summary.rows for entry in entries))]
    others = set(card.configs) - set(splits)
    others -= {name for name in others if str(card.configs[name].get("description", "")).startswith(_DESCRIBED)}
    data["configs"] = _configs(card, splits, others)
    data["dataset_info"] = [{**info, "config_name": name} for name, info in card.infos.items() if name in others]
    data["dataset_info"] += [_info(name, own) for name, own in splits.items()]
    return data


def _hub_ids(sources: list[RecordedComponent]) -> list[str]:
    """Return the Hub's datasets among the sources."""
    ids = []
    for source in sources:
        path = source.get("path")
        if source.kind == "datasets" and re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)):
            ids.append(path)
    return ids


def _merge_values(before: Any, values: list[str], where: str) -> list[str]:
    """Return the values of a key of the metadata and fmrgen's own, each once; "unknown" only if it is alone.

    Raises UserError, starting with `where`, if the value `before` is not a string or a list of strings.
    """
    before = before or []
    if isinstance(before, str):
        before = [before]
    if not isinstance(before, list) or not all(isinstance(value, str) for value in before):
        raise UserError(f"{where} is neither a string nor a list of strings; fix it by hand")
    merged = list(dict.fromkeys([*before, *values]))
    if len(merged) > 1 and "unknown" in merged:
        merged.remove("unknown")
    return merged


def _configs(card: _Card, splits: dict[str, list[_CardEntry]], others: set[str]) -> list[dict[str, Any]]:
    """Return the card's `configs`: those that stay, those of the splits, and those of the judgements."""
    configs = [{**config, "config_name": name} for name, config in card.configs.items() if name in others]
    judgements = []
    for name, entries in splits.items():
        configs.append(_config(name, entries, card.configs.get(name, {})))
        judged = [entry for entry in entries if entry.judges]
        if judged:
            judgements.append(_judgements_config(name, judged))
    return configs + judgements


def _size_category(rows: int) -> str:
    """Return the Hub's name for a number of rows."""
    digits = int(math.log10(max(rows, 1))) + 1
    return _SIZE_CATEGORIES[max(0, min(len(_SIZE_CATEGORIES) - 1, digits - 3))]


def _title(splits: dict[str, list[_CardEntry]]) -> str:
    """Return a title for the splits."""
    names = [entry.paths.split for entry in chain.from_iterable(splits.values())]
    if len(names) == 1:
        return f"{next(iter(splits))}/{names[0]}{_TITLED}{names[0]}"
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(splits)}{_TITLED}{', '.join(names[:_NAMED])}{more}"


def _render(splits: dict[str, list[_CardEntry]], repo: str) -> str:
    """Return fmrgen's own text of a card. What splits say of themselves is shown, never read as template or markup."""
    template = Template(
        (package_data("dataset_cards") / "perturbed_split.md").read_text(encoding="utf-8"),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    helpers: dict[str, Any] = {
        "figure": format_estimate,
        "figures_of": main_lines,
        "cautions": cautions,
        "tightness": tightness,
        "compared_in": _compared_in,
        "escape": escape,
        "digest": _digest,
        "code_of": _code_of,
        "made_with": made_with,
        "lines_on_models": lines_on_models,
        "judgements_config": judgements_config,
    }
    title = _title(splits)
    with command_line():  # a card shows the recipe, whoever wrote it
        return template.render(title=title, splits=splits, repo=repo, **helpers).strip()


def _compared_in(results: Sequence[Entry]) -> dict[str, Metric]:
    """Return the compared metrics of which an entry has a figure, by their fields."""
    shown = {}
    for name, metric in COMPARED.items():
        if any(entry.figures.get(name) for entry in results):
            shown[name] = metric
    return shown


def _code_of(recipe: RecordedRecipe) -> str:
    """Return all code of others that a recipe runs; "" if it runs none."""
    tree = {name: getattr(recipe, name).tree for name in ComponentConfigs.model_fields}
    try:
        return ", ".join(untrusted_demands(ComponentConfigs, tree, "recipe").code)
    except UserError as error:  # a kind of another version, or none at all
        return f"of a kind that this version of fmrgen does not know ({error})"


def _digest(sha256: str | None) -> str:
    if not sha256:
        return "none"
    start = re.sub("[^0-9a-f]", "?", sha256[:16])  # anyone may have written it
    return f"sha256 `{start}…`"
