"""The dataset card of a folder of perturbed splits."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import DatasetInfo, SplitDict, SplitInfo
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard, DatasetCardData
from jinja2 import StrictUndefined, Template

from fmrgen.errors import UserError, command_line, one_line
from fmrgen.files import (
    check_inside,
    fingerprint,
    open_plain,
    package_data,
    sha256_of,
    to_yaml,
    write_changed,
)
from fmrgen.locks import held
from fmrgen.metrics.cautions import cautions
from fmrgen.metrics.intervals import format_estimate
from fmrgen.metrics.summary import COMPARED, METRICS, Summary
from fmrgen.publish.croissant import write_croissant
from fmrgen.publish.entries import Entry, leaderboard
from fmrgen.recipe.sections import ComponentConfigs
from fmrgen.report.markdown import escape
from fmrgen.split.judgements import JudgeFile, judgements_config, judges_of_files
from fmrgen.storage.explanations import explained_lines
from fmrgen.storage.made_with import made_with, related_line
from fmrgen.storage.paths import CARD, SPLIT_NAME, SplitPaths, card_lock
from fmrgen.storage.provenance import Provenance, RecordedRecipe, read_all
from fmrgen.storage.schema import Schema
from fmrgen.storage.shards import SplitFolder, summary_of
from fmrgen.trust.cards import by_config, names_of_data
from fmrgen.trust.recipes import untrusted_code

_BEGIN, _END = "<!-- fmrgen: written by a machine from here -->", "<!-- fmrgen: to here -->"
_DESCRIBED = "fmrgen split files"
_TITLED = ": test images perturbed against "
_NAMED = 4  # classifiers in a title
_TAGS = ["fmrgen", "robustness", "perturbed"]


def write_card(root: Path, repo: str | None = None) -> None:
    """Writes README.md from the provenance of every finished split in `root`, and what there was in it before; of a
    repo with the shards of splits in the making too.

    Its `configs` are what `load_dataset(root, config, split=…)` goes by. Metadata and text that are not fmrgen's stay:
    its own text lies between two marks, its own configs are known by their descriptions. `repo` is what the dataset is
    called where the card is read; by default the folder's name.
    """
    splits: dict[str, list[_CardEntry]] = {}
    for (config, split), provenance in read_all(root).items():
        if provenance.is_finished or (repo is not None and provenance.files):
            paths = SplitPaths(root, config, split)
            summary = summary_of(provenance, SplitFolder.of(paths, provenance))
            judges = judges_of_files(paths, provenance.files_digest)
            said = explained_lines(paths, provenance.files_digest)
            found = _CardEntry(config, split, provenance, summary, leaderboard(paths, provenance), judges, said)
            splits.setdefault(config, []).append(found)
    path = root / CARD
    where = f"{repo}: README.md" if repo else str(path)
    card = _read_card(path, where)
    text = _render(splits, repo or root.resolve().name)
    data = _describe(card, splits, _unread(root, card, splits), where)
    parts = [
        f"---\n{to_yaml(DatasetCardData(**data).to_dict())}---",
        card.before,
        f"{_BEGIN}\n{text}\n{_END}",
        card.after,
    ]
    write_changed(path, "\n\n".join(part for part in parts if part).encode() + b"\n")
    write_croissant(root, repo or root.resolve().name)


def renew_card(root: Path) -> None:
    """Writes the card of a folder in which others may write it too: jobs of other splits, and evaluations."""
    with held(card_lock(root)):
        write_card(root)


def check_card(root: Path) -> None:
    """Raises UserError where `root` has a README.md that `write_card` could not go on from."""
    _read_card(root / CARD, str(root / CARD))


def data_named(path: Path, repo: str) -> list[str] | None:
    """The files and patterns that the configs of the card at `path` name; None where it has no configs."""
    configs = _read_card(path, f"{repo}: README.md").configs
    return [name for entry in configs.values() for name in names_of_data(entry.get("data_files"))] if configs else None


def citation_tag(config: str, split: str, fingerprint: str, files: str) -> str:
    """The tag of a split on the Hub: it names the recipe and the very files, so what is cited by it never changes.

    Args:
        config: its config.
        split: its name in that.
        fingerprint: of its recipe.
        files: the digest of its files.
    """
    return f"{config}-{split}-{fingerprint}-{files[:8]}".replace("..", "-")


@dataclass(frozen=True)
class _CardEntry:
    """A finished split, as the template and the metadata take it."""

    config: str
    name: str
    provenance: Provenance
    summary: Summary
    leaderboard: list[Entry]
    judges: list[JudgeFile]
    explained: list[str]

    @property
    def _paths(self) -> SplitPaths:
        return SplitPaths(Path(), self.config, self.name)

    @property
    def picture(self) -> str:
        """Its path in the repo."""
        return self._paths.picture.as_posix()

    @property
    def results(self) -> str:
        """The path in the repo of what was found on it."""
        return self._paths.results.as_posix()

    @property
    def judgements(self) -> str:
        """The path in the repo of what judges say of it."""
        return self._paths.judgements.as_posix()

    @property
    def title(self) -> str:
        """What it is, as a title."""
        return f"{self._paths.name}{_TITLED}{self.name}"

    @property
    def tag(self) -> str:
        """That it is cited by on the Hub."""
        return citation_tag(self.config, self.name, self.provenance.fingerprint, self.provenance.files_digest)

    def bibtex(self, repo: str) -> str:
        """The entry to cite this very split by."""
        # Runs are as the maker of the split wrote them: only what looks like a year or a version is repeated.
        runs = self.provenance.runs
        started = [run.started[:4] for run in runs if re.match(r"\d{4}-", run.started)]
        known = [run.versions.get("fmrgen", "") for run in runs if run.versions]
        versions = [version for version in known if re.fullmatch(r"[\w.+-]{1,40}", version)]
        owner, slash, _ = repo.partition("/")
        entry = {"title": self.title.replace("_", "\\_")}
        entry |= {"author": owner, "publisher": "Hugging Face"} if slash else {}
        entry |= {"year": max(started)} if started else {}
        entry |= {"url": f"https://huggingface.co/datasets/{repo}"} if slash else {}
        made = f", made with fmrgen {versions[-1]}" if versions else ""
        entry["note"] = f"Revision {self.tag}{made}".replace("_", "\\_")
        lines = [f"  {key:<9} = {{{value}}}," for key, value in entry.items()]
        key = re.sub(r"\W+", "_", f"{repo} {self.config} {self.name}")
        return "\n".join([f"@misc{{{key},", *lines, "}"])


@dataclass(frozen=True)
class _Card:
    """A card as it was found: its metadata, what it says of each config, and its text around fmrgen's own."""

    data: dict[str, Any]
    configs: dict[str, dict[str, Any]]
    infos: dict[str, dict[str, Any]]
    before: str
    after: str


