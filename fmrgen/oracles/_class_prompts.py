"""Names of classes in prompts: all different, or an oracle could not tell two of them apart."""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from fmrgen.errors import UserError

_log = logging.getLogger(__name__)


def names_in_prompts(names: Sequence[str], first_synonym: bool, overrides: Mapping[str, str]) -> list[str]:
    """Return what stands for {class} in the prompts of each label, all different.

    A CLIP's tokenizer ignores case, so names that differ only in case are the same prompt: `cardigan` and `Cardigan,
    Cardigan Welsh corgi` by their first synonyms. A name also counts as the same if it is another one with a number
    behind it, as lists write homonyms (`crane`, `crane2`). Such labels take their next synonym.

    With `first_synonym` only the first of a list such as `tench, Tinca tinca` is taken; `overrides` map a label's name
    to its name in prompts. Raises UserError if two labels would have the same name, whatever synonyms are taken.
    """
    missing = [name for name in overrides if name not in names]
    if missing:
        _log.warning("oracle.class_prompts: no class is called %s; ignored", ", ".join(missing[:3]))
    remaining = [_choices(name, first_synonym, overrides) for name in names]
    while True:
        chosen = [synonyms[0] for synonyms in remaining]
        keys = [" ".join(name.casefold().split()) for name in chosen]  # tokenizers ignore case and spaces
        readings, counts = _readings(keys), Counter(keys)
        clashing = [label for label, key in enumerate(keys) if counts[key] > 1 or readings[label] != key]
        if not clashing:
            return chosen
        movable = [label for label in clashing if len(remaining[label]) > 1]
        if not movable:
            break
        for label in movable:
            del remaining[label][0]
    second = next(label for label, reading in enumerate(readings) if reading in readings[:label])
    first = readings.index(readings[second])
    raise UserError(
        f"oracle: the classes {names[first]!r} and {names[second]!r} would have the same prompt "
        f"({chosen[first]!r}) and look the same to it; rename one: oracle.class_prompts={{{names[second]!r}: …}}"
    )


def _choices(name: str, first_synonym: bool, overrides: Mapping[str, str]) -> list[str]:
    """Return the names that a label may have in prompts, in the order in which they are tried."""
    if name in overrides:
        return [overrides[name]]
    synonyms = [synonym.strip() for synonym in name.split(",") if synonym.strip()]
    return synonyms if first_synonym and synonyms else [name]


def _readings(keys: Sequence[str]) -> list[str]:
    """Return the keys, without the number behind one that is another with a number."""
    words = [re.sub(r"(?<=[^\W\d])\d+$", "", key) for key in keys]
    all_keys = set(keys)
    return [word if word in all_keys else key for word, key in zip(words, keys, strict=True)]
