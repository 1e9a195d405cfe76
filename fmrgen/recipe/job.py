"""Recipes: the description of a job in YAML, with inheritance, overrides and a fingerprint.

Nothing here imports torch before something is built.
"""

import re
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from fmrgen.config import (
    FINGERPRINT,
    IN_MEMORY,
    NOT_FINGERPRINTED,
    AnyConfig,
    ComponentConfig,
    StrictConfig,
    check_places,
    known_keys,
    validate,
)
from fmrgen.engine.options import WITHOUT_GRADIENT, AttackOptions, PerturbOptions
from fmrgen.errors import UserError, option, unknown_message
from fmrgen.files import fingerprint, parse_yaml
from fmrgen.generators.base import mask_of
from fmrgen.recipe.classifier_forms import form_of, is_inline
from fmrgen.recipe.files import find_recipe, is_recipe, merged, parse_override, read_recipe, shipped_recipes
from fmrgen.recipe.fixed_sets import FixedSets
from fmrgen.recipe.many_classifiers import expanded, split_at_commas
from fmrgen.recipe.sections import (
    ClassifierField,
    GeneratorField,
    OracleField,
    SourceField,
    check_no_weights,
    classifier_config_of,
    classifier_of_short_form,
    oracle_config_of,
    oracle_of_short_form,
    source_config_of,
)
from fmrgen.sources.base import SourceConfig
from fmrgen.storage.paths import CONFIG_NAME, RESERVED_NAMES

if TYPE_CHECKING:
    import torch

    from fmrgen.recipe.build import Components

SETS = "sets/"  # how the names of fixed sets begin
_COMMANDS = {"oracle": "generate", "schedule": "train"}  # by a key that only their files have
Named = TypeVar("Named")
# A recipe keeps its description if nothing else is changed.
_NOT_DESCRIBED = (*NOT_FINGERPRINTED, "output.config", "output.split", "output.shard_size")


class OutputConfig(StrictConfig):
    """How the perturbed split is stored."""

    config: str = Field(description="names the source, generator and oracle")
    split: str = Field(description="names the classifier")
    shard_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        500, description="rows in a shard, the unit of work and of resume; auto: for about a thousand shards"
    )
    keep_original: bool = True

    def renamed(self, **names: str) -> "OutputConfig":
        """Return the same section with another `config` or `split`. Raises ValueError if it can't be named so."""
        return OutputConfig.model_validate(self.model_dump() | names)

    @field_validator("config", "split")
    @classmethod
    def _check_name(cls, name: str, field: ValidationInfo) -> str:
        pattern, signs = r"\w+(\.\w+)*", "_ ."
        if field.field_name == "config":
            pattern, signs = CONFIG_NAME, "_ . -"
        if not re.fullmatch(pattern, name):
            raise ValueError(f"{name!r} can't be a name here; use letters, digits and {signs}, a letter first")
        if name in RESERVED_NAMES:
            raise ValueError(f"{name!r} is reserved in a dataset folder; choose another name")
        return name


def _with_attacks(data: Any) -> Any:
    """Return the `perturb` section with its list of attacks as objects.

    Raises ValueError for one that can't be made, as pydantic would name another alternative than the list.
    """
    if not isinstance(data, dict) or not isinstance(data.get("attacks"), list):
        return data
    names = [field.name for field in fields(AttackOptions)]
    attacks = []
    for number, attack in enumerate(data["attacks"], start=1):
        if not isinstance(attack, dict):
            keys = ", ".join(names)
            raise ValueError(f"attacks: entry {number} is {attack!r}; write {{update: sign}}, with the keys {keys}")
        for key in attack:
            if key not in names:
                raise ValueError(f"attacks: entry {number}: {unknown_message(f'key {key}', key, names)}")
        try:
            attacks.append(AttackOptions(**attack))
        except ValueError as error:
            raise ValueError(f"attacks: entry {number}: {error}") from None
    return {**data, "attacks": attacks}


