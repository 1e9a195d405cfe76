"""The parts of recipes: sections that refuse unknown keys, and component sections that know their kind.

Nothing here imports torch, and component modules import it only when they build, so a mistake in a recipe
is an error at once.
"""

import importlib
import importlib.resources
import importlib.util
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from fmrgen.errors import UserError, fault_in_words, one_line, unknown_message, without_queries
from fmrgen.files import open_plain, parse_yaml

if TYPE_CHECKING:
    import torch

_UNION_PART = re.compile(r"(constrained-|list\[|dict\[|literal\[|(str|int|float|bool)$)")  # pydantic's, no key
# Keys of a recipe that change no row and no plan of shards.
NOT_FINGERPRINTED = (
    "description",
    "source.on_error",
    "source.license",
    "perturb.slots",
    "perturb.compile",
    "output.claims",
)
FINGERPRINT = {"fingerprint": True}  # the context in which a component leaves out what can change no stored row
_NOTHING = object()
IN_MEMORY = "in_memory"  # the kind of what was handed over in Python, which nobody writes into a recipe
_NO_KINDS = ("base", "networks", IN_MEMORY)
# Of a field that recipes of 0.1.0 do not have: they mean its default, or what it calls `before`.
SINCE_0_2: dict[str, Any] = {"since": "0.2.0"}
_OF_TIMM = "timm:"
_REPO_ID = re.compile(r"(?!.*\.\.)\w[\w.-]*/[\w.-]+")
UNTRUSTED = "of a stranger"  # the context of a validation that imports nothing and reads no file


def without_later_defaults(section: str, tree: Mapping[str, Any]) -> dict[str, Any]:
    """A section without the keys that later versions brought (`since`), where they say what was done before anyway:
    the default, or what the field calls `before`. A kind of your own may have the keys of any built-in one."""
    later = _later_defaults(section, str(tree.get("kind")))
    return {key: value for key, value in tree.items() if later.get(key, _NOTHING) != value}


@cache
def _later_defaults(section: str, kind: str) -> dict[str, Any]:
    found: list[tuple[str, Any, Any]] = []
    if section == "perturb":
        options = importlib.import_module("fmrgen.engine.options").PerturbOptions
        found = [(field.name, field.metadata, field.default) for field in fields(options)]
    elif section in ("source", "classifier", "generator", "oracle"):
        kinds = built_in_kinds(package := f"fmrgen.{section}s")
        for config in (config_class(package, one) for one in ([kind] if kind in kinds else kinds)):
            known = config.model_fields.items()
            found += [(name, field.json_schema_extra or {}, field.default) for name, field in known]
    return {name: about.get("before", default) for name, about, default in found if "since" in about}


