"""The labels of a job: their names and, if source classes are grouped, the source classes of each label."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from fmrgen.errors import UserError

ClassRange = int | str
Classes = list[str] | dict[str, ClassRange | list[ClassRange]]
_NEARLY_ALL = 0.95  # of the names agree: the others are spelled otherwise, as some of ImageNet's are
_NUMBER_BEFORE = re.compile(r"^\d+[\s._\-–)]+(?=.*[^\W\d_]{2})")  # of words


@dataclass(frozen=True)
class Labels:
    """The K labels over which classifier and oracle predict.

    Attributes:
        names: the name of each label.
        groups: the source's class indices that make up each label (none if the source has no example of it). Source
            classes in no group are left out of the job. None if labels are the source's own classes.
        source_size: the number of classes in the source, if the source knows it.
        source_names: their names, if they are grouped.
    """

    names: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...] | None = None
    source_size: int | None = None
    source_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def from_source(self, source_class: int) -> int | None:
        """Return the label of a source class, or None if it is in no group.

        Raises UserError if the index is not a class of the source.
        """
        classes = len(self.names) if self.groups is None else self.source_size
        if source_class < 0 or (classes is not None and source_class >= classes):
            raise UserError(
                f"label {source_class} is outside the {classes} classes; list every class under source.classes"
            )
        if self.groups is None:
            return source_class
        return self._label_of_class.get(source_class)

    @cached_property
    def _label_of_class(self) -> dict[int, int]:
        labels = {}
        for label, group in enumerate(self.groups or ()):
            for index in group:
                labels[index] = label
        return labels


class Match(NamedTuple):
    """The class of a classifier for each label; `by_name` is True if every one was found by its name."""

    order: list[int]
    by_name: bool


def match_classes(class_names: Sequence[str], names: Sequence[str]) -> Match | None:
    """Return the classes of a classifier that stand for the labels `names`; None if that is ambiguous.

    A name stands for a class of the same name, or for the only class of the same name but for spelling or a first
    synonym (`tench` is `tench, Tinca tinca`), or else but for a number before it (`03 - cats` is `cats`); a name that
    could be several classes is no evidence. Lists of the same
    length are in the same order if at least half of the names agree and none of these is at another place. Otherwise
    every name must be found.
    """
    classes = _classes_by_name(class_names, names)
    if len(classes) == len(names):
        return Match([classes[place] for place in range(len(names))], by_name=True)
    in_place = all(place == class_index for place, class_index in classes.items())
    if len(class_names) == len(names) and in_place and 2 * len(classes) >= len(names):
        return Match(list(range(len(names))), by_name=len(classes) >= _NEARLY_ALL * len(names))
    return None


def _classes_by_name(class_names: Sequence[str], names: Sequence[str]) -> dict[int, int]:
    """Return the class for each place in `names` whose name stands for one class, and no other name does."""
    by_name = _positions(class_names)
    by_spelling = _positions(map(plain, class_names))
    by_synonym = _positions(map(_first_synonym, class_names))
    by_word = _positions(plain(without_number(name)) for name in class_names)
    classes: dict[int, int] = {}
    for place, name in enumerate(names):
        candidates = set(by_name.get(name, []))
        if len(candidates) != 1:
            candidates = {*by_spelling.get(plain(name), []), *by_synonym.get(_first_synonym(name), [])}
        if not candidates:
            candidates = set(by_word.get(plain(without_number(name)), []))
        if len(candidates) == 1:
            classes[place] = candidates.pop()
    counts = Counter(classes.values())
    return {place: class_index for place, class_index in classes.items() if counts[class_index] == 1}


def plain(name: str) -> str:
    """Return a class name in plain spelling: without case, underscores, hyphens and doubled spaces."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def without_number(name: str) -> str:
    """Return a class name without a number before its words, as folders have one: `cats` for `03 - cats`."""
    return _NUMBER_BEFORE.sub("", name.strip())


def _first_synonym(name: str) -> str:
    return plain(name.partition(",")[0])


def _positions(names: Iterable[str]) -> dict[str, list[int]]:
    """Return the positions of each name."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return places


def find_label(word: str, labels: Labels) -> int | None:
    """Return the label with this name, or else the only one of the same plain spelling; None if there is none."""
    for names, name in ((list(labels.names), word), ([plain(name) for name in labels.names], plain(word))):
        if names.count(name) == 1:
            return names.index(name)
    return None


def make_labels(classes: Classes | None, source_names: Sequence[str] | None) -> Labels:
    """Return labels from a recipe's `classes` (names, or a mapping of name to class ranges) and the source's own names.

    A list of more names than the source has must contain all of the source's: the others are labels without examples,
    with which a classifier may answer nevertheless.
    """
    names = tuple(source_names or ()) if classes is None else tuple(classes)
    if not names:
        raise UserError("source.classes: the source has no class names, list them here")
    name, count = Counter(names).most_common(1)[0]  # all must be distinguished in a prompt and in a label column
    if count > 1:
        raise UserError(f"source.classes: {count} classes are called {name!r}; list names that differ")
    for place, name in enumerate(names):
        if not name.strip():
            raise UserError(f"source.classes: class {place} has no name; list a name for each")
    if isinstance(classes, Mapping):
        groups = _groups_of_ranges(classes, source_names)
    elif source_names is not None and len(names) != len(source_names):
        groups = _groups_of_names(names, source_names)
    else:
        return Labels(names, source_size=len(names))
    if source_names is None:
        return Labels(names, groups)
    return Labels(names, groups, len(source_names), tuple(source_names))


def _groups_of_ranges(
    classes: Mapping[str, ClassRange | list[ClassRange]], source_names: Sequence[str] | None
) -> tuple[tuple[int, ...], ...]:
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
    return groups


def _groups_of_names(names: Sequence[str], source_names: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Return the group of each of more names than the source has: one class, or none."""
    match = match_classes(names, source_names)
    if match is None or not match.by_name:
        examples = ", ".join(source_names[:3]) + (", …" if len(source_names) > 3 else "")
        raise UserError(
            f"source.classes: {len(names)} names for the source's {len(source_names)} classes; list one for each, or "
            f"more that hold all of the source's ({examples})"
        )
    groups: list[tuple[int, ...]] = [()] * len(names)
    for index, label in enumerate(match.order):
        groups[label] = (index,)
    return tuple(groups)


def expand_ranges(name: str, ranges: ClassRange | Iterable[ClassRange]) -> list[int]:
    """Return the class indices of `151-268`, `30`, or a list of such; both ends are included.

    Raises UserError, with the label's `name`, for anything else.
    """
    if isinstance(ranges, int | str):
        ranges = [ranges]
    indices: list[int] = []
    for item in ranges:
        first, dash, last = str(item).strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or int(last or first) < int(first):
            raise UserError(f"source.classes.{name}: {item!r} is not a class index or a range such as 151-268")
        indices += range(int(first), int(last or first) + 1)
    if not indices:
        raise UserError(f"source.classes.{name}: no class index; give an index or a range such as 151-268")
    return indices
