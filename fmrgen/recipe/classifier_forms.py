"""The table of short forms of classifiers: parsing, names, messages and help are made from it.

It imports nothing slow, because `fmrgen --help` reads it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ShortForm:
    """A classifier in one word, `PREFIX:REST`."""

    prefix: str  # the word before the colon
    written: str  # the form as messages and help write it
    section: Callable[[str], dict[str, Any]] | None  # returns it for the REST; None for a folder, which contains it
    is_harmless: bool = False  # imports nothing and names no file of this machine, so a stranger's recipe may have it
    name: Callable[[str], str] = str  # returns the classifier's name for the REST


def _of_kind(kind: str) -> Callable[[str], dict[str, Any]]:
    def section(rest: str) -> dict[str, Any]:
        return {"kind": kind, "model": rest}

    return section


def _at_revision(kind: str, rest: str) -> dict[str, Any]:
    repo, _, revision = rest.partition("@")
    return {"kind": kind, "model": repo, "revision": revision or None}


def _of_transformers(rest: str) -> dict[str, Any]:
    return _at_revision("transformers", rest)


def _oracle(kind: str) -> ShortForm:
    def section(rest: str) -> dict[str, Any]:
        return {"kind": "oracle", "oracle": _at_revision(kind, rest)}

    return ShortForm(kind, f"{kind}:REPO", section, is_harmless=True)


def _stem(rest: str) -> str:
    return Path(rest).stem


_FORMS = (
    ShortForm("timm", "timm:NAME", _of_kind("timm"), is_harmless=True),
    ShortForm("zoo", "zoo:NAME", _of_kind("zoo")),
    ShortForm("hf", "hf:REPO", _of_transformers, is_harmless=True),
    _oracle("zero_shot"),
    _oracle("clip"),
    _oracle("open_clip"),
    _oracle("vlm"),
    ShortForm("onnx", "onnx:FILE", _of_kind("onnx"), name=_stem),
    ShortForm("asset", "asset:NAME", None, is_harmless=True),
)
FORMS = {form.prefix: form for form in _FORMS}
HARMLESS = tuple(f"{form.prefix}:" for form in _FORMS if form.is_harmless)
_WRITTEN_FORMS = ", ".join(form.written for form in _FORMS)
WRITTEN = f"{_WRITTEN_FORMS}, package.module:Name, a folder of fmrgen train, a recipe, or {{kind: …}}"


def form_of(text: str) -> tuple[ShortForm | None, str]:
    """Return the short form of a word, or None if it has none, and the part after its colon."""
    prefix, _, rest = text.partition(":")
    return FORMS.get(prefix), rest
