"""What classes are called in prompts: the names of folders, without numbers and underscores."""

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from fmrgen.errors import UserError, one_line
from fmrgen.labels import without_number

_WORDNET = re.compile(r"n\d{8}")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")  # TrafficLight
_WORD = re.compile(r"[^\W\d_]{3}")
_COUNTED = re.compile(r"(class|label|category|type|id|cls)\W*\w?\d*", re.IGNORECASE)


def read_glossary(path: Path) -> dict[str, str]:
    """Return what classes are called, by their names, from a CSV file of lines `class,name`. Raises UserError."""
    glossary = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                if row and len(row) != 2:
                    raise UserError(f"{path}: line {number} has {len(row)} columns; write class,name")
                if row:
                    glossary[row[0].strip()] = row[1].strip()
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(f"{path}: can't be read: {one_line(error)}") from None
    return glossary


def names_for_prompts(names: Sequence[str], glossary: Mapping[str, str]) -> dict[str, str]:
    """Return what each class is called in prompts, where that is not its own name.

    By the glossary; by WordNet for `n01440764`; else without a number before it, with spaces for underscores. Classes
    that would be called the same keep their own names.

    Args:
        names: of the classes.
        glossary: what some are called.

    Raises:
        UserError: the glossary names a class that is not there.
    """
    missing = sorted(set(glossary) - set(names))
    if missing:
        raise UserError(f"names: there is no class {missing[0]}, but {', '.join(sorted(names)[:3])}, …")
    cleaned = {name: glossary.get(name) or _of_wordnet(name) or _plain(name) for name in names}
    counts = Counter(word.casefold() for word in cleaned.values())
    return {name: word for name, word in cleaned.items() if word != name and counts[word.casefold()] == 1}


def nameless(names: Sequence[str], called: Mapping[str, str]) -> list[str]:
    """Return the classes whose names say nothing to a model that reads, such as `7` and `class_3`."""
    return [name for name in names if not _says_something(called.get(name, name))]


def _plain(name: str) -> str:
    name = _CAMEL.sub(" ", without_number(name))
    return " ".join(name.replace("_", " ").split())


def _of_wordnet(name: str) -> str | None:
    """Return the words for a synset of WordNet, such as `tench, Tinca tinca`; None if it is none that timm knows."""
    if not _WORDNET.fullmatch(name):
        return None
    from timm.data import ImageNetInfo

    try:
        description: str = ImageNetInfo("imagenet-22k").label_name_to_description(name)
    except KeyError:
        return None
    return description


def _says_something(name: str) -> bool:
    return _WORD.search(name) is not None and _COUNTED.fullmatch(name) is None and _WORDNET.fullmatch(name) is None
