"""Every path in a dataset folder, which is laid out like the dataset repo that it may become."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CONFIG_NAME = r"\w[\w.-]*"
SPLIT_NAME = r"\w[\w.]*"
CARD = "README.md"
BENCHMARK = "eval.yaml"
CROISSANT = "croissant.json"
DELTAS = "deltas"  # of splits without their images
DELTA_FILE = rf"{DELTAS}/({CONFIG_NAME})/({SPLIT_NAME})\.json"  # the small one
DELTA_SHARD = rf"{DELTAS}/({CONFIG_NAME})/({SPLIT_NAME})-\d+-of-\d+\.parquet"
OWN_FOLDERS = ("provenance", "pictures", "results", "judgements", "explanations")
RESERVED_NAMES = ("all", *OWN_FOLDERS, CARD)  # `all` is a word of load_dataset's
SHARD_FILE = rf"{CONFIG_NAME}/{SPLIT_NAME}-\d+-of-\d+\.parquet"
# The small files that a commit to a repo is made from, beside the card.
SMALL_FILE = (
    rf"{re.escape(BENCHMARK)}|{re.escape(CROISSANT)}|((provenance|explanations)/{CONFIG_NAME}/{SPLIT_NAME}|"
    rf"(results|judgements)/{CONFIG_NAME}/{SPLIT_NAME}/\w[\w.-]*)\.json"
)


def rows_of_a_shard(asked: int | Literal["auto"], examples: int) -> int:
    """How many rows each shard of a split of so many examples has: `auto` makes about a thousand shards, of 10 to 500.

    The rule stays what it is, since folders are read by it.
    """
    return min(500, max(10, -(-examples // 1000))) if asked == "auto" else asked


@dataclass(frozen=True)
class SplitPaths:
    """Where everything of a split lies.

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
        """The same split in another folder."""
        return SplitPaths(root, self.config, self.split)

    @property
    def shards(self) -> Path:
        """The folder of the shards of all splits of the config."""
        return self.root / self.config

    def shard(self, number: int, of: int) -> Path:
        return self.shards / f"{self.split}-{number:05d}-of-{of:05d}.parquet"

    @property
    def shard_pattern(self) -> str:
        """The pattern of the shards' files, as the card names them."""
        return f"{self.config}/{self.split}-*.parquet"

    @property
    def provenance(self) -> Path:
        return self.root / "provenance" / self.config / f"{self.split}.json"

    @property
    def logs(self) -> Path:
        """What trackers keep of the job; hidden, as no part of the dataset."""
        return self.root / ".logs" / self.config / self.split

    @property
    def picture(self) -> Path:
        return self.root / "pictures" / self.config / f"{self.split}.png"

    @property
    def results(self) -> Path:
        """The folder of what evaluations found on the split, a file for each classifier."""
        return self.root / "results" / self.config / self.split

    @property
    def judgements(self) -> Path:
        """The folder of what judges say of the split's images, two files for each judge."""
        return self.root / "judgements" / self.config / self.split

    @property
    def explanation(self) -> Path:
        """Where the split's classifier fails, as proven."""
        return self.root / "explanations" / self.config / f"{self.split}.json"

    @property
    def lock(self) -> Path:
        """Held for a moment by a process that begins, ends or finishes the split."""
        return self.provenance.with_name(f".{self.split}.lock")

    def shard_lock(self, number: int) -> Path:
        """Held by the process that makes the shard."""
        return self.shards / f".{self.split}-{number:05d}.lock"

    def claims_among(self, names: Iterable[str]) -> list[str]:
        """The names of the split's shard locks among those of its folder's files, held or not."""
        return sorted(name for name in names if re.fullmatch(rf"\.{re.escape(self.split)}-\d+\.lock", name))

    def shards_among(self, names: Iterable[str]) -> list[str]:
        """The names of the split's shards among those of its folder's files, of whatever plan."""
        return sorted(name for name in names if re.fullmatch(rf"{re.escape(self.split)}-\d+-of-\d+\.parquet", name))

    def in_repo(self, path: Path) -> str:
        """A path of the split as a repo calls it."""
        return path.relative_to(self.root).as_posix()

    def found_shards(self) -> list[Path]:
        """The shards' files that are there, of whatever plan."""
        return sorted(self.root.glob(self.shard_pattern))

    def leftovers(self) -> list[Path]:
        """The temporary files of a run that was killed while it wrote."""
        shards = self.shards.glob(f".{self.split}-*-of-*.parquet.*.tmp")
        return [*shards, *self.provenance.parent.glob(f".{self.split}.json.*.tmp")]


def card_lock(root: Path) -> Path:
    """Held while the card of a folder is written."""
    return root / "provenance" / ".card.lock"


def splits_in(root: Path) -> list[SplitPaths]:
    """Every split that fmrgen made in a folder, finished or not, by its provenance; in the order of their names."""
    return [
        SplitPaths(root, *name) for name in splits_among(str(p.relative_to(root)) for p in root.glob("provenance/*/*"))
    ]


def deltas_among(files: Iterable[str]) -> list[tuple[str, str]]:
    """The configs and splits of the deltas in a repo, by the paths of its files: a small one, and shards beside it."""
    known = [*files]
    small, shards = (
        {(found[1], found[2]) for file in known if (found := re.fullmatch(pattern, file))}
        for pattern in (DELTA_FILE, DELTA_SHARD)
    )
    return sorted(small & shards)


def splits_among(files: Iterable[str]) -> list[tuple[str, str]]:
    """The configs and splits that fmrgen made in a repo, by the paths of its files; names that no recipe can have do
    not count.
    """
    pattern = re.compile(rf"provenance/({CONFIG_NAME})/({SPLIT_NAME})\.json")
    return sorted((found[1], found[2]) for found in map(pattern.fullmatch, files) if found is not None)
