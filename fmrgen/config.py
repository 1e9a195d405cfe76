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
from collections.abc import Callable, Collection, Iterator, Mapping
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

from fmrgen.errors import UserError, fault_in_words, near_name, one_line, unknown_message, without_queries
from fmrgen.files import open_plain, parse_yaml, to_yaml

if TYPE_CHECKING:
    import torch

_UNION_PART = re.compile(r"(constrained-|list\[|dict\[|literal\[|(str|int|float|bool)$)")  # pydantic's, no key
# Keys of a recipe that change no row and no plan of shards.
NOT_FINGERPRINTED = ("description", "source.on_error", "source.license", "perturb.slots", "perturb.compile")
FINGERPRINT = {"fingerprint": True}  # the context in which a component leaves out what can change no stored row
IN_MEMORY = "in_memory"  # the kind of an object that was handed over in Python, which no recipe names
_NO_KINDS = ("base", "networks", IN_MEMORY)
_OF_TIMM = "timm:"
_REMOTE = ("hf:", "asset:", "https://", "http://", "gdrive:")  # beginnings of references that are no paths
_REPO_ID = re.compile(r"(?!.*\.\.)\w[\w.-]*/[\w.-]+")
UNTRUSTED = "of a stranger"  # the context of a validation that imports nothing and reads no file


class StrictConfig(BaseModel):
    """A part of a recipe. Unknown keys are refused, with the nearest known one in the message."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())

    ARGUMENTS: ClassVar[str | None] = None  # the key of arguments that are passed on to a network, if there is one

    @model_validator(mode="before")
    @classmethod
    def _check_known_keys(cls, data: Any) -> Any:
        return _check_keys(data, cls.__name__, cls.model_fields, cls.ARGUMENTS)

    def __str__(self) -> str:
        """Return all values, as YAML."""
        return to_yaml(self.model_dump(mode="json"), 100)


def known_keys(options: type) -> BeforeValidator:
    """Return a validator that refuses keys which the dataclass `options` does not have, as a `StrictConfig` does."""
    names = [field.name for field in fields(options)]
    return BeforeValidator(lambda data: _check_keys(data, options.__name__, names))


def _check_keys(data: Any, name: str, keys: Collection[str], arguments: str | None = None) -> Any:
    """Return a section's data as it stands in the recipe.

    `arguments` is the key of arguments that are passed on to a network, if there is one. Raises ValidationError, with
    the section's `name`, for keys that it does not have.
    """
    if not isinstance(data, dict):
        return data
    errors = []
    for key, value in data.items():
        if key in keys:
            continue
        text = unknown_message("key", key, keys)
        if arguments:
            text += f" (an argument of the network goes into {arguments}: {{{key}: {value!s:.40}}})"
        error = PydanticCustomError("unknown_key", "{text}", {"text": text})
        errors.append(InitErrorDetails(type=error, loc=(key,), input=value))
    if errors:
        raise ValidationError.from_exception_data(name, errors)
    return data


class HubModel(NamedTuple):
    """A model's repo on the Hub."""

    repo: str  # `OWNER/NAME`
    revision: str | None  # commit, branch or tag; None for the main branch
    folders: tuple[str, ...]  # whose files are loaded, "" for the top


class HubDataset(NamedTuple):
    """A dataset's repo on the Hub."""

    repo: str  # `OWNER/NAME`
    revision: str | None  # commit, branch or tag; None for the main branch
    files: list[str]  # paths of those that are read
    is_here: bool  # whether they are on this machine


