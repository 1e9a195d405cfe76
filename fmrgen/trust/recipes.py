"""Recipes that others wrote: they become components only if they can do no harm, or are trusted."""

import re
from dataclasses import dataclass
from typing import Any

from fmrgen.config import UNTRUSTED, AnyConfig, sections_in, validate
from fmrgen.errors import UserError, option

LARGEST_INPUT = 4096  # pixels of a side, after a network's own preprocessing
_LOADING = ("checkpoint_path", "cache_dir", "model_cfg", "feature_cfg", "kwargs_filter")  # arguments of timm's


@dataclass(frozen=True)
class Demands:
    """The demands of components: the `code` of others that they run, and the `places` that they read."""

    code: list[str]
    places: list[str]

    def __bool__(self) -> bool:
        return bool(self.code or self.places)

    def __str__(self) -> str:
        demands = []
        if self.code:
            demands.append(f"runs {_listed(self.code)}")
        if self.places:
            demands.append(f"reads {_listed(self.places)}")
        return " and ".join(demands)


def _listed(names: list[str]) -> str:
    text = ", ".join(" ".join(name.split())[:200] for name in names[:20])
    return text if len(names) <= 20 else f"{text} and {len(names) - 20} more"


class UntrustedError(UserError):
    """A recipe of a stranger would run code or read places, and nobody has allowed it."""


def untrusted_config(section: type[AnyConfig], tree: Any, name: str, *, trust: bool, cure: str = "") -> AnyConfig:
    """Return a stranger's recipe as a section that may be built: the only way from untrusted text to a component.

    Nothing is imported and no file is read before it is known what its components demand.

    With `trust`, they may demand anything at all. Errors start with `name`; `cure` ends them, by default with how to
    trust it. Raises UntrustedError if, without `trust`, its components demand something, and UserError if it is not
    valid.
    """
    if trust:
        return validate(section, tree, name)
    config = validate(section, tree, name, context=UNTRUSTED)
    demands = demands_of(config)
    if demands:
        cure = cure or f"if you trust it, use {option('trust', 'trust=True')}"
        raise UntrustedError(f"{name} {demands}; {cure}")
    return config


def untrusted_demands(section: type[AnyConfig], tree: Any, name: str) -> Demands:
    """Return what components in a stranger's recipe demand. Raises UserError, starting with `name`, if it is wrong."""
    return demands_of(validate(section, tree, name, context=UNTRUSTED))


def demands_of(config: Any) -> Demands:
    """Return what the components of a validated section demand, each demand once."""
    code: dict[str, None] = {}
    places: dict[str, None] = {}
    for _, component in sections_in(config):
        code |= dict.fromkeys(component.code_it_runs())
        places |= dict.fromkeys(component.places_it_reads())
    return Demands(list(code), list(places))


def is_on_the_hub(address: str) -> bool:
    """Return whether an `hf://` address leads into a dataset repo on the Hub, and nowhere else on the way."""
    if not address.startswith("hf://datasets/"):
        return False
    path = address.removeprefix("hf://")
    return not any(detour in path for detour in ("::", "://", ".."))


def is_within(path: str) -> bool:
    """Return whether a path or pattern of a dataset's files can only be inside the dataset itself."""
    return re.fullmatch(r"(?!.*(\.\.|::|://))[^/~].*", path, re.DOTALL) is not None


def shapes_a_network(arguments: dict[str, Any], largest: int = 65_536) -> dict[str, Any]:
    """Return the arguments of a network of timm.

    Raises ValueError for those by which it loads weights, which would come from any file or address, and in old
    versions as pickles; and for numbers over `largest`, which fill the memory.
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
