"""What a page says of itself, on a card in its head, by which an index knows the pages that are there."""

import json
from dataclasses import asdict, dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

from fmrgen.report.report import Tone

META = "fmrgen-page"  # the name of the element
_MOST_BYTES = 64_000  # of a page, among which its head begins


@dataclass(frozen=True)
class PageCard:
    """What a page says of itself.

    Attributes:
        kind: of page: `evaluation`, `diff`, `gallery` and so on.
        title: of the page.
        words: its verdict; empty if it has none.
        tone: of the verdict.
        line: a sentence that answers its question.
    """

    kind: str
    title: str
    words: str = ""
    tone: Tone = "plain"
    line: str = ""

    def to_json(self) -> str:
        """Return the content of the element."""
        return json.dumps(asdict(self), ensure_ascii=False)


def read_card(path: Path) -> PageCard | None:
    """Return the card of a page; None if it is not a page of fmrgen, or can't be read."""
    content = read_meta(path, META)
    if not isinstance(content, dict):
        return None
    try:
        card = PageCard(**content)
    except TypeError:
        return None
    texts = (card.kind, card.title, card.words, card.line)
    if card.tone not in get_args(Tone) or not all(isinstance(text, str) for text in texts):
        return None
    return card


def read_meta(path: Path, name: str) -> Any:
    """Return the JSON that a page's `meta` element of a name holds; None if there is none, or it can't be read."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode(errors="replace")
    except OSError:
        return None
    head = _Head(name)
    try:
        head.feed(text)
        return json.loads(head.content)
    except (ValueError, RecursionError, AssertionError):  # the last one of invalid HTML
        return None


class _Head(HTMLParser):
    """Reads the content of the `meta` element of a name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.content = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "meta" and attributes.get("name") == self.name:
            self.content = attributes.get("content") or ""