def _read_card(path: Path, where: str) -> _Card:
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
    before, begin, rest = card.text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    marks = card.text.count(_BEGIN), card.text.count(_END)
    if marks not in ((0, 0), (1, 1)) or bool(begin) != bool(end):
        raise UserError(
            f"{where}: fmrgen writes its text between {_BEGIN} and {_END}, but these two marks are not there once "
            "each, in this order; fix that by hand"
        )
    return _Card(data, configs, infos, before.strip(), after.strip())


def _is_own(config: dict[str, Any]) -> bool:
    return str(config.get("description", "")).startswith(_DESCRIBED)


@dataclass(frozen=True)
class _Unread:
    """A split that the card named before, whose files are there, and whose provenance this version can't read."""

    data_files: dict[str, Any]
    size: dict[str, Any] | None
    provenance: str | None  # sha256


def _unread(root: Path, card: _Card, splits: dict[str, list[_CardEntry]]) -> dict[str, list[_Unread]]:
    """What fmrgen's own entries of the card named, by config, and is not among the `splits` that could be read.

    It stays in the card as long as its files are there: else `load_dataset` would not find it any more.
    """
    found: dict[str, list[_Unread]] = {}
    for config, entry in card.configs.items():
        read = {split.name for split in splits.get(config, [])}
        sizes = card.infos.get(config, {}).get("splits")
        files = entry.get("data_files")
        for entry_file in files if _is_own(entry) and isinstance(files, list) else []:
            split = entry_file.get("split") if isinstance(entry_file, dict) else None
            if not isinstance(split, str) or not re.fullmatch(SPLIT_NAME, split) or split in read:
                continue
            paths = SplitPaths(root, config, split)
            path = paths.provenance
            if path.is_file() or paths.found_shards():
                size = [size for size in sizes if isinstance(size, dict) and size.get("name") == split] if sizes else []
                digest = sha256_of(path) if path.is_file() else None
                found.setdefault(config, []).append(_Unread(entry_file, size[0] if size else None, digest))
    return found


