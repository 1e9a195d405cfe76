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
    choices = []
    chosen = []
    for name in names:
        synonyms = _choices(name, first_synonym, overrides)
        choices.append(synonyms)
        chosen.append(synonyms[0])
    most_choices = max(map(len, choices), default=0)
    for _ in range(most_choices):
        clashing = _clashing_labels(chosen)
        if not clashing:
            return chosen
        has_moved = False
        for label in clashing:
            synonyms = choices[label]
            next_position = synonyms.index(chosen[label]) + 1
            if next_position < len(synonyms):
                chosen[label] = synonyms[next_position]
                has_moved = True
        if not has_moved:
            break
    first, second = _same_labels(chosen)
    raise UserError(
        f"oracle: the classes {names[first]!r} and {names[second]!r} would have the same prompt "
        f"({chosen[first]!r}) and look the same to it; rename one: oracle.class_prompts={{{names[second]!r}: …}}"
    )


def _choices(name: str, first_synonym: bool, overrides: Mapping[str, str]) -> list[str]:
    """Return the names that a label may have in prompts, in the order in which they are tried."""
    if name in overrides:
        return [overrides[name]]
    synonyms = [synonym.strip() for synonym in name.split(",") if synonym.strip()]
    if first_synonym and synonyms:
        return synonyms
    return [name]


def _clashing_labels(chosen: Sequence[str]) -> list[int]:
    """Return the labels whose names are, or read, the same as another's."""
    counts = Counter(map(_prompt_key, chosen)) + Counter(_numbered_homonyms(chosen))
    return [label for label, name in enumerate(chosen) if counts[_prompt_key(name)] > 1]


def _prompt_key(name: str) -> str:
    """Return a name without differences in case and spaces, which tokenizers ignore."""
    return " ".join(name.casefold().split())


def _numbered_homonyms(names: Sequence[str]) -> list[str]:
    """Return the keys of names that are another name with a number behind it."""
    keys = list(map(_prompt_key, names))
    all_keys = set(keys)
    homonyms = []
    for key in keys:
        if re.search(r"[^\W\d]\d+$", key) and _without_number(key) in all_keys:
            homonyms.append(key)
    return homonyms


def _without_number(key: str) -> str:
    return re.sub(r"\d+$", "", key)


def _same_labels(chosen: Sequence[str]) -> tuple[int, int]:
    """Return two labels whose names are, or read, the same."""
    seen: dict[str, int] = {}
    numbered = set(_numbered_homonyms(chosen))
    for label, name in enumerate(chosen):
        key = _prompt_key(name)
        if key in numbered:
            key = _without_number(key)
        if key in seen:
            return seen[key], label
        seen[key] = label
    return 0, 0