PerturbField = Annotated[PerturbOptions, known_keys(PerturbOptions), BeforeValidator(_with_attacks)]


class Recipe(StrictConfig):
    """A whole job: which images, perturbed by which generator against which classifier, under which oracle."""

    description: str = ""
    source: SourceField
    classifier: ClassifierField
    generator: GeneratorField
    oracle: OracleField
    perturb: PerturbField = PerturbOptions()
    output: OutputConfig

    @model_validator(mode="after")
    def _check_mask_is_not_reencoded(self) -> "Recipe":
        if self.perturb.reencode and mask_of(self.generator) is not None:
            raise ValueError(
                "perturb.reencode moves all of the latent, generator.mask lets only a part of it move; leave one out"
            )
        return self

    @property
    def fingerprint(self) -> str:
        """Return 16 hex digits over everything that can change a stored row or the plan of shards."""
        tree = self.model_dump(mode="json", context=FINGERPRINT)
        for key in NOT_FINGERPRINTED:
            *sections, name = key.split(".")
            reduce(dict.__getitem__, sections, tree).pop(name, None)
        # The order of `classes` numbers the labels, and sorted JSON does not show it.
        return fingerprint([tree, list(getattr(self.source, "classes", None) or [])])

    def description_of(self, images: int) -> str:
        """Return its description, or one made from its parts if it has none; `images` is the number of images."""
        if self.description:
            return self.description
        return (
            f"{images:,} images of {_called(self.source)}, perturbed by {_called(self.generator)} "
            f"against {_called(self.classifier)} under {_called(self.oracle)}"
        )

    def in_precision(self, precision: Literal["fp32", "bf16"] | None) -> "Recipe":
        """Return the same recipe in another precision; None leaves it as it is."""
        if precision is None:
            return self
        return self.model_copy(update={"perturb": replace(self.perturb, precision=precision)})

    def build(self, device: "torch.device | str" = "cpu") -> "Components":
        """Build all four components and check on one blank image that they fit each other.

        Raises UserError if they do not, so that a job fails before it starts and not in the middle.
        """
        from fmrgen.recipe.build import build_components

        # The rules of an attack do not depend on the length of its steps.
        runs = replace(self.perturb, step_size=1.0).runs
        needs_gradient = any(run.update not in WITHOUT_GRADIENT for run in runs) or self.perturb.start != "none"
        return build_components(self.source, self.classifier, self.generator, self.oracle, device, needs_gradient)


def _called(section: ComponentConfig) -> str:
    """Return a component in a few words: its kind, and its model, target, path or address."""
    kind = "in-memory" if section.kind == IN_MEMORY else section.kind
    for key in ("model", "target", "path", "url"):
        name = getattr(section, key, None)
        if name:
            path = Path(str(name))
            return f"{kind} {path.name if path.exists() else name}"
    return kind


def describe_recipes() -> dict[str, str]:
    """Return the description of every shipped recipe that can be run by itself, by its name."""
    names = [name for name in shipped_recipes() if not name.startswith("_")]
    return {name: str(read_recipe(name).get("description", "")) for name in names}