def _is_own_title(name: Any) -> bool:
    return not name or _TITLED in str(name)


def _config(config: str, entries: list[_CardEntry], unread: list[_Unread], earlier: dict[str, Any]) -> dict[str, Any]:
    digests: list[Any] = [split.provenance.files for split in entries] + [split.provenance for split in unread]
    return {
        **earlier,
        "config_name": config,
        # load_dataset keys its cache by this mapping and not by the files: without their digest in it, the rows of
        # another folder of the same name, or of an earlier split in this one, would be loaded from the cache.
        "description": f"{_DESCRIBED} {fingerprint(digests)}",
        "data_files": [{"split": s.name, "path": SplitPaths(Path(), config, s.name).shard_pattern} for s in entries]
        + [split.data_files for split in unread],
    }


def _judgements_config(config: str, entries: list[_CardEntry]) -> dict[str, Any] | None:
    """The config of what judges say of the splits of a config; None where there is nothing."""
    judged = [split for split in entries if split.judges]
    if not judged:
        return None
    files = [{"split": split.name, "path": f"{split.judgements}/*.parquet"} for split in judged]
    digest = fingerprint([judge.sha256 for split in judged for judge in split.judges])
    return {"config_name": judgements_config(config), "description": f"{_DESCRIBED} {digest}", "data_files": files}


def _info(config: str, entries: list[_CardEntry], unread: list[_Unread]) -> dict[str, Any]:
    """The columns and sizes of a config, as `datasets` reads them."""
    sizes = {s.name: SplitInfo(s.name, s.provenance.num_bytes, s.summary.rows) for s in entries}
    for split in unread:
        if split.size is not None:
            known = {name: split.size.get(name, 0) for name in ("num_bytes", "num_examples")}
            sizes[split.size["name"]] = SplitInfo(split.size["name"], **known)
    described = DatasetInfo(
        features=entries[0].provenance.row_schema.features,
        config_name=config,
        splits=SplitDict(sizes),
        download_size=sum(s.provenance.download_size for s in entries),
        dataset_size=sum(size.num_bytes for size in sizes.values()),
    )
    data = DatasetCardData()
    DatasetInfosDict({config: described}).to_dataset_card_data(data)
    return data.to_dict()["dataset_info"]


