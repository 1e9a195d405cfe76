"""Text in Markdown, with nothing that a reader of it would obey."""

import re

from fmrgen.errors import printable

# GitHub turns these into links after Markdown is read, backslash or not: mentions, which notify people, mail addresses,
# bare addresses and issues. An invisible space behind the mark prevents it.
_LINKED = re.compile(r"@|:(?=//)|www(?=\.)|#(?=\d)|\bgh-(?=\d)", re.IGNORECASE)
_INVISIBLE_SPACE = "&#8203;"


def escape(text: str) -> str:
    """Return text that Markdown shows as it is, on one line, without links or mentions; names come from anyone."""
    text = printable(" ".join(text.split()))
    for character in "\\`*_<>|[]&#~":
        text = text.replace(character, f"\\{character}")
    return _LINKED.sub(rf"\g<0>{_INVISIBLE_SPACE}", text)