class StrictConfig(BaseModel):
    """A part of a recipe. Unknown keys are refused, with the nearest known one in the message."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())

    ARGUMENTS: ClassVar[str | None] = None  # the key of what is passed on to a network, if there is one

    @model_validator(mode="before")
    @classmethod
    def _check_known_keys(cls, data: Any) -> Any:
        return _check_keys(data, cls.__name__, cls.model_fields, cls.ARGUMENTS)


def known_keys(options: type) -> BeforeValidator:
    """Refuses keys that the dataclass `options` does not have, as a `StrictConfig` does."""
    return BeforeValidator(lambda data: _check_keys(data, options.__name__, [field.name for field in fields(options)]))


def _check_keys(data: Any, name: str, known: Collection[str], arguments: str | None = None) -> Any:
    def text(key: Any) -> str:
        cure = f" (an argument of the network goes into {arguments}: {{{key}: {data[key]!s:.40}}})" if arguments else ""
        return unknown_message("key", key, known) + cure

    if isinstance(data, dict) and (strangers := [key for key in data if key not in known]):
        raise ValidationError.from_exception_data(
            name,
            [
                InitErrorDetails(
                    type=PydanticCustomError("unknown_key", "{text}", {"text": text(key)}),
                    loc=(key,),
                    input=data[key],
                )
                for key in strangers
            ],
        )
    return data


class ComponentConfig(StrictConfig):
    """The section of one component: what it is (`kind`) and how to make it (`build`).

    `kind` is a built-in name (the module of that name beside the component's base) or `package.module:Class`.
    """

    FILES: ClassVar[tuple[str, ...]] = ("checkpoint", "mask")  # keys that name files, of a built-in kind that has them
    PLACES: ClassVar[tuple[str, ...] | None] = None  # keys of what it reads, if it does no harm; None: nothing is known

    kind: str

    def check_places(self, section: str) -> None:
        """Raises UserError where a file or folder that it names is not there: `section` is its place in the recipe.

        Imports no torch, so that a typo is an error at once.
        """
        for key in () if ":" in self.kind else self.FILES:
            file = getattr(self, key, None)
            if file is not None and not file.startswith(("hf:", "asset:")) and not Path(file).is_file():
                raise UserError(f"{section}.{key}: no such file as {file}")

    def build(self, device: "torch.device | str" = "cpu") -> Any:
        """The component itself, its weights loaded and on `device`. Raises UserError for what a user can mend."""
        raise NotImplementedError

    def code_it_runs(self) -> list[str]:
        """The code of others that building or using it would run: import paths, commands, repos that bring code.

        A component inside this one speaks for itself. A kind is harmless only if it says so, by `PLACES`.
        """
        return [self.kind] if self.PLACES is None else []

    def places_it_reads(self) -> list[str]:
        """The files, folders and addresses that it would read, but for repos on the Hub and what fmrgen ships."""
        if self.PLACES is None:
            return [f"whatever {self.kind} likes"]
        return paths_among(*(getattr(self, key) for key in self.PLACES))


def paths_among(*references: str | None) -> list[str]:
    """Those of the references to models and files that name a file, a folder or an address, and neither a repo on the
    Hub (`owner/name`, where there is no such folder here; `hf:owner/name/file`) nor an asset.
    """
    return [text for text in references if text is not None and not _is_harmless(text)]


def _is_harmless(reference: str) -> bool:
    if reference.startswith("asset:"):
        return True
    if reference.startswith("hf:"):
        owner, _, rest = reference.removeprefix("hf:").partition("/")
        return _REPO_ID.match(f"{owner}/{rest}") is not None and ".." not in rest and "//" not in rest
    return _REPO_ID.fullmatch(reference) is not None and not os.path.lexists(reference)


def check_places(config: BaseModel, section: str = "") -> None:
    """`ComponentConfig.check_places` of a section, or of all in a recipe. Raises UserError."""
    if isinstance(config, ComponentConfig):
        config.check_places(section)
    for key, value in config:
        if isinstance(value, BaseModel):
            check_places(value, f"{section}.{key}" if section else key)


def _from_file(value: Any, info: ValidationInfo) -> Any:
    """The names in the file of that path, which the recipe holds from then on; what is no path stays as it is."""
    if not isinstance(value, str):
        return value
    if info.context == UNTRUSTED:
        raise PydanticCustomError("names", "names a file, which an untrusted recipe may not; list the names")
    try:
        if value.startswith(_OF_TIMM):
            return list(_names_of_timm(value.removeprefix(_OF_TIMM)))
        with open_plain(Path(value)) as file:
            text = file.read().decode()
        return (
            parse_yaml(text, value)
            if value.endswith((".json", ".yaml", ".yml"))
            else [line.strip() for line in text.strip().splitlines()]
        )
    except (OSError, ValueError, UserError) as error:
        why = getattr(error, "strerror", None) or one_line(error)
        raise PydanticCustomError("names", "{text}", {"text": f"{value} can't be read as names: {why}"}) from None


@cache  # each set of a benchmark asks again
def _names_of_timm(subset: str) -> tuple[str, ...]:
    """The classes of an ImageNet that timm knows, such as `imagenet-1k`, `imagenet-a` and `imagenet-r`, in their order.

    Raises ValueError for another one.
    """
    from timm.data import ImageNetInfo  # brings torch, for those who ask

    known = {"imagenet-a": "imagenet_a_indices.txt", "imagenet-r": "imagenet_r_indices.txt"}
    if subset not in known and subset != "imagenet-1k":
        raise ValueError(f"timm has no class names for {subset}, only for imagenet-1k, {', '.join(known)}")
    names = tuple(ImageNetInfo("imagenet-1k").label_descriptions())
    if subset not in known:
        return names
    indices = importlib.resources.files("timm.data").joinpath("_info", known[subset]).read_text().split()
    return tuple(names[int(index)] for index in indices)


NAMES_OR_FILE = BeforeValidator(_from_file)


class ClassifierConfig(ComponentConfig):
    """What every built-in classifier understands."""

    class_names: Annotated[list[str] | None, NAMES_OR_FILE] = Field(
        None, description="names of its outputs in their order, where it does not know them itself; or a file of them"
    )
    channels: Literal["rgb", "gray"] = Field(
        "rgb", description="gray: the network sees images without their colours", json_schema_extra=SINCE_0_2
    )


class InMemory(ComponentConfig):
    """A classifier, generator or oracle that was made by the caller.

    `target` is its class, `weights_sha256` and `state_sha256` are its identity (`weights.identity`). They are part of
    the fingerprint of a recipe, so a split is continued with the same object alone. Earlier versions recorded no state.
    """

    PLACES = ()

    kind: str = "in_memory"
    target: str
    weights_sha256: str | None = None
    state_sha256: str | None = None
    _held: Any = PrivateAttr(None)
    _code: dict[str, str] = PrivateAttr(default_factory=dict)
    _unknown: str | None = PrivateAttr(None)

    @classmethod
    def of(
        cls,
        held: Any,
        weights_sha256: str | None,
        state_sha256: str | None = None,
        code: Mapping[str, str] | None = None,
        unknown: str | None = None,
    ) -> "InMemory":
        """Return the section of an object of that identity."""
        section = cls(target=called(held), weights_sha256=weights_sha256, state_sha256=state_sha256)
        section._held, section._code, section._unknown = held, dict(code or {}), unknown
        return section

    @property
    def code(self) -> dict[str, str]:
        """The sha256 of the files of source code that it comes from, by module."""
        return self._code

    @property
    def held(self) -> Any:
        """The object; None where the section was read from a file."""
        return self._held

    @property
    def unknown(self) -> str | None:
        """The attribute that can't be compared with another process's; None where all can."""
        return self._unknown

    def build(self, device: "torch.device | str" = "cpu") -> Any:
        from torch import nn

        if self._held is None:
            raise UserError(
                f"{self.target} was an object in the memory of the process that made the split; hand it over in "
                "Python, as in fmrgen.verify(split, classifier=network)"
            )
        return self._held.to(device).eval() if isinstance(self._held, nn.Module) else self._held


def called(held: Any) -> str:
    """What the class of an object is called: `module:Class`, without the module where that is the caller's own."""
    found = type(held)
    return found.__qualname__ if found.__module__ == "__main__" else f"{found.__module__}:{found.__qualname__}"


def built_in_kinds(package: str) -> list[str]:
    """The kinds of components whose modules lie in `package`."""
    modules = (module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__))
    return sorted(name for name in modules if name not in _NO_KINDS and name[0] != "_")


