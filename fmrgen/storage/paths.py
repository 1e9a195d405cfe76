"""All paths in a dataset folder, which is laid out like the dataset repo that it may become."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CONFIG_NAME = r"\w[\w.-]*"
SPLIT_NAME = r"\w[\w.]*"
CARD = "README.md"
BENCHMARK = "eval.yaml"
DELTAS = "deltas"  # of splits without their images
DELTA_FILE = rf"{DELTAS}/({CONFIG_NAME})/({SPLIT_NAME})\.json"  # the small file of each
DELTA_SHARD = rf"{DELTAS}/({CONFIG_NAME})/({SPLIT_NAME})-\d+-of-\d+\.parquet"
OWN_FOLDERS = ("provenance", "pictures", "results", "judgements")
RESERVED_NAMES = ("all", *OWN_FOLDERS, CARD)  # load_dataset takes `all` for all splits
SHARD_FILE = rf"{CONFIG_NAME}/{SPLIT_NAME}-\d+-of-\d+\.parquet"
# The small files that a commit to a repo is made from.
SMALL_FILE = (
    rf"{re.escape(CARD)}|{re.escape(BENCHMARK)}|{DELTA_FILE}|(provenance/{CONFIG_NAME}/{SPLIT_NAME}|"
    rf"(results|judgements)/{CONFIG_NAME}/{SPLIT_NAME}/\w[\w.-]*)\.json"
)
# What is brought to every machine that works on a dataset folder, by its path there: also pictures, and what unfinished
# splits have on record.
MIRRORED = re.compile(rf"{SMALL_FILE}|pictures/.*\.png|provenance/{CONFIG_NAME}/\.{SPLIT_NAME}\.[\w-]+\.json")


def rows_of_a_shard(shard_size: int | Literal["auto"], examples: int) -> int:
    """Return how many rows each shard of a split has: `auto` makes about a thousand shards, of 10 to 500 rows.

    The rule must not change, since it tells which shards an existing folder has.
    """
    if shard_size != "auto":
        return shard_size
    return min(500, max(10, -(-examples // 1000)))


@dataclass(frozen=True)
class SplitPaths:
    """The paths of all files of a split.

    Attributes:
        root: the dataset folder; `Path()` for the paths in a repo.
        config, split: the names of the split.
    """

    root: Path
    config: str
    split: str

    @property
    def name(self) -> str:
        """`CONFIG/SPLIT`."""
        return f"{self.config}/{self.split}"

    def at(self, root: Path) -> "SplitPaths":
        """Return the paths of the same split in another folder."""
        return SplitPaths(root, self.config, self.split)

    @property
    def shards(self) -> Path:
        """The folder of the shards of all splits of the config."""
        return self.root / self.config

    def shard(self, number: int, total: int) -> Path:
        return self.shards / f"{self.split}-{number:05d}-of-{total:05d}.parquet"

    @property
    def shard_pattern(self) -> str:
        """The glob pattern of the shards' files, as the card names them."""
        return f"{self.config}/{self.split}-*.parquet"

    @property
    def provenance(self) -> Path:
        return self.root / "provenance" / self.config / f"{self.split}.json"

    @property
    def logs(self) -> Path:
        """The folder of the trackers' logs; hidden, since it is no part of the dataset."""
        return self.root / ".logs" / self.config / self.split

    @property
    def picture(self) -> Path:
        return self.root / "pictures" / self.config / f"{self.split}.png"

    @property
    def results(self) -> Path:
        """The folder of the results of evaluations on the split, a file for each classifier."""
        return self.root / "results" / self.config / self.split

    @property
    def judgements(self) -> Path:
        """The folder of the judges' labels of the split's images, two files for each judge."""
        return self.root / "judgements" / self.config / self.split

    @property
    def begun(self) -> Path:
        """The provenance of a split that is not finished; hidden, since nobody but its job reads it."""
        return self.record("begun")

    @property
    def is_on_record(self) -> bool:
        """Whether a job has begun the split, or finished it."""
        return self.provenance.exists() or self.begun.exists()

    def record(self, name: str) -> Path:
        """Return what an unfinished split has on record beside its beginning: a run, or something measured."""
        return self.provenance.with_name(f".{self.split}.{name}.json")

    def records_among(self, names: Iterable[str]) -> list[str]:
        """Return what an unfinished split has on record, its beginning too, among the names of its folder's files."""
        pattern = re.compile(rf"\.{re.escape(self.split)}\.[\w-]+\.json")
        return sorted(filter(pattern.fullmatch, names))

    @property
    def claim(self) -> Path:
        """The claim that a process holds for a moment when it begins or finishes the split."""
        return self.provenance.with_name(f".{self.split}.claim")

    def shard_claim(self, number: int) -> Path:
        """Return the claim that the process holds which makes the shard."""
        return self.shards / f".{self.split}-{number:05d}.claim"

    def claims_among(self, names: Iterable[str]) -> list[str]:
        """Return the files of the split's claims on shards, held or not, among the names of its folder's files."""
        pattern = re.compile(rf"\.{re.escape(self.split)}-\d+\.claim\.\d+")
        return sorted(filter(pattern.fullmatch, names))

    def shards_among(self, names: Iterable[str]) -> list[str]:
        """Return the split's shards among the names of its folder's files, whatever their number and size."""
        pattern = re.compile(rf"{re.escape(self.split)}-\d+-of-\d+\.parquet")
        return sorted(filter(pattern.fullmatch, names))

    def in_repo(self, path: Path) -> str:
        """Return a path of the split as it is in a repo."""
        return path.relative_to(self.root).as_posix()

    def found_shards(self) -> list[Path]:
        """Return the existing files of shards, whatever their number and size."""
        return sorted(self.root.glob(self.shard_pattern))

    def leftovers(self) -> list[Path]:
        """Return the temporary files of processes that were killed while they wrote."""
        shards = self.shards.glob(f".{self.split}-*.parquet.*.tmp")
        return [*shards, *self.provenance.parent.glob(f".{self.split}.json.*.tmp")]


def card_claim(root: Path) -> Path:
    """Return the claim that is held while the card of a folder is written."""
    return root / "provenance" / ".card.claim"


def splits_in(root: Path) -> list[SplitPaths]:
    """Return every split that fmrgen made in a folder, finished or not, by what is on record; sorted by their names."""
    files = {path.relative_to(root).as_posix() for path in root.glob("provenance/*/*")}
    finished = {re.sub(r"/\.([^/]+)\.begun\.json$", r"/\1.json", file) for file in files}
    return [SplitPaths(root, config, split) for config, split in splits_among(finished)]


def deltas_among(files: Iterable[str]) -> list[tuple[str, str]]:
    """Return config and split of each delta in a repo that has both its small file and shards."""
    names = list(files)
    return sorted(_named_among(names, DELTA_FILE) & _named_among(names, DELTA_SHARD))


def splits_among(files: Iterable[str]) -> list[tuple[str, str]]:
    """Return config and split of each provenance in a repo, sorted; names that no recipe can have do not count."""
    return sorted(_named_among(files, rf"provenance/({CONFIG_NAME})/({SPLIT_NAME})\.json"))


def _named_among(files: Iterable[str], pattern: str) -> set[tuple[str, str]]:
    """Return the config and split that a pattern finds in the names of files."""
    matches = filter(None, [re.fullmatch(pattern, file) for file in files])
    return {(match[1], match[2]) for match in matches}