class ComponentConfig(StrictConfig):
    """The section of one component: what it is (`kind`) and how to make it (`build`).

    `kind` is a built-in name (the module of that name in the package of the component's base) or
    `package.module:Class`.

    Attributes:
        FILES: keys of a built-in kind that name files.
        FOLDERS: of the repo of a `model` on the Hub, those with files that it loads; "" is the top.
        PLACES: keys that name every file or address the component reads, if it runs no code of others; None if unknown.
    """

    FILES: ClassVar[tuple[str, ...]] = ("checkpoint", "mask")
    FOLDERS: ClassVar[tuple[str, ...]] = ("",)
    PLACES: ClassVar[tuple[str, ...] | None] = None

    kind: str

    def check_places(self, section: str) -> None:
        """Raise UserError if a file or folder that the config names does not exist.

        Imports no torch, so that a typo is reported at once. `section` is the config's place in the recipe.
        """
        if ":" in self.kind:
            return
        for key in self.FILES:
            file = getattr(self, key, None)
            if file is not None and not file.startswith(_REMOTE) and not Path(file).is_file():
                raise UserError(f"{section}.{key}: no such file as {file}")
        model = getattr(self, "model", None)
        if isinstance(model, str) and model.startswith(("./", "../", "/")) and not Path(model).exists():
            raise UserError(f"{section}.model: no such folder as {model}")

    def build(self, device: "torch.device | str" = "cpu") -> Any:
        """Return the component, its weights loaded and on `device`. Raises UserError for mistakes of the user."""
        raise NotImplementedError

    def hub_model(self) -> HubModel | None:
        """Return the model's repo on the Hub that building it downloads; None if it has none."""
        model = getattr(self, "model", None)
        if not hasattr(self, "revision") or not isinstance(model, str) or not is_repo(model):
            return None
        return HubModel(model, self.revision, self.FOLDERS)

    def hub_dataset(self) -> HubDataset | None:
        """Return the dataset's repo on the Hub that building it downloads; None if it has none."""
        return None

    def code_it_runs(self) -> list[str]:
        """Return the code of others that building or using it would run: import paths, commands, repos with code.

        A component inside this one answers for itself. A kind is harmless only if it says so, by `PLACES`.
        """
        return [self.kind] if self.PLACES is None else []

    def places_it_reads(self) -> list[str]:
        """Return the files, folders and addresses that it would read, without repos on the Hub and fmrgen's own."""
        if self.PLACES is None:
            return [f"whatever {self.kind} likes"]
        return paths_among(*(getattr(self, key) for key in self.PLACES))


def paths_among(*references: str | None) -> list[str]:
    """Return those of the references that name a file, a folder or an address.

    The others name an asset, or a repo on the Hub (`owner/name` where there is no such folder; `hf:owner/name/file`).
    """
    return [text for text in references if text is not None and not _is_harmless(text)]


def _is_harmless(reference: str) -> bool:
    if reference.startswith("asset:"):
        return True
    if reference.startswith("hf:"):
        owner, _, rest = reference.removeprefix("hf:").partition("/")
        return _REPO_ID.match(f"{owner}/{rest}") is not None and ".." not in rest and "//" not in rest
    return is_repo(reference)


def is_repo(reference: str) -> bool:
    """Return whether a reference is a repo on the Hub: `OWNER/NAME`, where there is no such folder."""
    return _REPO_ID.fullmatch(reference) is not None and not os.path.lexists(reference)


def check_places(config: BaseModel, section: str = "") -> None:
    """Call `ComponentConfig.check_places` of a section, or of all in a recipe. Raises UserError."""
    for place, part in sections_in(config, section):
        part.check_places(place)