def load_recipe(reference: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return a recipe from a file or a shipped name.

    Args:
        reference: the file or name.
        overrides: changes, `section.key=value` each, the values in YAML.

    Returns:
        The recipe, with every key checked.

    Raises:
        UserError: a key or value in it is wrong; the message names both and the file.
    """
    keys = set()
    for override in overrides:
        _check_section(override)
        keys.add(override.partition("=")[0])
    if "description" in keys or keys <= set(_NOT_DESCRIBED):
        return load_config(Recipe, reference, overrides)
    # A changed recipe must not keep the description of the original.
    return load_config(Recipe, reference, ["description=''", *overrides])


def _check_section(override: str) -> None:
    """Raise UserError for a key of a section that is given without the section."""
    key = override.partition("=")[0]
    if key in Recipe.model_fields:
        return
    options = {option.name for option in fields(PerturbOptions)}
    for section, keys in (
        ("perturb", options),
        ("source", SourceConfig.model_fields),
        ("output", OutputConfig.model_fields),
    ):
        if key in keys:
            raise UserError(f"{override}: {key} is a key of a section; say {section}.{override}")


def load_config(section: type[AnyConfig], reference: str | Path, overrides: Sequence[str] = ()) -> AnyConfig:
    """Return a recipe of any kind, of the class `section`, as `load_recipe` does for jobs."""
    tree = read_recipe(reference)
    kinds = tree.keys() & _COMMANDS.keys()
    if kinds and not kinds & section.model_fields.keys():
        command = _COMMANDS[kinds.pop()]
        raise UserError(f"{reference}: is a file for `fmrgen {command}`; `fmrgen recipes` lists others")
    # The changes are laid over each other first, so that a new kind takes all keys of its section with it.
    changes: dict[str, Any] = {}
    for override in overrides:
        changes = merged(changes, parse_override(override))
    return validate(section, merged(tree, changes), str(reference))


def parse_classifier(text: str) -> tuple[str, ComponentConfig]:
    """Return the name and the config of a classifier from one word; `config.build(device)` makes the network.

    `text` is `[NAME=]` and then a recipe whose classifier is meant, a section as inline YAML (`{kind: timm, …}`), or a
    short form (`recipe.classifier_forms`): `timm:NAME`, a folder, an import path and others. Raises UserError if it is
    something else, or names a missing file.
    """
    name, reference = _name_and_reference(text)
    check_no_weights(reference)
    if is_inline(reference):
        section = classifier_config_of(parse_yaml(reference, reference), reference)
        model = getattr(section, "model", None) or getattr(section, "target", None) or section.kind
        default = Path(model.rpartition(":")[2]).name
    elif is_recipe(reference):
        recipe = read_recipe(reference)
        if "classifier" not in recipe:
            raise UserError(f"{reference}: has no classifier; write its section below the key classifier")
        section = classifier_config_of(recipe["classifier"], reference)
        output = recipe.get("output")
        default = (output.get("split") if isinstance(output, dict) else None) or Path(reference).stem
    else:
        section = classifier_config_of(classifier_of_short_form(reference), reference)
        form, rest = form_of(reference)
        default = rest or Path(reference).name
        if form is not None and form.prefix == "onnx":
            default = Path(rest).stem
        if Path(default).exists():
            default = Path(default).resolve().name  # without the path, which is private
    check_places(section, "classifier")
    return str(name or default), section


def the_classifier(text: str, network: str | None) -> tuple[str, ComponentConfig]:
    """Return the name and the config of the one classifier that a word of a command stands for.

    `text` is as for `parse_classifier`, a file of weights, or a pattern of one; `network`, `package.module:Name`, is
    the one that a file of weights belongs to. Raises UserError if it stands for none, or several.
    """
    words = expanded(text, network)
    if len(words) != 1:
        raise UserError(f"{text}: matches {len(words)} classifiers; name one")
    return parse_classifier(words[0])


def load_classifiers(
    texts: Sequence[str], network: str | None = None
) -> dict[str, ComponentConfig | list[ComponentConfig]]:
    """Return classifiers by their names, each as `parse_classifier` reads it, and for `NAME=A,B,…` a list of trainings.

    The texts are words, or patterns (`recipe.many_classifiers`); `network`, `package.module:Name`, is the one that
    files of weights among them belong to. Raises UserError if two have the same name, several trainings have none, or
    there are no classifiers.
    """
    words = list(chain.from_iterable(expanded(text, network) for text in texts))
    if not words:
        raise UserError(f"{option('classifier', 'classifiers')}: give at least one")
    return _by_name([_parse_trainings(word) for word in words], "classifiers")


def _parse_trainings(text: str) -> tuple[str, ComponentConfig | list[ComponentConfig]]:
    """Return a classifier as `parse_classifier` does, or the trainings that `NAME=A,B,…` lists."""
    name, reference = _name_and_reference(text)
    trainings = split_at_commas(reference)
    if len(trainings) < 2 or reference.startswith(("http:", "https:")) or Path(reference).exists():
        return parse_classifier(text)
    if name is None:
        raise UserError(f"classifier {text}: several trainings need a name, NAME={text}")
    return name, [parse_classifier(training)[1] for training in trainings]


def _name_and_reference(text: str) -> tuple[str | None, str]:
    """Return the parts of `[NAME=]REFERENCE`."""
    match = re.fullmatch(r"([\w.-]+)=(.+)", text, re.DOTALL)
    return (None, text) if match is None else (match[1], match[2])


def _by_name(sections: Sequence[tuple[str, Named]], plural: str) -> dict[str, Named]:
    by_name: dict[str, Named] = {}
    for name, section in sections:
        if name in by_name:
            raise UserError(f"two {plural} are called {name}; give one another name, NAME=…, or leave it out")
        by_name[name] = section
    return by_name


def parse_oracle(text: str) -> tuple[str, ComponentConfig]:
    """Return the name and the config of an oracle from one word; `config.build(device)` makes the oracle.

    `text` is `[NAME=]` and then a recipe whose oracle is meant, a section as inline YAML (`{kind: vlm, …}`), or a short
    form: `KIND:MODEL` (`zero_shot:google/siglip2-base-patch16-224`), a folder, asset or repo of a CLIP, or
    `package.module:Name`. Raises UserError if it is something else, or names a missing file.
    """
    name, reference = _name_and_reference(text)
    if is_inline(reference):
        section = oracle_config_of(parse_yaml(reference, reference), reference)
        default = section.kind
    elif is_recipe(reference):
        section = oracle_config_of(read_recipe(reference).get("oracle"), reference)
        default = Path(reference).stem
    else:
        section = oracle_of_short_form(reference)
        default = re.sub(r"[^\w.-]+", "-", reference.rstrip("/").rpartition("/")[2]).strip("-.")
    check_places(section, "oracle")
    return name or default, section


def load_oracles(texts: Sequence[str]) -> dict[str, ComponentConfig]:
    """Return oracles by their names, each as `parse_oracle` reads it. Raises UserError for two of one name."""
    return _by_name([parse_oracle(text) for text in texts], "oracles")


def load_fixed_sets(texts: Sequence[str]) -> dict[str, FixedSets]:
    """Return fixed sets by their names, with every key checked.

    Each text is `[NAME=]` and then a shipped name (`sets/imagenet-c`), a file, or a section of a source as inline YAML.
    Raises UserError if one is something else, or two have one name.
    """
    fixed_sets = {}
    for text in texts:
        name, reference = _name_and_reference(text)
        if is_inline(reference):
            tree = {"source": parse_yaml(reference, reference)}
            name = name or "set"
        else:
            if reference not in shipped_recipes() and Path(reference).is_dir():
                cure = f"write {option('fixed', 'fixed')} {{kind: imagefolder, path: {reference}}}"
                raise UserError(f"{reference}: is a folder; {cure}")
            find_recipe(reference, "set", SETS)
            tree = read_recipe(reference)
            name = name or Path(reference).stem
        if name in fixed_sets:
            raise UserError(f"{option('fixed', 'fixed')}: two sets are called {name}; give one another name, NAME=…")
        fixed_sets[name] = validate(FixedSets, tree, reference)
        fixed_sets[name].sources(name)  # so that a mistake in a source is reported now
    return fixed_sets


def load_source(text: str) -> SourceConfig:
    """Return the source of a recipe, or of a source section as inline YAML. Raises UserError."""
    tree = parse_yaml(text, text) if is_inline(text) else read_recipe(text).get("source")
    config = source_config_of(tree, text)
    check_places(config, "source")
    return config
