"""The parts of recipes: sections that refuse unknown keys, and component sections that know their kind.

Nothing here imports torch, and component modules import it only when they build: a mistake in a recipe is told at once.
"""

import difflib
import importlib
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from fmrgen.assets import resolve_path
from fmrgen.errors import UserError
from fmrgen.files import parse_yaml
from fmrgen.imports import import_object

if TYPE_CHECKING:
    import torch

_UNION_PART = re.compile(r"(constrained-|list\[|dict\[|literal\[|(str|int|float|bool)$)")  # pydantic's, no key
TRAINED_CLASSIFIER = "classifier.yaml"  # beside model.safetensors: the section that builds the network


class Section(BaseModel):
    """A part of a recipe. Unknown keys are refused, with the nearest known one in the message."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, dict) and (strangers := [key for key in data if key not in cls.model_fields]):
            raise ValidationError.from_exception_data(
                cls.__name__,
                [
                    InitErrorDetails(
                        type=PydanticCustomError(
                            "unknown_key", "{text}", {"text": unknown_message("key", key, cls.model_fields)}
                        ),
                        loc=(key,),
                        input=data[key],
                    )
                    for key in strangers
                ],
            )
        return data


class ComponentConfig(Section):
    """The section of one component: what it is (`kind`) and how to make it (`build`).

    `kind` is a built-in name (the module of that name beside the component's base) or `package.module:Class`.
    """

    kind: str

    def build(self, device: "torch.device | str" = "cpu") -> Any:
        """The component itself, its weights loaded and on `device`. Raises UserError for what a user can mend."""
        raise NotImplementedError


class ClassifierConfig(ComponentConfig):
    """What every built-in classifier understands."""

    class_names: list[str] | None = Field(
        None, description="names of its outputs in their order, where it does not know them itself"
    )


def unknown_message(what: str, name: object, known: Any) -> str:
    """`unknown key, did you mean …?`, or all that is known where nothing is near."""
    near = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return f"unknown {what}, " + (f"did you mean {near[0]}?" if near else f"known are {', '.join(map(str, known))}")


def _config_class(package: str, kind: object) -> type[ComponentConfig]:
    if not isinstance(kind, str):
        raise PydanticCustomError("kind", "kind must be a name or package.module:Class")
    if ":" not in kind:
        paths = importlib.import_module(package).__path__
        kinds = sorted(m.name for m in pkgutil.iter_modules(paths) if m.name != "base" and not m.name.startswith("_"))
        if kind not in kinds:
            text = f"{kind!r}: {unknown_message('kind', kind, kinds)} (anyone's own is package.module:Class)"
            raise PydanticCustomError("kind", "{text}", {"text": text})
    try:
        config = import_object(kind if ":" in kind else f"{package}.{kind}:Config")
    except UserError as error:
        raise PydanticCustomError("kind", "{text}", {"text": str(error)}) from None
    if not (isinstance(config, type) and issubclass(config, ComponentConfig)):
        raise PydanticCustomError("kind", "{text}", {"text": f"{kind!r} is not a fmrgen.ComponentConfig"})
    return config


def component(package: str, short_form: Callable[[str], dict[str, Any]] | None = None) -> BeforeValidator:
    """Makes a section the config of its kind; built-in kinds are the modules of `package`.

    `short_form` makes a mapping of a section that is written as one word.
    """

    def resolve(value: Any) -> ComponentConfig:
        if isinstance(value, ComponentConfig):
            return value
        if isinstance(value, str) and short_form is not None:
            try:
                value = short_form(value)
            except UserError as error:
                raise PydanticCustomError("short_form", "{text}", {"text": str(error)}) from None
        if not isinstance(value, dict) or "kind" not in value:
            raise PydanticCustomError("kind", "needs a mapping with a kind")
        return _config_class(package, value["kind"]).model_validate(value)

    return BeforeValidator(resolve)


def classifier_of_short_form(text: str) -> dict[str, Any]:
    """The section that `timm:NAME`, `hf:REPO`, a trained folder, an asset or an import path stands for."""
    prefix, _, name = text.partition(":")
    if prefix == "timm":
        return {"kind": "timm", "model": name}
    if prefix == "hf":
        repo, _, revision = name.partition("@")
        return {"kind": "transformers", "model": repo, "revision": revision or None}
    if Path(folder := resolve_path(text)).is_dir():
        return _trained_classifier(text, Path(folder) / TRAINED_CLASSIFIER)
    if re.fullmatch(r"\w+(\.\w+)*:\w+", text):
        target = import_object(text)
        is_config = isinstance(target, type) and issubclass(target, ComponentConfig)
        return {"kind": text} if is_config else {"kind": "module", "target": text}
    raise UserError(
        f"{text}: no classifier; say timm:NAME, hf:REPO, asset:NAME, package.module:Name, a recipe, or a folder of "
        "fmrgen train"
    )


def _trained_classifier(text: str, path: Path) -> dict[str, Any]:
    try:
        section = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, ValueError):
        section = None
    if not isinstance(section, dict):
        raise UserError(f"{text}: no folder of a trained classifier, it holds no {path.name}")
    if code := code_named_in(section):
        raise UserError(f"{text}: its {path.name} names code, {code}; if you know it, write the section yourself")
    return {**section, "checkpoint": f"{text}/model.safetensors"}


def code_named_in(tree: Any) -> str | None:
    """The first import path or command in a recipe's sections, None where only built-in kinds are named."""
    if isinstance(tree, str) and tree.startswith("pipe:"):
        return tree
    if isinstance(tree, list):
        return next((code for entry in tree if (code := code_named_in(entry))), None)
    if not isinstance(tree, dict):
        return None
    if ":" in str(tree.get("kind", "")) or tree.get("kind") == "module":
        return str(tree.get("target") or tree["kind"])
    if tree.get("trust_remote_code") is True:
        return f"that of {tree.get('model')} (trust_remote_code)"
    return code_named_in(list(tree.values()))


SourceSection = Annotated[SerializeAsAny[ComponentConfig], component("fmrgen.sources")]
ClassifierSection = Annotated[
    SerializeAsAny[ComponentConfig], component("fmrgen.classifiers", classifier_of_short_form)
]
GeneratorSection = Annotated[SerializeAsAny[ComponentConfig], component("fmrgen.generators")]
OracleSection = Annotated[SerializeAsAny[ComponentConfig], component("fmrgen.oracles")]


AnySection = TypeVar("AnySection", bound=Section)


def validate(section: type[AnySection], tree: Any, name: str) -> AnySection:
    """`tree` as a `section`; a mistake in it is one UserError line that starts with `name` and the key."""
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        first, *others = error.errors()
        key = ".".join(str(part) for part in first["loc"] if not _UNION_PART.match(str(part)))
        text = "is missing" if first["type"] == "missing" else _lower_first(first["msg"].removeprefix("Value error, "))
        more = f" (and {len(others)} more)" if others else ""
        raise UserError(f"{name}: {key or 'recipe'}: {text}{more}") from None
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
