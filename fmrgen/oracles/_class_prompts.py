"""What classes are called in prompts: each by its own words, or the oracle can't tell two of them apart."""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from fmrgen.errors import UserError

_log = logging.getLogger(__name__)


def names_in_prompts(names: Sequence[str], first_synonym: bool, overrides: Mapping[str, str]) -> list[str]:
    """What stands for {class} in the prompts of each label.

    A CLIP's tokenizer folds the case, so names that differ in it alone are the same prompt: `cardigan` and `Cardigan,
    Cardigan Welsh corgi` by their first synonyms. So is a name that another has with a number behind it, as lists
    tell homonyms apart (`crane`, `crane2`). These take their next synonym.

    Args:
        names: of the labels.
        first_synonym: whether of a list such as `tench, Tinca tinca` the first alone is taken.
        overrides: a label's name → what it is to be called.

    Returns:
        As many, all different.

    Raises:
        UserError: two labels would be called the same, whatever synonym is taken.
    """
    if missing := [name for name in overrides if name not in names]:
        _log.warning("oracle.class_prompts: no class is called %s; ignored", ", ".join(missing[:3]))
    choices = [_choices(name, first_synonym, overrides) for name in names]
    chosen = [of_name[0] for of_name in choices]
    for _ in range(max(map(len, choices), default=0)):
        taken = Counter(map(_prompt_key, chosen)) + Counter(_numbered_homonyms(chosen))
        clashing = [label for label, name in enumerate(chosen) if taken[_prompt_key(name)] > 1]
        if not clashing:
            return chosen
        moved = False
        for label in clashing:
            place = choices[label].index(chosen[label]) + 1
            if place < len(choices[label]):
                chosen[label], moved = choices[label][place], True
        if not moved:
            break
    first, second = _same(chosen)
    raise UserError(
        f"oracle: the classes {names[first]!r} and {names[second]!r} would have the same prompt "
        f"({chosen[first]!r}) and look the same to it; rename one: oracle.class_prompts={{{names[second]!r}: …}}"
    )


def _choices(name: str, first_synonym: bool, overrides: Mapping[str, str]) -> list[str]:
    if name in overrides:
        return [overrides[name]]
    synonyms = [synonym.strip() for synonym in name.split(",") if synonym.strip()]
    return synonyms if first_synonym and synonyms else [name]


def _prompt_key(name: str) -> str:
    return " ".join(name.casefold().split())


def _numbered_homonyms(names: Sequence[str]) -> list[str]:
    """The keys of names that are another's with a number behind it."""
    plain = {_prompt_key(name) for name in names}
    keys = [_prompt_key(name) for name in names]
    return [key for key in keys if re.search(r"[^\W\d]\d+$", key) and re.sub(r"\d+$", "", key) in plain]


def _same(chosen: Sequence[str]) -> tuple[int, int]:
    """Two labels whose prompts are, or read, the same."""
    seen: dict[str, int] = {}
    numbered = set(_numbered_homonyms(chosen))
    for label, name in enumerate(chosen):
        key = _prompt_key(name)
        key = re.sub(r"\d+$", "", key) if key in numbered else key
        if key in seen:
            return seen[key], label
        seen[key] = label
    return 0, 0
