"""The short forms of classifiers, once: parsing, names, messages and help are made from this table.

It imports nothing that takes time: `fmrgen --help` reads it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ShortForm:
    """A classifier in one word, `PREFIX:REST`.

    Attributes:
        prefix: before the colon.
        written: how it is written, for messages and help.
        section: that it stands for, made from the REST; None for a folder, which says that itself.
        is_harmless: it imports nothing and names no file of this machine, so a stranger's recipe may have it.
        name: of the classifier, made from the REST.
    """

    prefix: str
    written: str
    section: Callable[[str], dict[str, Any]] | None
    is_harmless: bool = False
    name: Callable[[str], str] = str


def _of_kind(kind: str) -> Callable[[str], dict[str, Any]]:
    return lambda rest: {"kind": kind, "model": rest}


def _at_revision(kind: str, rest: str) -> dict[str, Any]:
    repo, _, revision = rest.partition("@")
    return {"kind": kind, "model": repo, "revision": revision or None}


def _of_transformers(rest: str) -> dict[str, Any]:
    return _at_revision("transformers", rest)


def _oracle(kind: str) -> ShortForm:
    return ShortForm(
        kind,
        f"{kind}:REPO",
        lambda rest: {"kind": "oracle", "oracle": _at_revision(kind, rest)},
        is_harmless=True,
    )


def _endpoint(scheme: str) -> ShortForm:
    return ShortForm(
        scheme,
        f"{scheme}://… (an endpoint)",
        lambda rest: {"kind": "endpoint", "url": f"{scheme}:{rest}"},
        name=_address,
    )


def _address(rest: str) -> str:
    return rest.strip("/").partition("?")[0]


FORMS = {
    form.prefix: form
    for form in (
        ShortForm("timm", "timm:NAME", _of_kind("timm"), is_harmless=True),
        ShortForm("zoo", "zoo:NAME", _of_kind("zoo")),
        ShortForm("hf", "hf:REPO", _of_transformers, is_harmless=True),
        *map(_oracle, ("zero_shot", "clip", "open_clip", "vlm")),
        ShortForm("onnx", "onnx:FILE", _of_kind("onnx"), name=lambda rest: Path(rest).stem),
        _endpoint("https"),
        _endpoint("http"),
        ShortForm("asset", "asset:NAME", None, is_harmless=True),
    )
}
HARMLESS = tuple(f"{form.prefix}:" for form in FORMS.values() if form.is_harmless)
WRITTEN = ", ".join(
    [
        *(form.written for form in FORMS.values() if form.prefix != "http"),
        "package.module:Name, a folder of fmrgen train, a recipe, or {kind: …}",
    ]
)


def form_of(text: str) -> tuple[ShortForm | None, str]:
    """The short form that a word has, None where it has none of them, and what comes after its colon."""
    prefix, _, rest = text.partition(":")
    return FORMS.get(prefix), rest
