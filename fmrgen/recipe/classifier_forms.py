"""The table of short forms of classifiers: parsing, names, messages and help are made from it.

It imports nothing slow, because `fmrgen --help` reads it.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ShortForm:
    """A classifier in one word, `PREFIX:REST`."""

    prefix: str  # the word before the colon
    rest: str  # what follows it, as messages and help write it; a REPO may end in @REVISION
    kind: str | None  # of its section; None for a folder, which contains the section
    is_oracle: bool = False  # the kind is an oracle's, which judges as a classifier
    is_harmless: bool = True  # imports nothing and names no file of this machine, so a stranger's recipe may have it

    @property
    def written(self) -> str:
        """The form as messages and help write it."""
        return f"{self.prefix}:{self.rest}"

    def section(self, rest: str) -> dict[str, Any]:
        """Return the section of a classifier from the part of its word after the colon."""
        section: dict[str, Any] = {"kind": self.kind, "model": rest}
        if self.rest == "REPO":
            repo, _, revision = rest.partition("@")
            section |= {"model": repo, "revision": revision or None}
        return {"kind": "oracle", "oracle": section} if self.is_oracle else section


_FORMS = (
    ShortForm("timm", "NAME", "timm"),
    ShortForm("zoo", "NAME", "zoo", is_harmless=False),
    ShortForm("hf", "REPO", "transformers"),
    ShortForm("zero_shot", "REPO", "zero_shot", is_oracle=True),
    ShortForm("clip", "REPO", "clip", is_oracle=True),
    ShortForm("open_clip", "REPO", "open_clip", is_oracle=True),
    ShortForm("vlm", "REPO", "vlm", is_oracle=True),
    ShortForm("onnx", "FILE", "onnx", is_harmless=False),
    ShortForm("asset", "NAME", None),
)
FORMS = {form.prefix: form for form in _FORMS}
HARMLESS = tuple(f"{form.prefix}:" for form in _FORMS if form.is_harmless)
_WRITTEN_FORMS = ", ".join(form.written for form in _FORMS)
WRITTEN = f"{_WRITTEN_FORMS}, package.module:Name, a folder of fmrgen train, a recipe, or {{kind: …}}"


def form_of(text: str) -> tuple[ShortForm | None, str]:
    """Return the short form of a word, or None if it has none, and the part after its colon."""
    prefix, _, rest = text.partition(":")
    return FORMS.get(prefix), rest


def is_inline(text: str) -> bool:
    """Return whether a word is a section as inline YAML."""
    return text.lstrip().startswith("{")