def _describe(
    card: _Card, splits: dict[str, list[_CardEntry]], unread: dict[str, list[_Unread]], where: str
) -> dict[str, Any]:
    """The card's metadata with all that the Hub understands of the splits; what others said of other things stays."""
    data = dict(card.data)
    every = [split for entries in splits.values() for split in entries]
    sources = [split.provenance.recipe.source for split in every]
    hub_ids = [
        s.get("path") for s in sources if s.kind == "datasets" and re.fullmatch(r"[\w.-]+/[\w.-]+", str(s.get("path")))
    ]
    for name, values in {
        "license": [source.get("license") or "unknown" for source in sources],
        "task_categories": ["image-classification"],
        "source_datasets": hub_ids,
        "tags": _TAGS,
    }.items():
        before = data.get(name) or []
        before = [before] if isinstance(before, str) else before
        if not isinstance(before, list) or not all(isinstance(value, str) for value in before):
            raise UserError(f"{where}: its {name} is neither a string nor a list of strings; fix it by hand")
        known = dict.fromkeys([*before, *values])
        if len(known) > 1:
            known.pop("unknown", None)
        if known:
            data[name] = list(known) if name != "license" or len(known) > 1 else next(iter(known))
    data["pretty_name"] = _title(splits) if _is_own_title(data.get("pretty_name")) else data["pretty_name"]
    data["size_categories"] = [_size_category(sum(split.summary.rows for split in every))]
    kept = (name for name, entry in card.configs.items() if not _is_own(entry) or name in unread)
    others = {name for name in kept if name not in splits}
    data["configs"] = [{**entry, "config_name": name} for name, entry in card.configs.items() if name in others]
    data["configs"] += [
        _config(name, entries, unread.get(name, []), card.configs.get(name, {})) for name, entries in splits.items()
    ]
    data["configs"] += [entry for name, entries in splits.items() if (entry := _judgements_config(name, entries))]
    data["dataset_info"] = [{**entry, "config_name": name} for name, entry in card.infos.items() if name in others]
    data["dataset_info"] += [_info(name, entries, unread.get(name, [])) for name, entries in splits.items()]
    return data


def _size_category(rows: int) -> str:
    """The Hub's name for a number of rows."""
    names = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B"]
    return names[max(0, min(len(names) - 1, int(math.log10(max(rows, 1))) - 2))]


def _title(splits: dict[str, list[_CardEntry]]) -> str:
    """What the splits are, in one line."""
    every = [split for entries in splits.values() for split in entries]
    if len(every) == 1:
        return every[0].title
    names = list(dict.fromkeys(split.name for split in every))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(splits)}{_TITLED}{', '.join(names[:_NAMED])}{more}"


def _render(splits: dict[str, list[_CardEntry]], repo: str) -> str:
    """fmrgen's own text of a card. What splits say of themselves is shown, never read as a template or as markup."""
    template = Template(
        (package_data("dataset_cards") / "perturbed_split.md").read_text(encoding="utf-8"),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    helpers: dict[str, Any] = {
        "figure": format_estimate,
        "cautions": cautions,
        "metrics": METRICS,
        "compared": COMPARED,
        "escape": escape,
        "made_with": made_with,
        "related_line": related_line,
        "digest": _digest,
        "fenced": _fenced,
        "code_of": _code_of,
        "recipe_yaml": _yaml,
        "judgements_config": judgements_config,
    }
    every = [split.provenance.row_schema for entries in splits.values() for split in entries]
    title = _title(splits)
    columns = {column.name: column for schema in every or [Schema(())] for column in schema.columns}
    with command_line():  # a card shows the recipe, whoever wrote it
        return template.render(title=title, splits=splits, repo=repo, columns=columns.values(), **helpers).strip()


def _code_of(recipe: RecordedRecipe) -> str:
    """All code of others that a recipe runs; nothing where it runs none."""
    tree = {name: getattr(recipe, name).tree for name in ComponentConfigs.model_fields}
    try:
        return ", ".join(untrusted_code(ComponentConfigs, tree, "recipe"))
    except UserError as error:  # of another version, or of nobody's
        return f"of a kind that this version of fmrgen does not know ({error})"


def _digest(sha256: str | None) -> str:
    return f"sha256 `{re.sub('[^0-9a-f]', '?', sha256[:16])}…`" if sha256 else "none"


def _yaml(recipe: RecordedRecipe) -> str:
    return to_yaml(recipe.tree, width=110).strip()


def _fenced(text: str) -> str:
    """A code block that nothing in the text can end."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}yaml\n{text}\n{fence}"
