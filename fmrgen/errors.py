"""Errors that end a command with one line."""

import difflib
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

# Packages that only some recipes and commands need, and the extra that installs each.
_EXTRAS = {
    **dict.fromkeys(("diffusers", "timm", "transformers", "msgpack", "sklearn"), "models"),
    **dict.fromkeys(("webdataset", "braceexpand"), "webdataset"),
}
_callers = ["Python"]  # the last one is the present caller; no context variable, which threads do not inherit


@contextmanager
def command_line() -> Iterator[None]:
    """Run a command within it: `option` then writes options as on the command line."""
    _callers.append("command line")
    try:
        yield
    finally:
        _callers.pop()


def option(name: str, in_python: str | None = None) -> str:
    """Return an option as the caller writes it: `--output` in a command, `output=` in Python.

    `name` has no dashes, or is the key of a recipe, which a command writes as it is; `in_python` is the text in Python,
    if that is another word or another value.
    """
    if _callers[-1] == "Python":
        return in_python or f"{name.rpartition('.')[2]}="
    return name if "." in name else f"--{name}"


class UserError(Exception):
    """A mistake that the user can fix.

    The message is one line that names the thing and the cure. The command line prints it on stderr and exits with
    status 2; in Python it is an ordinary exception. `from_one_process` is True if the other processes of the job do not
    raise it too.
    """

    from_one_process = False


def missing_package(error: BaseException) -> str | None:
    """Return which package an import missed and what installs it; None if it is not an optional one of fmrgen."""
    package = (getattr(error, "name", None) or "").partition(".")[0]
    extra = _EXTRAS.get(package) if isinstance(error, ModuleNotFoundError) else None
    return None if extra is None else f"needs the package {package}; pip install 'fmrgen[{extra}]'"


class Terminated(BaseException):
    """The process was asked to end (SIGTERM); raised in the main thread.

    No SystemExit: other people's code raises that, and fmrgen catches it around such code.
    """


_JOINERS = ("\u200c", "\u200d")  # of letters in several scripts, and of emoji
_OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode categories of control characters, formats and line separators
_NOT_OF_XML = ("\ufffe", "\uffff")  # characters with which a page or a picture can't be read


def printable(text: str) -> str:
    """Return the text with all that a terminal would obey, or that turns its direction, as escapes: `\\x1b`."""
    if text.isprintable():  # which is fast, even for a picture
        return text
    return "".join(map(_printable_character, text))


def printable_lines(text: str) -> str:
    """Return text of one or more lines, each as `printable` returns it."""
    return "\n".join(map(printable, text.split("\n")))


def _printable_character(character: str) -> str:
    is_obeyed = unicodedata.category(character) in _OBEYED and character not in _JOINERS
    if not is_obeyed and character not in _NOT_OF_XML:
        return character
    return character.encode("unicode_escape").decode()


_ADDRESS = re.compile(r"(https?://)([^/?#\s'\"@]*@)?([^?#\s'\"]*)([?#][^\s'\"]*)?")


def without_queries(text: str) -> str:
    """Return the text without the passwords and queries of its addresses: they may contain keys."""
    return _ADDRESS.sub(lambda address: f"{address[1]}{address[3]}{'?…' if address[4] else ''}", text)


def write_line(line: str) -> None:
    """Write a line to stderr in one piece: no signal and no other process's line comes before its end."""
    sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of that, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def one_line(error: BaseException, length: int = 240) -> str:
    """Return the message of an error on one line, cut to `length` characters; its type if it has no message.

    If the Hub can't be reached, libraries write many sentences of advice; the fact replaces these.
    """
    text = _not_here(error) or " ".join(str(error).split()) or type(error).__name__
    if len(text) <= length:
        return text
    return f"{text[:length].rstrip()}…"


def unknown_message(thing: str, name: object, choices: Iterable[object]) -> str:
    """Return `unknown THING, did you mean …?`, or all choices if none is near."""
    names = [str(choice) for choice in choices]
    near = near_name(name, names)
    if near is None:
        return f"unknown {thing}, choose from {', '.join(names)}"
    return f"unknown {thing}, did you mean {near}?"


def near_name(name: object, choices: Iterable[str]) -> str | None:
    """Return the choice that `name` was probably meant to be; None if none is near."""
    near = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
    return near[0] if near else None


# What a value must be, by the type of pydantic's error, with the context that pydantic gives.
_MUST_BE = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "more than {gt:,}",
    "greater_than_equal": "{ge:,} or more",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller number",
    "int_type": "a whole number",
    "less_than": "less than {lt:,}",
    "less_than_equal": "{le:,} or less",
    "list_type": "a list",
    "literal_error": "{expected}",
    "string_type": "text",
    "too_long": "a list of at most {max_length}, it has {actual_length}",
    "too_short": "a list of at least {min_length}, it has {actual_length}",
    **dict.fromkeys(("model_type", "model_attributes_type", "dataclass_type"), "a mapping of keys"),
}


def fault_in_words(faults: Sequence[Mapping[str, Any]]) -> str:
    """Return in fmrgen's words what pydantic's errors about one value say; several if it may be of several types."""
    first = faults[0]
    kind, context = first["type"], first.get("ctx", {})
    if kind == "missing":
        return "is missing"
    value = " ".join(str(first.get("input")).split())
    if len(value) > 40:
        value = f"{value[:40]}…"
    if kind == "string_pattern_mismatch":
        return f"{value} can't stand here; it must match {context['pattern']}"
    if kind not in _MUST_BE:
        message = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        return message[:1].lower() + message[1:]
    translated = [fault for fault in faults if fault["type"] in _MUST_BE]
    allowed = [_MUST_BE[fault["type"]].format(**fault.get("ctx", {})) for fault in translated]
    text = f"must be {' or '.join(dict.fromkeys(allowed))}"
    if kind in ("too_long", "too_short"):  # whose text has the value already
        return text
    text += f", not {value}"
    if kind == "literal_error":
        near = near_name(value, re.findall("'([^']+)'", context["expected"]))
        if near is not None:
            text += f"; did you mean {near}?"
    return text


# Names of errors, of the Hub's client (which is not imported here) and ours; errors of datasets contain them.
_UNREACHABLE = re.compile(r"\b(OfflineModeIsEnabled|LocalEntryNotFoundError|UnreachableError)\b")


def _not_here(error: BaseException) -> str | None:
    """Return the fact if an error comes from a Hub that can't be reached, and a file that is not in its cache."""
    names: set[str] = set()
    hub_error = None
    for link in chain(error):
        kind = type(link).__name__
        names.update(_UNREACHABLE.findall(f"{kind} {link}"))
        if hub_error is None and _UNREACHABLE.fullmatch(kind):
            hub_error = link
    if not names:
        return None
    causes = list(chain(hub_error))
    if "OfflineModeIsEnabled" in names or (causes and type(causes[-1]).__name__ == "LocalEntryNotFoundError"):
        return "it is not on this machine, and HF_HUB_OFFLINE is set; unset it"
    reason = f" ({' '.join(str(causes[-1]).split())[:80]})" if causes else ""
    return f"it is not on this machine, and the Hub can't be reached{reason}"
