"""The labels of a job: their names and, where source classes are grouped, which source classes each one gathers."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from fmrgen.errors import UserError

ClassRange = int | str
Classes = list[str] | dict[str, ClassRange | list[ClassRange]]


@dataclass(frozen=True)
class Labels:
    """The K labels that classifier and oracle answer in.

    `names[k]` is the name of label k. `groups` is None where labels are the source's own classes; otherwise
    `groups[k]` holds the source's class indices that make up label k (none where the source has no example of it), and
    a source class of no group is left out of the job. `source_size` is the number of classes in the source, where the
    source knows it, and `source_names` are their names where they are grouped.
    """

    names: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...] | None = None
    source_size: int | None = None
    source_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def from_source(self, source_class: int) -> int | None:
        """The label of a source class, None where no group holds it.

        Raises UserError for an index that is not a class at all.
        """
        classes = self.source_size if self.groups is not None else len(self.names)
        if source_class < 0 or (classes is not None and source_class >= classes):
            raise UserError(
                f"label {source_class} is outside the {classes} classes; list every class under source.classes"
            )
        if self.groups is None:
            return source_class
        return self._label_of_class.get(source_class)

    @cached_property
    def _label_of_class(self) -> dict[int, int]:
        return {index: label for label, group in enumerate(self.groups or ()) for index in group}


class Match(NamedTuple):
    """For each label, which of a classifier's classes it is; `by_name` says whether every one was found by its name."""

    order: list[int]
    by_name: bool


def match_classes(class_names: Sequence[str], names: Sequence[str]) -> Match | None:
    """The classes of a classifier that stand for the labels `names`; None where that is ambiguous.

    A name is one class's if it is the same, or if that class alone is the same but for spelling or a first synonym
    (`tench` is `tench, Tinca tinca`); a name that could be several classes is no evidence. Equally long lists are in
    the same order where at least half of the names agree and none of these stands at another place. Otherwise every
    name has to be found.
    """
    exact = _positions(class_names)
    alike = [_positions(map(key, class_names)) for key in (plain, _first_synonym)]
    found: dict[int, int] = {}
    for place, name in enumerate(names):
        candidates = exact.get(name, [])
        if len(candidates) != 1:
            keys = (plain(name), _first_synonym(name))
            candidates = list({c for places, key in zip(alike, keys, strict=True) for c in places.get(key, [])})
        if len(candidates) == 1:
            found[place] = candidates[0]
    taken = Counter(found.values())
    found = {place: theirs for place, theirs in found.items() if taken[theirs] == 1}
    if len(found) == len(names):
        return Match([found[place] for place in range(len(names))], by_name=True)
    in_place = all(place == theirs for place, theirs in found.items())
    if len(class_names) == len(names) and in_place and 2 * len(found) >= len(names):
        return Match(list(range(len(names))), by_name=False)
    return None


def plain(name: str) -> str:
    """A class name without what is only spelling: case, underscores, hyphens, doubled spaces."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _first_synonym(name: str) -> str:
    return plain(name.partition(",")[0])


def _positions(names: Iterable[str]) -> dict[str, list[int]]:
    """Name → the positions at which it stands."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return places


def find_label(word: str, labels: Labels) -> int | None:
    """The label that a word names: the same one, or the only one that differs but in spelling; None where none does."""
    same = [place for place, name in enumerate(labels.names) if name == word]
    alike = [place for place, name in enumerate(labels.names) if plain(name) == plain(word)]
    return next((found[0] for found in (same, alike) if len(found) == 1), None)


def make_labels(classes: Classes | None, source_names: Sequence[str] | None) -> Labels:
    """Labels from a recipe's `classes` (names, or a mapping of name to class ranges) and the source's own names.

    A list of more names than the source has holds each of the source's: the others are labels without examples, which
    a classifier may answer with all the same.
    """
    if isinstance(classes, Mapping):
        groups = tuple(tuple(expand_ranges(name, ranges)) for name, ranges in classes.items())
        owner: dict[int, str] = {}
        for name, group in zip(classes, groups, strict=True):
            for index in group:
                if index in owner:
                    raise UserError(f"source.classes: class {index} is in both {owner[index]!r} and {name!r}")
                if source_names is not None and index >= len(source_names):
                    raise UserError(
                        f"source.classes.{name}: class {index} does not exist; use 0 to {len(source_names) - 1}"
                    )
                owner[index] = name
        names = tuple(classes)
        _check_names(names)
        known = None if source_names is None else tuple(source_names)
        return Labels(names, groups, None if known is None else len(known), known)
    if classes is not None and source_names is not None and len(classes) != len(source_names):
        return _labels_with_more_names(classes, source_names)
    names = tuple(source_names or ()) if classes is None else tuple(classes)
    if not names:
        raise UserError("source.classes: the source has no class names, list them here")
    _check_names(names)
    return Labels(names, source_size=len(names))


def _labels_with_more_names(classes: Sequence[str], source_names: Sequence[str]) -> Labels:
    names = tuple(classes)
    _check_names(names)
    match = match_classes(names, source_names)
    if match is None or not match.by_name:
        few = ", ".join(source_names[:3]) + (", …" if len(source_names) > 3 else "")
        raise UserError(
            f"source.classes: {len(classes)} names for the source's {len(source_names)} classes; list one for each, or "
            f"more that hold all of the source's ({few})"
        )
    places = {label: index for index, label in enumerate(match.order)}
    groups = tuple((places[label],) if label in places else () for label in range(len(names)))
    return Labels(names, groups, len(source_names), tuple(source_names))


def _check_names(names: tuple[str, ...]) -> None:
    """Raises UserError for names that could not be told apart in a prompt or in the dataset's label column."""
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise UserError(f"source.classes: {count} classes are called {name!r}; list names that differ")
    if nameless := [place for place, name in enumerate(names) if not name.strip()]:
        raise UserError(f"source.classes: class {nameless[0]} has no name; list a name for each")


def expand_ranges(name: str, ranges: ClassRange | Iterable[ClassRange]) -> list[int]:
    """The class indices of `151-268`, `30`, or a list of such; both ends are included."""
    indices: list[int] = []
    for item in [ranges] if isinstance(ranges, int | str) else ranges:
        first, dash, last = str(item).strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or int(last or first) < int(first):
            raise UserError(f"source.classes.{name}: {item!r} is not a class index or a range such as 151-268")
        indices += range(int(first), int(last or first) + 1)
    if not indices:
        raise UserError(f"source.classes.{name}: no class index; give an index or a range such as 151-268")
    return indices
