"""The parts of recipes: sections that refuse unknown keys, and component sections that know their kind.

Nothing here imports torch, and component modules import it only when they build: a mistake in a recipe is told at once.
"""

import difflib
import importlib
import pkgutil
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializeAsAny, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from fmrgen.errors import UserError
from fmrgen.imports import import_object

if TYPE_CHECKING:
    import torch


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


def component(package: str) -> BeforeValidator:
    """Makes a section the config of its kind; built-in kinds are the modules of `package`."""

    def resolve(value: Any) -> ComponentConfig:
        if isinstance(value, ComponentConfig):
            return value
        if not isinstance(value, dict) or "kind" not in value:
            raise PydanticCustomError("kind", "needs a mapping with a kind")
        return _config_class(package, value["kind"]).model_validate(value)

    return BeforeValidator(resolve)


SourceSection = Annotated[SerializeAsAny[ComponentConfig], component("fmrgen.sources")]
ClassifierSection = Annotated[SerializeAsAny[ComponentConfig], component("fmrgen.classifiers")]
GeneratorSection = Annotated[SerializeAsAny[ComponentConfig], component("fmrgen.generators")]
OracleSection = Annotated[SerializeAsAny[ComponentConfig], component("fmrgen.oracles")]


AnySection = TypeVar("AnySection", bound=Section)


def validate(section: type[AnySection], tree: Any, name: str) -> AnySection:
    """`tree` as a `section`; a mistake in it is one UserError line that starts with `name` and the key."""
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        first, *others = error.errors()
        key = ".".join(str(part) for part in first["loc"])
        text = "is missing" if first["type"] == "missing" else _lower_first(first["msg"])
        more = f" (and {len(others)} more)" if others else ""
        raise UserError(f"{name}: {key or 'recipe'}: {text}{more}") from None
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