def sections_in(value: Any, place: str = "") -> Iterator[tuple[str, ComponentConfig]]:
    """Yield the section of every component in a validated part of a recipe, at any depth, each with its place in it."""
    if isinstance(value, ComponentConfig):
        yield place, value
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from sections_in(entry, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from sections_in(entry, place)


def _from_file(value: Any, info: ValidationInfo) -> Any:
    """Return the names in the file at a path, which the recipe holds from then on; anything but a path is unchanged."""
    if not isinstance(value, str):
        return value
    if info.context == UNTRUSTED:
        raise PydanticCustomError("names", "names a file, which an untrusted recipe may not; list the names")
    try:
        if value.startswith(_OF_TIMM):
            return list(_names_of_timm(value.removeprefix(_OF_TIMM)))
        with open_plain(Path(value)) as file:
            text = file.read().decode()
        if value.endswith((".json", ".yaml", ".yml")):
            return parse_yaml(text, value)
        return [line.strip() for line in text.strip().splitlines()]
    except (OSError, ValueError, UserError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise PydanticCustomError("names", "{text}", {"text": f"{value} can't be read as names: {reason}"}) from None


@cache  # each set of a benchmark asks again
def _names_of_timm(subset: str) -> tuple[str, ...]:
    """Return the classes, in their order, of `imagenet-1k`, `imagenet-a` or `imagenet-r`, from timm.

    Raises ValueError for any other name.
    """
    from timm.data import ImageNetInfo  # imports torch, so only if it is needed

    index_files = {"imagenet-a": "imagenet_a_indices.txt", "imagenet-r": "imagenet_r_indices.txt"}
    if subset not in index_files and subset != "imagenet-1k":
        raise ValueError(f"timm has no class names for {subset}, only for imagenet-1k, {', '.join(index_files)}")
    names = tuple(ImageNetInfo("imagenet-1k").label_descriptions())
    if subset not in index_files:
        return names
    indices = importlib.resources.files("timm.data").joinpath("_info", index_files[subset]).read_text().split()
    return tuple(names[int(index)] for index in indices)


NAMES_OR_FILE = BeforeValidator(_from_file)


class ClassifierConfig(ComponentConfig):
    """The keys of every built-in classifier."""

    class_names: Annotated[list[str] | None, NAMES_OR_FILE] = Field(
        None, description="names of its outputs in their order, where it does not know them itself; or a file of them"
    )
    channels: Literal["rgb", "gray"] = Field("rgb", description="gray: the network sees images without their colours")


class InMemory(ComponentConfig):
    """A classifier, generator or oracle that was made by the caller.

    `target` is its class, `weights_sha256` and `state` are its identity (`weights.identity`). They are part of
    the fingerprint of a recipe, so a split is only continued with the same object.
    """

    PLACES = ()

    kind: str = "in_memory"
    target: str
    weights_sha256: str | None = None
    state: str | None = None
    _held: Any = PrivateAttr(None)
    _code: dict[str, str] = PrivateAttr(default_factory=dict)
    _unknown: str | None = PrivateAttr(None)

    @classmethod
    def of(
        cls, held: Any, weights_sha256: str | None, state: str, code: Mapping[str, str], unknown: str | None
    ) -> "InMemory":
        """Return the section of an object, given the digests of its weights and of itself.

        `state` is a name of this launch if the object can't be hashed, and `unknown` says why; `code` is the sha256 of
        the files of source code that it comes from, by module.
        """
        section = cls(target=called(held), weights_sha256=weights_sha256, state=state)
        section._held, section._code, section._unknown = held, dict(code), unknown
        return section

    @property
    def code(self) -> dict[str, str]:
        """The sha256 of the files of source code that it comes from, by module."""
        return self._code

    @property
    def held(self) -> Any:
        """The object; None if the section was read from a file."""
        return self._held

    @property
    def unknown(self) -> str | None:
        """Why it can't be hashed; None if it is."""
        return self._unknown

    def build(self, device: "torch.device | str" = "cpu") -> Any:
        from torch import nn

        if self._held is None:
            raise UserError(
                f"{self.target} was an object in the memory of the process that generated the split; hand it over in "
                "Python, as in fmrgen.verify(split, classifier=network)"
            )
        if isinstance(self._held, nn.Module):
            return self._held.to(device).eval()
        return self._held


def called(held: Any) -> str:
    """Return the name of an object's class: `module:Class`, without the module if that is the caller's own."""
    kind = type(held)
    if kind.__module__ == "__main__":
        return kind.__qualname__
    return f"{kind.__module__}:{kind.__qualname__}"


def built_in_kinds(package: str) -> list[str]:
    """Return the kinds of components that have a module in `package`."""
    names = [module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)]
    return sorted(name for name in names if name not in _NO_KINDS and not name.startswith("_"))


def config_class(package: str, kind: str, base: type[ComponentConfig] = ComponentConfig) -> type[ComponentConfig]:
    """Return the config class of a kind: a module of `package`, or `package.module:Class`.

    Raises UserError if there is none that derives from `base`.
    """
    kinds = [] if ":" in kind else built_in_kinds(package)
    if ":" in kind:
        config = import_object(kind)
    elif kind not in (*kinds, IN_MEMORY):
        problem = unknown_message("kind", kind, kinds)
        raise UserError(f"{kind!r}: {problem} (your own is package.module:Class)")
    elif kind == IN_MEMORY and importlib.util.find_spec(f"{package}.{kind}") is None:
        return InMemory  # one class for objects of all other components
    else:
        config = getattr(importlib.import_module(f"{package}.{kind}"), "Config", None)
    if not (isinstance(config, type) and issubclass(config, base)):
        raise UserError(f"{kind!r} is not a fmrgen.{base.__name__}")
    return config


def import_object(path: str) -> Any:
    """Return the object at `package.module:Name`. Raises UserError if there is none."""
    module_name, _, name = path.partition(":")
    try:
        # A console script does not see the folder that it is called from. It is added only if the package is nowhere
        # else, because libraries then also find in it modules that they use if present.
        if importlib.util.find_spec(module_name.partition(".")[0]) is None and os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        module = importlib.import_module(module_name)
    except (ImportError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} can't be imported: {error}") from None
    if not hasattr(module, name):
        near = near_name(name, dir(module))
        raise UserError(f"{path}: the module defines no {name}{f', did you mean {near}?' if near else ''}")
    return getattr(module, name)


class ShortForms(NamedTuple):
    """The reader of sections that are written as one word.

    Words that begin with one of `harmless` import nothing and name no local file, so a stranger may use them.
    """

    section_of: Callable[[str], dict[str, Any]]
    harmless: tuple[str, ...] = ()


SHORT_FORMS: dict[str, ShortForms] = {}  # by packages of kinds; `recipe.sections` enters them


def component(package: str, base: type[ComponentConfig] = ComponentConfig) -> PlainValidator:
    """Return a validator that makes a section the config of its kind, which must derive from `base`.

    The modules of `package` are the built-in kinds.
    """

    def resolve(value: Any, info: ValidationInfo) -> ComponentConfig:
        if isinstance(value, base):
            return value
        is_untrusted = info.context == UNTRUSTED
        forms = SHORT_FORMS.get(package)
        try:
            if isinstance(value, str) and forms is not None:
                if is_untrusted and not value.startswith(forms.harmless):
                    return Withheld(kind=value)
                value = forms.section_of(value)
            if not isinstance(value, dict) or "kind" not in value:
                raise UserError("needs a mapping with a kind")
            kind = value["kind"]
            if not isinstance(kind, str):
                raise UserError("kind must be a name or package.module:Class")
            if is_untrusted and ":" in kind:
                return Withheld(kind=kind)
            config = config_class(package, kind, base)
        except UserError as error:
            raise PydanticCustomError("kind", "{text}", {"text": str(error)}) from None
        return config.model_validate(value, context=info.context)

    return PlainValidator(resolve)


class Withheld(ComponentConfig):
    """A stranger's component whose config would take an import, or a file of this machine, to make."""

    def code_it_runs(self) -> list[str]:
        return [self.kind] if ":" in self.kind else []

    def places_it_reads(self) -> list[str]:
        return [] if ":" in self.kind else [self.kind]


def _is_revision(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"(?!.*\.\.)\w[\w./-]*", text):
        raise ValueError(f"{text!r} is not a branch, tag or commit")
    return text


Revision = Annotated[str | None, AfterValidator(_is_revision)]  # of a repo on the Hub

AnyConfig = TypeVar("AnyConfig", bound=StrictConfig)


def validate(section: type[AnyConfig], tree: Any, name: str, context: str | None = None) -> AnyConfig:
    """Return `tree`, as it stands in a recipe, as a `section`; `context` is `UNTRUSTED`, or None.

    Raises UserError for a mistake in it, on one line that starts with `name` and the key.
    """
    try:
        return section.model_validate(tree, context=context)
    except ValidationError as error:
        name = without_queries(name)  # it may be a classifier's address, as the user wrote it
        faults: dict[str, list[Any]] = {}  # by key: several for a value that may be of several types
        for fault in error.errors():
            key = ".".join(str(part) for part in fault["loc"] if not _UNION_PART.match(str(part)))
            faults.setdefault(key, []).append(fault)
        key = next(iter(faults))
        message = f"{name}: {key or 'recipe'}: {fault_in_words(faults[key])}"
        if len(faults) > 1:
            message += f" (and {len(faults) - 1} more)"
        raise UserError(message) from None
    except UserError as error:
        raise UserError(f"{without_queries(name)}: {error}") from None
