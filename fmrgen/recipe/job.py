"""Recipes: what a job is made of, as YAML, with inheritance, overrides and a fingerprint.

Nothing here imports torch before something is built.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from fmrgen.config import (
    FINGERPRINT,
    IN_MEMORY,
    NOT_FINGERPRINTED,
    SINCE_0_2,
    AnyConfig,
    ComponentConfig,
    StrictConfig,
    check_places,
    known_keys,
    validate,
    without_later_defaults,
)
from fmrgen.engine.options import WITHOUT_GRADIENT, PerturbOptions
from fmrgen.errors import UserError, option
from fmrgen.files import fingerprint, parse_yaml
from fmrgen.generators.base import mask_of
from fmrgen.recipe.classifier_forms import form_of
from fmrgen.recipe.files import changes_of, check_reference, is_recipe, merged, read_recipe, shipped_recipes
from fmrgen.recipe.many_classifiers import classifiers_of_file, expanded
from fmrgen.recipe.sections import (
    ClassifierField,
    ClassifierOnly,
    GeneratorField,
    OracleField,
    SourceField,
    SourceOnly,
    check_no_weights,
    classifier_of_short_form,
    oracle_config_of,
    oracle_of_short_form,
)
from fmrgen.sources.base import SourceConfig
from fmrgen.storage.paths import CONFIG_NAME, RESERVED_NAMES

if TYPE_CHECKING:
    import torch

    from fmrgen.recipe.build import Components
    from fmrgen.recipe.fixed_sets import FixedSets


STUDIES = ("paper/", "validity")  # how the names of studies begin
SURROGATE = "surrogate"  # kind of classifier: one network's answers, another's gradient
SETS = "sets/"  # and of fixed sets
_COMMANDS = {"oracle": "generate", "schedule": "train", "title": "study"}  # by a key that their files alone have
Named = TypeVar("Named")
_DESCRIBED_ALL_THE_SAME = (*NOT_FINGERPRINTED, "output.config", "output.split", "output.shard_size")


class OutputConfig(StrictConfig):
    """How the perturbed split is stored."""

    config: str = Field(description="names the source, generator and oracle")
    split: str = Field(description="names the classifier")
    shard_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        500,
        description="rows in a shard, the unit of work and of resume; auto: for about a thousand shards",
    )
    keep_original: bool = True
    claims: Literal["auto", "lock", "lease"] = Field(
        "auto",
        description="how processes claim shards: by the operating system's locks, or by leases where those don't work",
        json_schema_extra=SINCE_0_2,
    )

    @field_validator("config", "split")
    @classmethod
    def _is_nobody_elses(cls, name: str, field: ValidationInfo) -> str:
        pattern, signs = (CONFIG_NAME, "_ . -") if field.field_name == "config" else (r"\w+(\.\w+)*", "_ .")
        if not re.fullmatch(pattern, name):
            raise ValueError(f"{name!r} can't be a name here; use letters, digits and {signs}, a letter first")
        if name in RESERVED_NAMES:
            raise ValueError(f"{name!r} is reserved in a dataset folder; choose another name")
        return name


class Recipe(StrictConfig):
    """A whole job: which images, perturbed by which generator against which classifier, under which oracle."""

    description: str = ""
    source: SourceField
    classifier: ClassifierField
    generator: GeneratorField
    oracle: OracleField
    perturb: Annotated[PerturbOptions, known_keys(PerturbOptions)] = PerturbOptions()
    output: OutputConfig

    @model_validator(mode="after")
    def _no_drift_beside_a_mask(self) -> "Recipe":
        if self.perturb.reencode and mask_of(self.generator) is not None:
            raise ValueError(
                "perturb.reencode moves all of the latent, generator.mask lets only a part of it move; leave one out"
            )
        return self

    @property
    def fingerprint(self) -> str:
        """16 hex digits over everything that can change a stored row or the plan of shards."""
        tree = self.model_dump(mode="json", context=FINGERPRINT)
        for key in NOT_FINGERPRINTED:
            *sections, name = key.split(".")
            reduce(dict.__getitem__, sections, tree).pop(name, None)
        tree |= {
            name: without_later_defaults(name, section) for name, section in tree.items() if isinstance(section, dict)
        }
        # The order of `classes` numbers the labels, and sorted JSON does not show it.
        return fingerprint([tree, list(getattr(self.source, "classes", None) or [])])

    def description_of(self, images: int) -> str:
        """Its description; where it has none, one made from its parts."""
        if self.description:
            return self.description
        parts = {name: _called(getattr(self, name)) for name in ("source", "generator", "classifier", "oracle")}
        return "{images} images of {source}, perturbed by {generator} against {classifier} under {oracle}".format(
            images=f"{images:,}", **parts
        )

    def in_precision(self, precision: Literal["fp32", "bf16"] | None) -> "Recipe":
        """The same recipe in another precision; None leaves it as it is."""
        if precision is None:
            return self
        return self.model_copy(update={"perturb": replace(self.perturb, precision=precision)})

    def build(self, device: "torch.device | str" = "cpu") -> "Components":
        """Builds all four components and proves on one blank image that they fit each other.

        Raises UserError where they do not: before any work, not in the middle of it.
        """
        from fmrgen.recipe.build import build_components

        if self.perturb.follows_gradient and self.classifier.kind == SURROGATE:
            raise UserError(
                f"perturb.update: {self.perturb.update} would follow a gradient that is not the classifier's; set "
                "perturb.update=prior, which asks whether it helps"
            )
        needs_gradient = self.perturb.update not in WITHOUT_GRADIENT or self.perturb.start != "none"
        return build_components(self.source, self.classifier, self.generator, self.oracle, device, needs_gradient)


def _called(section: ComponentConfig) -> str:
    """A component in a few words: its kind, and which one of that kind."""
    if section.kind == SURROGATE:
        names = [_called(getattr(section, name)) for name in ("classifier", "surrogate")]
        return " with the gradient of ".join(names)
    which = next(
        (getattr(section, key) for key in ("model", "target", "path", "url") if getattr(section, key, None)), None
    )
    name = Path(str(which)).name if which is not None and Path(str(which)).exists() else which
    kind = "in-memory" if section.kind == IN_MEMORY else section.kind
    return kind if name is None else f"{kind} {name}"


class StudyTitle(NamedTuple):
    """What a study is about, and about how many minutes it takes at small scale; None where it has none."""

    title: str
    minutes: int | None


def describe_studies() -> dict[str, StudyTitle]:
    """Every shipped study by its name, in the order of the paper's tables, those of our own last."""
    names = [name for name in shipped_recipes() if name.startswith(STUDIES)]
    in_order = sorted(names, key=lambda name: int(name.rpartition("-")[2]) if name.startswith("paper/") else math.inf)
    trees = {name: read_recipe(name) for name in in_order}
    return {name: StudyTitle(tree["title"], tree.get("small", {}).get("minutes")) for name, tree in trees.items()}


