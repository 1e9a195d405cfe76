"""A caller's component, an object or a word for one, turned into the section of a recipe."""

import itertools
import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any
from weakref import finalize

import torch
from torch import nn

from fmrgen.config import ComponentConfig, InMemory, sections_in
from fmrgen.engine.interfaces import Generator, Oracle
from fmrgen.engine.options import PerturbOptions
from fmrgen.errors import UserError, unknown_message
from fmrgen.files import fingerprint
from fmrgen.recipe.build import Role, build_component
from fmrgen.recipe.job import parse_classifier, parse_oracle
from fmrgen.recipe.sections import generator_config_of, generator_of_short_form, oracle_config_of
from fmrgen.weights.identity import hashed, identity_of

_PROCESS = secrets.token_hex(8)
_counter = itertools.count()


_notes: dict[int, dict[str, str]] = {}  # of living objects, by their `id`


def _notes_of(held: object) -> dict[str, str]:
    """Return what is noted of an object, whether or not it can be hashed, as long as it lives.

    Under `number` stands the number of one that no other process can recognise; under each state in which it was left,
    the one in which it was handed over. Of an object that can't be referred to weakly nothing is kept.
    """
    if id(held) not in _notes:
        try:
            finalize(held, _notes.pop, id(held))
        except TypeError:
            return {}
        _notes[id(held)] = {}
    return _notes[id(held)]


AnyClassifier = nn.Module | ComponentConfig | Mapping[str, Any] | str
"""A module from images [B, 3, H, W] in [0, 1] to logits [B, K], a config, a section of a recipe as a mapping, or what
`load_classifier` takes."""
AnyGenerator = Generator | ComponentConfig | Mapping[str, Any] | str
"""A generator, a config, a section of a recipe as a mapping, or a word: the folder, asset or repo of a VQGAN or an
autoencoder of diffusers, `transform`, or the import path of a config."""
AnyOracle = Oracle | nn.Module | ComponentConfig | Mapping[str, Any] | str
"""An oracle, a torch module that classifies, a config, a section of a recipe as a mapping, or a word: `KIND:MODEL`
(`zero_shot:google/siglip2-base-patch16-224`), the folder, asset or repo of a CLIP, `package.module:Name`, a recipe."""


def load_classifier(reference: str, device: torch.device | str = "cpu") -> nn.Module:
    """Return a ready classifier from its short form.

    Args:
        reference: as for the option `-c`: `timm:NAME`, `hf:REPO`, `asset:NAME`, an import path, a folder of
            `fmrgen train`, a recipe (its classifier is taken), or a section as inline YAML (`{kind: timm, …}`).
        device: where it runs.

    Returns:
        A module in evaluation mode, from images [B, 3, H, W] in [0, 1] to logits [B, K]; `class_names` are the names
        of the K classes, or None.

    Raises:
        UserError: it is something else, or can't be built.
    """
    return build_component(parse_classifier(reference)[1], "classifier", nn.Module, torch.device(device)).eval()


def classifier_section(classifier: AnyClassifier) -> ComponentConfig:
    """Return the section of a module, of a section in any form, or of a word for one. Raises UserError."""
    if isinstance(classifier, str | Mapping):
        return parse_classifier(_as_text(classifier))[1]
    return _section(classifier, "classifier", nn.Module)


def each_training(classifiers: Mapping[str, Any]) -> dict[str, tuple[Any, str | None]]:
    """Return classifiers one by one, each with the name of what it is a training of.

    A list under the name `lenet` becomes `lenet-1`, `lenet-2`, …, each a training of `lenet`; a single classifier is
    a training of None. Raises UserError if a list has fewer than two, or a name is taken.
    """
    trainings: dict[str, tuple[Any, str | None]] = {}
    for name, entry in classifiers.items():
        members: dict[str, tuple[Any, str | None]] = {name: (entry, None)}
        if isinstance(entry, list | tuple):
            members = {f"{name}-{number}": (classifier, name) for number, classifier in enumerate(entry, 1)}
            if len(entry) < 2:
                raise UserError(f"classifier {name}: a list means several trainings of it; give at least two")
        for taken in members.keys() & trainings.keys():
            raise UserError(f"two classifiers are called {taken}; give one another name")
        trainings |= members
    return trainings


