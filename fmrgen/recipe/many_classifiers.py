"""Many classifiers by one word: patterns over timm's pretrained weights and over files."""

import glob
import json
import re
from pathlib import Path

from fmrgen.errors import UserError, option
from fmrgen.recipe.classifier_forms import FORMS, is_inline

_WILD = re.compile(r"[*?\[]")


def expanded(text: str, network: str | None = None) -> list[str]:
    """Return the classifiers that a word stands for, a word each.

    `text` is `timm:PATTERN` of the names of pretrained weights, a pattern of files or folders, or any other word, which
    stands for itself; `network`, `package.module:Name`, is the one that files of weights belong to. Raises UserError if
    nothing has such a name, or there are files of weights and no network.
    """
    if is_inline(text):
        return [text]
    named = re.match(r"[\w.-]+=", text)
    if named is not None:
        parts = split_at_commas(text[named.end() :])
        if network is not None:
            parts = [_section_of_file(part, network) if Path(part).is_file() else part for part in parts]
        return [named[0] + ",".join(parts)]
    prefix, _, rest = text.partition(":")
    if prefix == "timm" and _WILD.search(rest):
        return _of_timm(rest)
    if prefix in FORMS:
        return [text]
    if Path(text).exists() or not _WILD.search(text):
        is_of_network = network is not None and Path(text).is_file()
        return [_of_file(Path(text), network)] if is_of_network else [text]
    paths = sorted(glob.glob(text, recursive=True))
    if not paths:
        raise UserError(f"{text}: no file or folder has such a name")
    return [path if Path(path).is_dir() else _of_file(Path(path), network) for path in paths]


def _of_timm(pattern: str) -> list[str]:
    import timm

    names = timm.list_pretrained(pattern)
    if not names:
        raise UserError(f"timm:{pattern}: timm has no pretrained weights of such a name; see timm.list_pretrained()")
    return [f"timm:{name}" for name in names]


def _of_file(path: Path, network: str | None) -> str:
    """Return a file of weights as a named section in one word."""
    if network is None:
        cure = option("as", "target, in a section of kind module")
        raise UserError(f"{path}: is a file of weights; say which network they are of ({cure}), as package.module:Name")
    name = re.sub(r"[^\w.-]+", "-", path.stem)
    return f"{name}={_section_of_file(str(path), network)}"


def _section_of_file(path: str, network: str) -> str:
    return json.dumps({"kind": "module", "target": network, "checkpoint": path})


def split_at_commas(text: str) -> list[str]:
    """Return the parts of a text between commas that are outside braces and their quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            if letter == quote:
                quote = ""
        elif letter in "\"'" and depth:
            quote = letter
        elif letter == "{":
            depth += 1
        elif letter == "}":
            depth -= 1
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part]