def describe_recipes() -> dict[str, str]:
    """Name → description of every shipped recipe that can be run by itself; studies are not among them."""
    names = [name for name in shipped_recipes() if not name.startswith(("_", *STUDIES))]
    return {name: str(read_recipe(name).get("description", "")) for name in names}


def load_recipe(reference: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from a file or a shipped name.

    Args:
        reference: the file or name.
        overrides: changes, `section.key=value` each, the values in YAML.

    Returns:
        The recipe, every key known and checked.

    Raises:
        UserError: something in it is not right; names the file and the key.
    """
    for override in overrides:
        _check_section(override)
    description = [override for override in overrides if override.startswith("description=")]
    if description or all(override.partition("=")[0] in _DESCRIBED_ALL_THE_SAME for override in overrides):
        return load_config(Recipe, reference, overrides)
    return load_config(Recipe, reference, ["description=''", *overrides])  # it would tell of another job


def _check_section(override: str) -> None:
    """Raises UserError for a key that is one of a section's, and stands without it."""
    key = override.partition("=")[0]
    options = {option.name for option in fields(PerturbOptions)}
    for section, keys in (
        ("perturb", options),
        ("source", SourceConfig.model_fields),
        ("output", OutputConfig.model_fields),
    ):
        if key in keys and key not in Recipe.model_fields:
            raise UserError(f"{override}: {key} is a key of a section; say {section}.{override}")


def load_config(section: type[AnyConfig], reference: str | Path, overrides: Sequence[str] = ()) -> AnyConfig:
    """`load_recipe` for any kind of recipe."""
    tree = read_recipe(reference)
    kinds = {key for key in _COMMANDS if key in tree}
    if kinds and not kinds & section.model_fields.keys():
        command = _COMMANDS[kinds.pop()]
        raise UserError(
            f"{reference}: is a file for `fmrgen {command}`; `fmrgen recipes` and `fmrgen study` list others"
        )
    return validate(section, merged(tree, changes_of(overrides)), str(reference))


def parse_classifier(text: str) -> tuple[str, ComponentConfig]:
    """The name and the section of a classifier that is given in one word.

    Args:
        text: `[NAME=]` and then a recipe whose classifier is meant, a section as inline YAML (`{kind: timm, …}`), or
            a short form (`recipe.classifier_forms`): `timm:NAME`, a folder, an import path and others.

    Returns:
        Its name and its config; `config.build(device)` makes the network.

    Raises:
        UserError: it is something else, or names a file that is not there.
    """
    name, reference = _name_and_reference(text)
    check_no_weights(reference)
    if reference.lstrip().startswith("{"):
        section = _classifier_of({"classifier": parse_yaml(reference, reference)}, reference)
        which = getattr(section, "model", None) or getattr(section, "target", None) or section.kind
        return name or Path(which.rpartition(":")[2]).name, section
    if is_recipe(reference):
        recipe = read_recipe(reference)
        tree = {key: value for key, value in recipe.items() if key == "classifier"}
        output = recipe.get("output")
        name = name or (output.get("split") if isinstance(output, dict) else None) or Path(reference).stem
    else:
        tree = {"classifier": classifier_of_short_form(reference)}
    form, rest = form_of(reference)
    default = form.name(rest) if form is not None else rest or Path(reference).name
    if Path(default).exists():
        default = Path(default).resolve().name  # the way to it is nobody's business
    return str(name or default), _classifier_of(tree, reference)


def _classifier_of(tree: Any, name: str) -> ComponentConfig:
    found = validate(ClassifierOnly, tree, name)
    check_places(found)
    return found.classifier


def load_classifiers(
    texts: Sequence[str], network: str | None = None, listed: Path | None = None
) -> dict[str, ComponentConfig | list[ComponentConfig]]:
    """Classifiers by their names, each as `parse_classifier` reads it; of `NAME=A,B,…`, trainings of one, the list.

    Args:
        texts: words, or patterns (`recipe.many_classifiers`).
        network: `package.module:Name`, which files of weights among them are of.
        listed: a YAML file that maps names to more of them.

    Raises:
        UserError: two have one name, several have none, or there is none.
    """
    words = [word for text in texts for word in expanded(text, network)]
    words += [] if listed is None else classifiers_of_file(listed)
    if not words:
        raise UserError(f"{option('classifier', 'classifiers')}: give at least one")
    return _by_name([_parse_trainings(word) for word in words], "classifiers")


def _parse_trainings(text: str) -> tuple[str, ComponentConfig | list[ComponentConfig]]:
    name, reference = _name_and_reference(text)
    each = _outside_braces(reference)
    if len(each) < 2 or reference.startswith(("http:", "https:")) or Path(reference).exists():
        return parse_classifier(text)
    if name is None:
        raise UserError(f"classifier {text}: several trainings need a name, NAME={text}")
    return name, [parse_classifier(one)[1] for one in each]


def _outside_braces(text: str) -> list[str]:
    """The parts of a text between commas, but for those within braces or quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'" and depth:
            quote = letter
        depth += 0 if quote else (letter == "{") - (letter == "}")
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part]


def _name_and_reference(text: str) -> tuple[str | None, str]:
    """`[NAME=]REFERENCE` in its parts."""
    named = re.fullmatch(r"([\w.-]+)=(.+)", text, re.DOTALL)
    return (named[1], named[2]) if named else (None, text)


def _by_name(sections: Sequence[tuple[str, Named]], what: str) -> dict[str, Named]:
    found: dict[str, Named] = {}
    for name, section in sections:
        if name in found:
            raise UserError(f"two {what} are called {name}; give one another name, NAME=…, or leave it out")
        found[name] = section
    return found


def parse_oracle(text: str) -> tuple[str, ComponentConfig]:
    """The name and the section of an oracle that is given in one word.

    Args:
        text: `[NAME=]` and then a recipe whose oracle is meant, a section as inline YAML (`{kind: reference, …}`), or a
            short form: `KIND:MODEL` (`zero_shot:google/siglip2-base-patch16-224`), a folder, asset or repo of a CLIP,
            or `package.module:Name`.

    Returns:
        Its name and its config; `config.build(device)` makes the oracle.

    Raises:
        UserError: it is something else, or names a file that is not there.
    """
    name, reference = _name_and_reference(text)
    if reference.lstrip().startswith("{"):
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
    """Oracles by their names, each as `parse_oracle` reads it. Raises UserError for two of one name."""
    return _by_name([parse_oracle(text) for text in texts], "oracles")


def load_fixed_sets(texts: Sequence[str]) -> "dict[str, FixedSets]":
    """Fixed sets by their names.

    Args:
        texts: `[NAME=]` and then a shipped name (`sets/imagenet-c`), a file, or a section of a source as inline YAML.

    Returns:
        Them, every key known and checked.

    Raises:
        UserError: one is something else, or two have one name.
    """
    from fmrgen.recipe.fixed_sets import FixedSets

    found = {}
    for text in texts:
        name, reference = _name_and_reference(text)
        is_section = reference.lstrip().startswith("{")
        if not is_section:
            _check_fixed(reference)
        tree = {"source": parse_yaml(reference, reference)} if is_section else read_recipe(reference)
        name = name or ("set" if is_section else Path(reference).stem)
        if name in found:
            raise UserError(f"{option('fixed', 'fixed')}: two sets are called {name}; give one another name, NAME=…")
        found[name] = validate(FixedSets, tree, reference)
        found[name].sources(name)  # a mistake in a source is an error now
    return found


def _check_fixed(reference: str) -> None:
    """Raises UserError for what is neither a file nor a shipped recipe of sets."""
    if reference not in shipped_recipes() and Path(reference).is_dir():
        raise UserError(
            f"{reference}: is a folder; write {option('fixed', 'fixed')} {{kind: imagefolder, path: {reference}}}"
        )
    check_reference(reference, "set", SETS)


def load_source(text: str) -> SourceConfig:
    """The source of a recipe, or a source section as inline YAML. Raises UserError."""
    is_section = text.lstrip().startswith("{")
    found = source_config_of(parse_yaml(text, text) if is_section else read_recipe(text).get("source"), text)
    check_places(found, "source")
    return found


def source_config_of(tree: Any, name: str) -> SourceConfig:
    """A source section from its mapping; a mistake in it is a UserError that starts with `name`."""
    return validate(SourceOnly, {"source": tree}, name).source
