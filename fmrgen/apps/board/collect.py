"""What repos and folders hold of splits and results, read without an image of them."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from fmrgen.errors import UserError
from fmrgen.files import check_inside, fingerprint, open_plain
from fmrgen.hub.fetch import fetched
from fmrgen.metrics.cautions import has_accuracy_of_chance, has_masked_gradient, has_rough_gradient
from fmrgen.metrics.intervals import interval_ends
from fmrgen.metrics.summary import Summary
from fmrgen.publish.entries import Entry, leaderboard, ranked, sort_key
from fmrgen.split.judgements import JudgeFile, judges_of_files
from fmrgen.storage.made_with import made_with, related_line
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import Provenance, read_all
from fmrgen.storage.shards import summary_of

_SMALL = ["README.md", "provenance/**", "results/**", "judgements/**/*.json", "pictures/**"]
_LARGEST = 8 << 20  # bytes of such a file
_OF_A_CLASSIFIER = ("classifier",)  # in what splits of one family may differ


@dataclass(frozen=True)
class BoardEntry:
    """A finished split of a repo or folder.

    Attributes:
        place: where it is, as it is called.
        repo: on the Hub, and its commit; empty and None for a folder.
        paths: in the folder, or in the copy of the repo.
        provenance: and what it says.
        classifier: that it was made against, as evaluations on it call that; else the split's name.
        summary: the figures of its own classifier.
        entries: results of other classifiers on it.
        judges: those who looked at it besides its oracle.
        made_with: in words.
    """

    place: str
    repo: str
    commit: str | None
    paths: SplitPaths
    provenance: Provenance
    classifier: str
    summary: Summary
    entries: list[Entry]
    judges: list[JudgeFile]
    made_with: dict[str, str]

    @property
    def name(self) -> str:
        """As `evaluate` takes it."""
        return f"{self.place}:{self.paths.name}"

    @property
    def family(self) -> str:
        """What splits have in common whose figures may stand beside each other: everything but the classifier.

        That is the version of the rows, the source with its labels, generator, oracle, perturbation, and the weights
        of generator and oracle.
        """
        recipe = self.provenance.recipe.tree
        kept = {
            name: value for name, value in recipe.items() if name not in ("description", "output", *_OF_A_CLASSIFIER)
        }
        weights = self.provenance.weights_sha256
        return fingerprint(
            [
                self.provenance.rows_version,
                kept,
                list(self.provenance.labels),
                [weights.generator, weights.oracle],
                self.provenance.examples,
            ]
        )

    @property
    def at_chance(self) -> bool:
        """Whether its own classifier is hardly better than chance on the originals."""
        return has_accuracy_of_chance(self.summary, len(self.provenance.labels))

    @property
    def masked(self) -> bool:
        """Whether its own classifier's gradient is masked."""
        return self.provenance.recipe.perturb.is_guided and has_masked_gradient(self.summary)

    @property
    def rough(self) -> bool:
        """Whether that is rough, which costs no rank."""
        return self.provenance.recipe.perturb.is_guided and has_rough_gradient(self.summary)

    @property
    def related(self) -> str | None:
        """A line where its own classifier and its oracle are related, which costs no rank."""
        return related_line(self.provenance)

    @property
    def unranked(self) -> bool:
        """Whether FMR on it says nothing of robustness."""
        return self.at_chance or self.masked

    def picture(self) -> bytes | None:
        """Its contact sheet, where there is one of a size that is a picture's."""
        path = self.paths.picture
        try:
            check_inside(path, self.paths.root)
            with open_plain(path) as file:
                content = file.read(_LARGEST + 1)
        except (OSError, UserError):
            return None
        return content if content[:4] == b"\x89PNG" and len(content) <= _LARGEST else None


