"""What a caller hands over for a component, an object or a word for one, as the section of a recipe."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import nn

from fmrgen.components import Role, build_component
from fmrgen.config import ComponentConfig
from fmrgen.engine.interfaces import Generator, Oracle
from fmrgen.engine.options import PerturbOptions
from fmrgen.errors import UserError, unknown_message
from fmrgen.in_memory import InMemory
from fmrgen.kinds import generator_of_short_form, oracle_of_short_form
from fmrgen.recipe import load_classifier
from fmrgen.weights.digest import weights_sha256

AnyClassifier = nn.Module | ComponentConfig | str
AnyGenerator = Generator | ComponentConfig | str
AnyOracle = Oracle | ComponentConfig | str


def classifier_section(given: AnyClassifier) -> ComponentConfig:
    """A module, a section, or what `fmrgen.load_classifier` takes. Raises UserError."""
    return load_classifier(given)[1] if isinstance(given, str) else _section(given, "classifier", nn.Module)


def generator_section(given: AnyGenerator, image_size: int) -> ComponentConfig:
    """A generator, a section, or a word for one. Raises UserError."""
    return (
        generator_of_short_form(given, image_size)
        if isinstance(given, str)
        else _section(given, "generator", Generator)
    )


def oracle_section(given: AnyOracle) -> ComponentConfig:
    """An oracle, a section, or a word for one. Raises UserError."""
    return oracle_of_short_form(given) if isinstance(given, str) else _section(given, "oracle", Oracle)


def built(
    given: Any, section_of: Callable[[Any], ComponentConfig], name: str, role: type[Role], device: torch.device
) -> Role:
    """The component itself: an object as it is, without a digest of its weights, else what its section builds."""
    if isinstance(given, role):
        if isinstance(given, nn.Module):
            given.to(device).eval()  # in place
        return given
    return build_component(section_of(given), name, role, device)


def _section(given: Any, name: str, role: type) -> ComponentConfig:
    if isinstance(given, ComponentConfig):
        return given
    if not isinstance(given, role):
        kind = f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"
        wanted = "torch module" if name == "classifier" else f"fmrgen.{role.__name__}"
        raise UserError(f"{name}: must be a {wanted} (an instance), a section or a name; it is {kind}")
    return InMemory.of(given, weights_sha256(given))


def changed_options(before: PerturbOptions, options: dict[str, Any]) -> PerturbOptions:
    """The options of a job with some of them changed. Raises UserError for one that there is not, or a bad value."""
    known = [field.name for field in fields(PerturbOptions)]
    if strangers := [name for name in options if name not in known]:
        raise UserError(unknown_message(f"option {strangers[0]}", strangers[0], known))
    try:
        return replace(before, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"{', '.join(f'{name}={value!r}' for name, value in options.items())}: {error}") from None