def config_class(package: str, kind: str, base: type[ComponentConfig] = ComponentConfig) -> type[ComponentConfig]:
    """The config of a built-in kind, a module of `package`, or of `package.module:Class`."""
    if ":" not in kind:
        if kind not in (*(kinds := built_in_kinds(package)), IN_MEMORY):
            text = f"{kind!r}: {unknown_message('kind', kind, kinds)} (your own is package.module:Class)"
            raise PydanticCustomError("kind", "{text}", {"text": text})
        if kind != IN_MEMORY or importlib.util.find_spec(f"{package}.{kind}") is not None:
            config = getattr(importlib.import_module(f"{package}.{kind}"), "Config", None)
        else:  # an object, which is known in the same way whatever it is
            config = InMemory
    else:
        try:
            config = import_object(kind)
        except UserError as error:
            raise PydanticCustomError("kind", "{text}", {"text": str(error)}) from None
    if not (isinstance(config, type) and issubclass(config, base)):
        raise PydanticCustomError("kind", "{text}", {"text": f"{kind!r} is not a fmrgen.{base.__name__}"})
    return config


def import_object(path: str) -> Any:
    """The object at `package.module:Name`. Raises UserError where there is none."""
    module_name, _, name = path.partition(":")
    try:
        # A console script does not see the folder that it is called from. Only what is nowhere else is sought there:
        # from then on libraries find in it what they can do without.
        if importlib.util.find_spec(module_name.partition(".")[0]) is None and os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        return getattr(importlib.import_module(module_name), name)
    except (ImportError, TypeError, ValueError) as error:
        raise UserError(f"{path} can't be imported: {error}") from None
    except AttributeError:
        raise UserError(f"{path}: the module defines no {name}") from None


