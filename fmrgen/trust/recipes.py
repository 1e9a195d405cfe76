"""What others wrote is data: a recipe of theirs becomes a component only where it can do no harm, or is trusted."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from fmrgen.config import UNTRUSTED, AnyConfig, ComponentConfig, validate
from fmrgen.errors import UserError

LARGEST_INPUT = 4096  # pixels to which a network's own preprocessing may bring a side
_LISTED = 20  # of what a component demands, in a message
_LOADING = ("checkpoint_path", "cache_dir", "model_cfg", "feature_cfg", "kwargs_filter")  # arguments of timm's


@dataclass(frozen=True)
class Demands:
    """What components do beside computing: the `code` of others that they run, the `places` that they read."""

    code: list[str]
    places: list[str]

    def __bool__(self) -> bool:
        return bool(self.code or self.places)

    def __str__(self) -> str:
        demands = {"runs": self.code, "reads": self.places}
        return " and ".join(f"{verb} {_listed(names)}" for verb, names in demands.items() if names)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(" ".join(name.split())[:200] for name in names[:_LISTED]) + more


class UntrustedError(UserError):
    """What a stranger wrote would run code or read places, and nobody has said that it may."""


def untrusted_config(section: type[AnyConfig], tree: Any, name: str, *, trust: bool, cure: str) -> AnyConfig:
    """A stranger's `tree` as a `section` that may be built: the one way from what others wrote to a component.

    Nothing is imported and no file is read before it is known what its components demand; without `trust` they must
    demand nothing. Raises UntrustedError, from `name` over all demands to the `cure`, and UserError for what is not
    valid.
    """
    if trust:
        return validate(section, tree, name)
    found, demands = _weigh(section, tree, name)
    if demands:
        raise UntrustedError(f"{name} {demands}; {cure}")
    return found


def untrusted_code(section: type[AnyConfig], tree: Any, name: str) -> list[str]:
    """All code of others that the components in a stranger's `tree` would run. Raises UserError where it is invalid."""
    return _weigh(section, tree, name)[1].code


def _weigh(section: type[AnyConfig], tree: Any, name: str) -> tuple[AnyConfig, Demands]:
    found = validate(section, tree, name, context=UNTRUSTED)
    components = list(components_in(found))
    code = dict.fromkeys(code for config in components for code in config.code_it_runs())
    places = dict.fromkeys(place for config in components for place in config.places_it_reads())
    return found, Demands(list(code), list(places))


def components_in(value: Any) -> Iterator[ComponentConfig]:
    """Every component's config in a validated section, however deep."""
    if isinstance(value, ComponentConfig):
        yield value
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, dict | list | tuple):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from components_in(entry)


def is_on_the_hub(address: str) -> bool:
    """Whether an `hf://` address leads into a dataset repo on the Hub, and nowhere else on the way."""
    return address.startswith("hf://datasets/") and not any(odd in address[5:] for odd in ("::", "://", ".."))


def is_within(path: str) -> bool:
    """Whether a path or pattern of a dataset's files can only be inside the dataset itself."""
    return re.fullmatch(r"(?!.*(\.\.|::|://))[^/~].*", path, re.DOTALL) is not None


def shapes_a_network(arguments: dict[str, Any], largest: int = 65_536) -> dict[str, Any]:
    """The arguments of a network of timm. Raises ValueError for those by which it loads weights, and for numbers over
    `largest`, which fill the memory.

    Weights would come from any file or address, and in old versions as pickles.
    """
    for name, value in arguments.items():
        if name in _LOADING or name.startswith("pretrained"):
            raise ValueError(f"{name} loads weights without fmrgen's checks; use pretrained or checkpoint")
        if not _is_plain(value, largest):
            raise ValueError(
                f"{name} is {value!r}; give names and numbers up to {largest}, a file goes into checkpoint"
            )
    return arguments


def _is_plain(value: Any, largest: int) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(entry, largest) for entry in value)
    if isinstance(value, int | float):
        return abs(value) <= largest
    return value is None or re.fullmatch(r"\w*", str(value)) is not None
