"""What a caller hands over for a component, an object or a word for one, as the section of a recipe."""

import itertools
import json
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import nn

from fmrgen.config import ComponentConfig, InMemory
from fmrgen.engine.interfaces import Generator, Oracle
from fmrgen.engine.options import PerturbOptions
from fmrgen.errors import UserError, unknown_message
from fmrgen.files import fingerprint
from fmrgen.recipe.build import Role, build_component
from fmrgen.recipe.job import parse_classifier, parse_oracle
from fmrgen.recipe.sections import generator_config_of, generator_of_short_form, oracle_config_of
from fmrgen.trust.recipes import components_in
from fmrgen.weights.identity import identity_of, state_sha256

_PROCESS = secrets.token_hex(8)
_counter = itertools.count()


class _ByObject:
    """A dict for each living object, whether or not it can be hashed."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[ReferenceType[object], dict[str, str]]] = {}

    def of(self, held: object) -> dict[str, str]:
        """Return the object's own dict; a new one each time for an object that can't be referred to weakly."""
        if id(held) in self._entries:
            reference, entry = self._entries[id(held)]
            if reference() is held:  # and not another one that got its `id`
                return entry
        entry = {}
        with suppress(TypeError):
            self._entries[id(held)] = ref(held), entry
        return entry


_numbers = _ByObject()  # of objects that no other process can recognise
_states = _ByObject()  # the state in which an object was handed over, by the states in which it was left

AnyClassifier = nn.Module | ComponentConfig | Mapping[str, Any] | str
"""A module from images [B, 3, H, W] in [0, 1] to logits [B, K], a config, a section of a recipe as a mapping, or what
`load_classifier` takes."""
AnyGenerator = Generator | ComponentConfig | Mapping[str, Any] | str
"""A generator, a config, a section of a recipe as a mapping, or a word: the folder, asset or repo of a VQGAN or an
autoencoder of diffusers, `transform`, or the import path of a config."""
AnyOracle = Oracle | nn.Module | ComponentConfig | Mapping[str, Any] | str
"""An oracle, a torch module that classifies, a config, a section of a recipe as a mapping, or what `load_oracle`
takes."""


def load_classifier(reference: str, device: torch.device | str = "cpu") -> nn.Module:
    """A classifier that is given in one word, ready to be used.

    Args:
        reference: as for `-c` of the commands: `timm:NAME`, `hf:REPO`, `asset:NAME`, an import path, the folder that
            `fmrgen train` made, a recipe whose classifier is meant, or a section as inline YAML (`{kind: timm, …}`).
        device: where it is to be.

    Returns:
        A module in evaluation mode, from images [B, 3, H, W] in [0, 1] to logits [B, K]; `class_names` says what they
        are of, or None.

    Raises:
        UserError: it is something else, or can't be built.
    """
    return build_component(parse_classifier(reference)[1], "classifier", nn.Module, torch.device(device)).eval()


def load_oracle(reference: str, device: torch.device | str = "cpu") -> Oracle:
    """An oracle that is given in one word, ready to be handed to `generate`.

    Args:
        reference: a short form: `KIND:MODEL` (`zero_shot:google/siglip2-base-patch16-224`), a folder, asset or repo of
            a CLIP, or `package.module:Name`; a recipe whose oracle is meant; or a section as inline YAML
            (`{kind: reference, …}`).
        device: where it is to be.

    Returns:
        The oracle.

    Raises:
        UserError: it is something else, or can't be built.
    """
    return build_component(parse_oracle(reference)[1], "oracle", Oracle, torch.device(device))


def classifier_section(given: AnyClassifier) -> ComponentConfig:
    """A module, a section, or what `load_classifier` takes. Raises UserError."""
    if isinstance(given, str | Mapping):
        return parse_classifier(_as_text(given))[1]
    return _section(given, "classifier", nn.Module)


def each_training(classifiers: Mapping[str, Any]) -> dict[str, tuple[Any, str | None]]:
    """Classifiers one by one, and what each is a training of: of a list, `lenet-1`, `lenet-2`, … of `lenet`.

    Raises UserError where a list has less than two, or a name is taken.
    """
    found: dict[str, tuple[Any, str | None]] = {}
    for name, given in classifiers.items():
        several = isinstance(given, list | tuple)
        if several and len(given) < 2:
            raise UserError(f"classifier {name}: a list means several trainings of it; give at least two")
        for number, one in enumerate(given if several else [given], 1):
            own = f"{name}-{number}" if several else name
            if own in found:
                raise UserError(f"two classifiers are called {own}; give one another name")
            found[own] = (one, name if several else None)
    return found


def generator_section(given: AnyGenerator, image_size: int) -> ComponentConfig:
    """A generator, a section, or a word for one; `image_size` is that of a section that does not say. Raises
    UserError."""
    if isinstance(given, str):
        return generator_of_short_form(given, image_size)
    if isinstance(given, Mapping):
        return generator_config_of(given, image_size, f"{{kind: {given.get('kind', '…')}, …}}")
    return _section(given, "generator", Generator)


def oracle_section(given: AnyOracle) -> ComponentConfig:
    """An oracle, a section, or a word for one; a torch module judges as a classifier. Raises UserError."""
    if isinstance(given, str | Mapping):
        return parse_oracle(_as_text(given))[1]
    if isinstance(given, nn.Module) and not isinstance(given, Oracle):
        return oracle_config_of({"kind": "classifier", "classifier": classifier_section(given)}, "oracle")
    return _section(given, "oracle", Oracle)


def _as_text(given: str | Mapping[str, Any]) -> str:
    """A section as it is written inline."""
    return given if isinstance(given, str) else json.dumps(given)


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
        if name == "oracle":
            wanted = f"{wanted} or a torch module"
        raise UserError(f"{name}: must be a {wanted} (an instance), a section or a name; it is {kind}")
    identity = identity_of(given)
    state = _states.of(given).get(identity.state_sha256, identity.state_sha256)
    if identity.unknown is not None:
        state = _name_in_this_launch(given, state)
    return InMemory.of(given, identity.weights_sha256, state, identity.code, identity.unknown)


def _name_in_this_launch(held: object, state: str) -> str:
    """Return a name for an object that can't be compared: the same in all processes of a launch, and in no other."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        launch = _PROCESS
    else:  # the processes of a machine have one parent; those of other machines are refused
        launch = f"{os.getppid()} {os.environ.get('MASTER_ADDR')} {os.environ.get('MASTER_PORT')}"
    numbers = _numbers.of(held)
    number = numbers.setdefault("number", str(next(_counter)))
    return fingerprint([launch, number, state])


def settle(section: ComponentConfig) -> None:
    """Take note that an object was used: what it kept while it answered, as a count of its calls, is no change of it.

    Without this a network that keeps something in its forward would be another one in the next cell of a notebook.
    """
    for config in components_in(section):
        if not isinstance(config, InMemory) or config.held is None:
            continue
        if config.unknown is None and config.state_sha256 is not None:
            _states.of(config.held)[state_sha256(config.held)] = config.state_sha256


def changed_options(before: PerturbOptions, options: dict[str, Any]) -> PerturbOptions:
    """The options of a job with some of them changed. Raises UserError for one that there is not, or a bad value."""
    known = [field.name for field in fields(PerturbOptions)]
    if strangers := [name for name in options if name not in known]:
        raise UserError(unknown_message(f"option {strangers[0]}", strangers[0], known))
    try:
        return replace(before, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"{', '.join(f'{name}={value!r}' for name, value in options.items())}: {error}") from None