class ShortForms(NamedTuple):
    """How sections that are written as one word are read.

    Words that begin with one of `harmless` import nothing and name no file here, so a stranger may use them.
    """

    section_of: Callable[[str], dict[str, Any]]
    harmless: tuple[str, ...] = ()


SHORT_FORMS: dict[str, ShortForms] = {}  # by packages of kinds; `recipe.sections` enters them


def component(package: str, base: type[ComponentConfig] = ComponentConfig) -> PlainValidator:
    """Makes a section the config of its kind; built-in kinds are the modules of `package`.

    `base` is what the config must derive from.
    """

    def resolve(value: Any, info: ValidationInfo) -> ComponentConfig:
        if isinstance(value, base):
            return value
        strangers = info.context == UNTRUSTED
        if isinstance(value, str) and (forms := SHORT_FORMS.get(package)) is not None:
            if strangers and not value.startswith(forms.harmless):
                return Withheld.of(value)
            try:
                value = forms.section_of(value)
            except UserError as error:
                raise PydanticCustomError("short_form", "{text}", {"text": str(error)}) from None
        if not isinstance(value, dict) or "kind" not in value:
            raise PydanticCustomError("kind", "needs a mapping with a kind")
        if not isinstance(kind := value["kind"], str):
            raise PydanticCustomError("kind", "kind must be a name or package.module:Class")
        if strangers and ":" in kind:
            return Withheld.of(kind)
        return config_class(package, kind, base).model_validate(value, context=info.context)

    return PlainValidator(resolve)


class Withheld(ComponentConfig):
    """Stands for a stranger's component of which only an import, or a file of this machine, could tell more."""

    code: list[str] = []
    places: list[str] = []

    @classmethod
    def of(cls, named: str) -> "Withheld":
        return cls(kind=named, code=[named]) if ":" in named else cls(kind=named, places=[named])

    def code_it_runs(self) -> list[str]:
        return self.code

    def places_it_reads(self) -> list[str]:
        return self.places


def _is_revision(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"(?!.*\.\.)\w[\w./-]*", text):
        raise ValueError(f"{text!r} is not a branch, tag or commit")
    return text


Revision = Annotated[str | None, AfterValidator(_is_revision)]  # of a repo on the Hub

AnyConfig = TypeVar("AnyConfig", bound=StrictConfig)


def validate(section: type[AnyConfig], tree: Any, name: str, context: str | None = None) -> AnyConfig:
    """`tree` as a `section`; a mistake in it is one UserError line that starts with `name` and the key."""
    try:
        return section.model_validate(tree, context=context)
    except ValidationError as error:
        name = without_queries(name)  # it may be a classifier's address, as the user wrote it
        faults: dict[str, list[Any]] = {}  # by the key; of a value that may be of several types there are several
        for fault in error.errors():
            key = ".".join(str(part) for part in fault["loc"] if not _UNION_PART.match(str(part)))
            faults.setdefault(key, []).append(fault)
        key = next(iter(faults))
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UserError(f"{name}: {key or 'recipe'}: {fault_in_words(faults[key])}{more}") from None
    except UserError as error:
        raise UserError(f"{without_queries(name)}: {error}") from None
