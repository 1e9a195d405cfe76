"""The splits and results of repos and folders, read without their images."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from fmrgen.errors import UserError
from fmrgen.files import check_inside, fingerprint, open_plain
from fmrgen.hub.fetch import fetched
from fmrgen.metrics.cautions import has_accuracy_of_chance
from fmrgen.metrics.gradients import has_masked_gradient, has_rough_gradient
from fmrgen.publish.entries import Entry, ranked, sort_key
from fmrgen.publish.published import Published

_SMALL = ["README.md", "provenance/**", "results/**", "judgements/**/*.json", "pictures/**"]
_MAX_FILE_BYTES = 8 << 20  # of a small file
_MAY_DIFFER = ("description", "output", "classifier")  # sections of the recipes of one family


@dataclass(frozen=True)
class BoardEntry(Published):
    """A finished split of a repo or folder.

    Attributes:
        place: the name of the folder or repo.
        repo: on the Hub; empty for a folder.
        commit: of the repo; None for a folder.
        classifier: that it was made against, as evaluations on it name that; else the split's name.
    """

    place: str
    repo: str
    commit: str | None
    classifier: str

    @property
    def name(self) -> str:
        """The reference of the split, as `evaluate` takes it."""
        return f"{self.place}:{self.paths.name}"

    @property
    def entries(self) -> list[Entry]:
        """The results of other classifiers on it."""
        return [entry for entry in self.leaderboard if not entry.conditioned]

    @property
    def family(self) -> str:
        """A fingerprint of the protocol: figures of splits with the same one may be compared.

        It covers everything but the classifier: the version of the rows, the source with its labels, generator, oracle,
        perturbation, and the weights of generator and oracle.
        """
        recipe = self.provenance.recipe.tree
        protocol = {name: value for name, value in recipe.items() if name not in _MAY_DIFFER}
        weights = self.provenance.weights_sha256
        return fingerprint(
            [
                protocol,
                list(self.provenance.labels),
                [weights.generator, weights.oracle],
                self.provenance.examples,
            ]
        )

    @property
    def at_chance(self) -> bool:
        """True if its own classifier is hardly better than chance on the originals."""
        return has_accuracy_of_chance(self.summary, len(self.provenance.labels))

    @property
    def masked(self) -> bool:
        """True if the gradient of its own classifier is masked."""
        return has_masked_gradient(self.summary, self.provenance.judged_steps)

    @property
    def rough(self) -> bool:
        """True if that gradient is rough; the split is ranked all the same."""
        return has_rough_gradient(self.summary, self.provenance.judged_steps)

    @property
    def unranked(self) -> bool:
        """True if FMR on it is no measure of robustness."""
        return self.at_chance or self.masked

    def picture(self) -> bytes | None:
        """Return the PNG of its contact sheet; None if there is none, or one that is too large."""
        path = self.paths.picture
        try:
            check_inside(path, self.paths.root)
            with open_plain(path) as file:
                content = file.read(_MAX_FILE_BYTES + 1)
        except (OSError, UserError):
            return None
        if content[:4] != b"\x89PNG" or len(content) > _MAX_FILE_BYTES:
            return None
        return content


@dataclass
class Family:
    """Splits of one protocol, whose figures may be compared.

    Attributes:
        key: the fingerprint of the protocol.
        splits: of it.
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
        """The best and the worst rank of the classifier of each split, by the split's name.

        Ranks are by FMR; classifiers whose intervals overlap may each be better than the other. None of a split that
        is not ranked or has no FMR.
        """
        ends = {}
        places: dict[str, tuple[int, int] | None] = {}
        for split in self.splits:
            places[split.name] = None
            if not split.unranked and split.summary.fmr is not None:
                ends[split.name] = split.summary.fmr.ends
        lows = sorted(low for low, _ in ends.values())
        highs = sorted(high for _, high in ends.values())
        for name, (low, high) in ends.items():
            surely_better = len(ends) - bisect_right(lows, high)
            surely_worse = bisect_left(highs, low)
            places[name] = (1 + surely_better, len(ends) - surely_worse)
        return places

    def ranked(self) -> list[BoardEntry]:
        """Return the splits by falling FMR, those that are not ranked last."""
        return sorted(self.splits, key=lambda split: sort_key(split.summary.fmr, split.unranked))


def collect(places: Sequence[str]) -> list[Family]:
    """Return the splits of folders and dataset repos by their protocol, the largest family first.

    Args:
        places: folders, or `OWNER/NAME[@REVISION]` on the Hub.

    Returns:
        Families; splits of different protocols are never in one. A split that is in several places, with the same
        recipe and identical files, is listed once, as that of the first place on the Hub, with the results of all.

    Raises:
        UserError: a place is neither, or none has a finished split.
    """
    places_by_root: dict[tuple[Path, str | None], str] = {}
    splits: dict[tuple[str, str], BoardEntry] = {}
    names = Counter(_name_of(place) for place in places)
    for place in places:
        name = _name_of(place)
        if names[name] > 1:  # two folders, or revisions, of one name are told apart by their whole references
            name = place
        entries = [split for split in _splits_of(place, name) if not split.summary.of_moved_images]  # which have no FMR
        if not entries:
            raise UserError(f"{place}: contains no finished split of perturbed images")
        root = (entries[0].paths.root.resolve(), entries[0].commit)
        if root in places_by_root:
            raise UserError(f"{place}: is the same as {places_by_root[root]}; name it once")
        places_by_root[root] = place
        for split in entries:
            identity = (split.provenance.fingerprint, split.provenance.files_digest)
            if identity in splits:
                split = _merged(splits[identity], split)
            splits[identity] = split
    families: dict[str, Family] = {}
    for split in splits.values():
        families.setdefault(split.family, Family(split.family)).splits.append(split)
    return sorted(families.values(), key=lambda family: (-len(family.splits), family.title))


def _merged(first: BoardEntry, second: BoardEntry) -> BoardEntry:
    """Return a split of two places as one: that on the Hub if only one is, with the results of both."""
    main, other = first, second
    if first.commit is None and second.commit is not None:
        main, other = second, first
    models = {entry.classifier for entry in main.entries}
    judges = {judge.judge for judge in main.judges}
    more_entries = [entry for entry in other.entries if entry.classifier not in models]
    more_judges = [judge for judge in other.judges if judge.judge not in judges]
    classifier = main.classifier
    if classifier == main.paths.split:  # no evaluation names it there
        classifier = other.classifier
    return replace(
        main,
        classifier=classifier,
        leaderboard=ranked([*main.leaderboard, *more_entries]),
        judges=[*main.judges, *more_judges],
    )


def _name_of(place: str) -> str:
    """Return the name of a folder or repo, without the revision."""
    if Path(place).is_dir():
        return Path(place).resolve().name
    return place.partition("@")[0]


def _splits_of(place: str, name: str) -> Iterator[BoardEntry]:
    """Yield the finished splits of a folder or repo, which the board calls `name`."""
    if Path(place).is_dir():
        root, repo, commit = Path(place), "", None
    else:
        repo, _, revision = place.partition("@")
        root, commit = fetched(repo, revision or "main", _SMALL, _MAX_FILE_BYTES)
    for split in sorted(Published.all_in(root), key=lambda split: (split.paths.config, split.paths.split)):
        own_names = sorted(entry.classifier for entry in split.leaderboard if entry.conditioned)
        yield BoardEntry(
            paths=split.paths,
            provenance=split.provenance,
            summary=split.summary,
            leaderboard=split.leaderboard,
            judges=split.judges,
            place=name,
            repo=repo,
            commit=commit,
            classifier=own_names[0] if own_names else split.paths.split,
        )