@dataclass
class Family:
    """Splits whose figures may stand beside each other, with what was found on them.

    `places` are the best and the worst rank that each split's classifier may have, of own splits, by its name.
    """

    key: str
    splits: list[BoardEntry] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The source, generator and oracle in words."""
        parts = self.splits[0].made_with
        return f"{parts['source']}; {parts['generator']}; {parts['oracle']}"

    @cached_property
    def places(self) -> dict[str, tuple[int, int] | None]:
        """Ranks by the intervals of FMR: who may be better than whom; None of one without FMR, or not ranked."""
        known = {split.name: None if split.unranked else split.summary.fmr for split in self.splits}
        ends = {name: interval_ends(fmr) for name, fmr in known.items() if fmr is not None}
        lows, highs = (sorted(side) for side in zip(*ends.values(), strict=True)) if ends else ([], [])
        found: dict[str, tuple[int, int] | None] = dict.fromkeys(known)
        for name, (low, high) in ends.items():
            found[name] = (1 + len(ends) - bisect_right(lows, high), len(ends) - bisect_left(highs, low))
        return found

    def ranked(self) -> list[BoardEntry]:
        """By falling FMR, those that are not ranked last."""
        return sorted(self.splits, key=lambda split: sort_key(split.summary.fmr, split.unranked))


def collect(places: Sequence[str]) -> list[Family]:
    """Splits of folders and dataset repos, in families, the largest first.

    Args:
        places: folders, or `OWNER/NAME[@REVISION]` on the Hub.

    Returns:
        Families; splits of another protocol are never in one. A split that is in several places, with the same recipe
        and the very files, is one of the first on the Hub, with the results of all.

    Raises:
        UserError: a place is neither, or none has a finished split.
    """
    known: dict[tuple[Path, str | None], str] = {}
    splits: dict[tuple[str, str], BoardEntry] = {}
    names = Counter(map(_name_of, places))
    for place in places:
        # Two folders, or revisions, of one name are told apart by all that was said of them.
        name = _name_of(place) if names[_name_of(place)] == 1 else place
        found = list(_splits_of(place, name))
        if not found:
            raise UserError(f"{place}: contains no finished split")
        where = (found[0].paths.root.resolve(), found[0].commit)
        if where in known:
            raise UserError(f"{place}: is the same as {known[where]}; name it once")
        known[where] = place
        for split in found:
            files = (split.provenance.fingerprint, split.provenance.files_digest)
            splits[files] = split if files not in splits else _as_one(splits[files], split)
    families: dict[str, Family] = {}
    for split in splits.values():
        families.setdefault(split.family, Family(split.family)).splits.append(split)
    return sorted(families.values(), key=lambda family: (-len(family.splits), family.title))


def _as_one(first: BoardEntry, second: BoardEntry) -> BoardEntry:
    """One split of two places."""
    one, other = (second, first) if first.commit is None and second.commit is not None else (first, second)
    models, judges = {entry.classifier for entry in one.entries}, {judge.judge for judge in one.judges}
    return replace(
        one,
        classifier=other.classifier if one.classifier == one.paths.split else one.classifier,
        entries=ranked([*one.entries, *(entry for entry in other.entries if entry.classifier not in models)]),
        judges=[*one.judges, *(judge for judge in other.judges if judge.judge not in judges)],
    )


def _name_of(place: str) -> str:
    """What a folder or repo is called where no other has its name."""
    return Path(place).resolve().name if Path(place).is_dir() else place.partition("@")[0]


def _splits_of(place: str, name: str) -> Iterator[BoardEntry]:
    if Path(place).is_dir():
        root, repo, commit = Path(place), "", None
    else:
        repo, _, revision = place.partition("@")
        root, commit = fetched(repo, revision or "main", _SMALL, _LARGEST)
    for (config, split), provenance in sorted(read_all(root).items()):
        if provenance.is_finished:
            paths = SplitPaths(root, config, split)
            judges = judges_of_files(paths, provenance.files_digest)
            entries = leaderboard(paths, provenance)
            own = sorted(entry.classifier for entry in entries if entry.conditioned)
            others = [entry for entry in entries if not entry.conditioned]
            figures = (own[0] if own else split, summary_of(provenance), others, judges, made_with(provenance))
            yield BoardEntry(name, repo, commit, paths, provenance, *figures)