def generator_section(generator: AnyGenerator, image_size: int) -> ComponentConfig:
    """Return the section of a generator, of a section in any form, or of a word for one. Raises UserError.

    `image_size` is used if the section has none.
    """
    if isinstance(generator, str):
        return generator_of_short_form(generator, image_size)
    if isinstance(generator, Mapping):
        return generator_config_of(generator, image_size, f"{{kind: {generator.get('kind', '…')}, …}}")
    return _section(generator, "generator", Generator)


def oracle_section(oracle: AnyOracle) -> ComponentConfig:
    """Return the section of an oracle, of a section in any form, or of a word for one. Raises UserError.

    A torch module judges as a classifier.
    """
    if isinstance(oracle, str | Mapping):
        return parse_oracle(_as_text(oracle))[1]
    if isinstance(oracle, nn.Module) and not isinstance(oracle, Oracle):
        return oracle_config_of({"kind": "classifier", "classifier": classifier_section(oracle)}, "oracle")
    return _section(oracle, "oracle", Oracle)


def _as_text(section: str | Mapping[str, Any]) -> str:
    """Return a section as inline YAML."""
    return section if isinstance(section, str) else json.dumps(section)


def built(
    component: Any, section_of: Callable[[Any], ComponentConfig], name: str, role: type[Role], device: torch.device
) -> Role:
    """Return a component itself: an object as it is, without a digest of its weights, else the one its section builds.

    `section_of` returns the section of a word. A module is moved to the device in place. Errors begin with `name`.
    """
    if isinstance(component, role):
        if isinstance(component, nn.Module):
            component.to(device).eval()  # in place
        return component
    return build_component(section_of(component), name, role, device)


def _section(component: Any, name: str, role: type) -> ComponentConfig:
    """Return the section of an object, or a section as it is. Raises UserError, starting with `name`, for others."""
    if isinstance(component, ComponentConfig):
        return component
    if not isinstance(component, role):
        kind = f"the class {component.__name__}" if isinstance(component, type) else f"a {type(component).__name__}"
        others = {"classifier": "torch module", "oracle": "fmrgen.Oracle or a torch module"}
        wanted = others.get(name, f"fmrgen.{role.__name__}")
        raise UserError(f"{name}: must be a {wanted} (an instance), a section or a name; it is {kind}")
    identity = identity_of(component)
    state = _notes_of(component).get(identity.state, identity.state)
    if identity.unknown is not None:
        state = _name_in_this_launch(component, state)
    return InMemory.of(component, identity.weights_sha256, state, identity.code, identity.unknown)


def _name_in_this_launch(held: object, state: str) -> str:
    """Return a name for an object that can't be compared: the same in all processes of a launch, and in no other."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        launch = _PROCESS
    else:  # the processes of a machine have one parent; those of other machines are refused
        launch = f"{os.getppid()} {os.environ.get('MASTER_ADDR')} {os.environ.get('MASTER_PORT')}"
    number = _notes_of(held).setdefault("number", str(next(_counter)))
    return fingerprint([launch, number, state])


def settle(section: ComponentConfig) -> None:
    """Record the state in which use left an object: a change by its own forward, as a count of calls, is no change.

    Without this, a network that keeps something in its forward would count as another network in the next cell of a
    notebook.
    """
    for _, config in sections_in(section):
        if not isinstance(config, InMemory) or config.held is None:
            continue
        if config.unknown is None and config.state is not None:
            _notes_of(config.held)[hashed(config.held)[0]] = config.state


def changed_options(before: PerturbOptions, options: dict[str, Any]) -> PerturbOptions:
    """Return the options of a job with some of them changed. Raises UserError for an unknown one, or a bad value."""
    names = [field.name for field in fields(PerturbOptions)]
    for name in options:
        if name not in names:
            raise UserError(unknown_message(f"option {name}", name, names))
    try:
        return replace(before, **options)
    except (TypeError, ValueError) as error:
        changes = ", ".join(f"{name}={value!r}" for name, value in options.items())
        raise UserError(f"{changes}: {error}") from None
