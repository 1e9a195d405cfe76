"""Errors that end a command with one line."""

import difflib
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

_callers = ["Python"]  # the last is who called; no context variable, which threads do not inherit


@contextmanager
def command_line() -> Iterator[None]:
    """Within it a command runs, and `option` speaks of its options."""
    _callers.append("command line")
    try:
        yield
    finally:
        _callers.pop()


def option(name: str, in_python: str | None = None) -> str:
    """How the caller writes what a message asks for: `--output` in a command, `output=` in Python.

    Args:
        name: the option without its dashes, or the key of a recipe, which is itself in a command.
        in_python: where that is another word, or another value.
    """
    if _callers[-1] == "Python":
        return in_python or f"{name.rpartition('.')[2]}="
    return name if "." in name else f"--{name}"


class UserError(Exception):
    """A mistake that the user can mend.

    The message is one line that names the thing and the cure. The command line prints it on stderr and exits with
    status 2; in Python it is an ordinary exception. `from_one_process` tells that other processes of the job do not
    raise it too.
    """

    from_one_process = False


class Terminated(BaseException):
    """Somebody asked the process to end (SIGTERM); raised where the main thread is.

    No SystemExit: that is what others' code raises, and what is caught around it.
    """


_JOINERS = ("\u200c", "\u200d")  # of letters in several scripts, and of emoji


def printable(text: str) -> str:
    """`text` with all that a terminal would obey, or that turns its direction, written out: `\\x1b`."""
    if text.isprintable():  # which is quick, also of a picture
        return text
    return "".join(
        char
        if char in _JOINERS or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else char.encode("unicode_escape").decode()
        for char in text
    )


_ADDRESS = re.compile(r"(https?://)([^/?#\s'\"@]*@)?([^?#\s'\"]*)([?#][^\s'\"]*)?")


def without_queries(text: str) -> str:
    """`text` without the passwords and the queries of addresses in it: keys may stand there."""
    return _ADDRESS.sub(lambda address: f"{address[1]}{address[3]}{'?…' if address[4] else ''}", text)


def write_line(line: str) -> None:
    """A line on stderr in one piece: no signal and no other process's line comes before its end."""
    sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def one_line(error: BaseException, length: int = 240) -> str:
    """What `error` says, on one line and not without end; its type where it says nothing.

    What libraries make of a Hub that can't be asked is many sentences of advice; of that, what is so.
    """
    text = _not_here(error) or " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else f"{text[:length].rstrip()}…"


def unknown_message(what: str, name: object, known: Iterable[object]) -> str:
    """`unknown key, did you mean …?`, or all that is known where nothing is near."""
    names = [str(one) for one in known]
    near = near_name(name, names)
    return f"unknown {what}, " + (f"choose from {', '.join(names)}" if near is None else f"did you mean {near}?")


def near_name(name: object, known: Iterable[str]) -> str | None:
    """The one of the known names that `name` was probably meant to be; None where none is near."""
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return near[0] if near else None


# What a value must be, by the type of pydantic's error, with what pydantic knows of it.
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
_ENDED = ("too_long", "too_short")  # which say already what the value is
_CHOICES = re.compile(r"\^\(([\w|]+)\)-\[(\d)-(\d)\]\$")  # a pattern of names with a number behind
_LONGEST_VALUE = 40  # letters of it in a message


def fault_in_words(faults: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with a value, in fmrgen's words.

    Args:
        faults: pydantic's errors about this one value; several where it may be of several types.
    """
    first = faults[0]
    if first["type"] == "missing":
        return "is missing"
    text = " ".join(str(first.get("input")).split())
    value = text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
    context = first.get("ctx", {})
    if first["type"] == "string_pattern_mismatch":
        return _unlike(value, context["pattern"])
    if first["type"] not in _MUST_BE:
        message = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        return message[:1].lower() + message[1:]
    allowed = [_MUST_BE[fault["type"]].format(**fault.get("ctx", {})) for fault in faults if fault["type"] in _MUST_BE]
    must = f"must be {' or '.join(dict.fromkeys(allowed))}"
    if first["type"] in _ENDED:
        return must
    near = near_name(value, re.findall("'([^']+)'", context["expected"])) if first["type"] == "literal_error" else None
    return f"{must}, not {value}" + ("" if near is None else f"; did you mean {near}?")


def _unlike(value: str, pattern: str) -> str:
    """That a value does not match a pattern; where this is a choice, what was probably meant."""
    choice = _CHOICES.fullmatch(pattern)
    if choice is None:
        return f"{value} can't stand here; it must match {pattern}"
    names, least, most = choice[1].split("|"), int(choice[2]), int(choice[3])
    near = near_name(value, [f"{name}-{number}" for name in names for number in range(least, most + 1)])
    if near is None:
        return f"unknown value {value}, choose from {', '.join(names)}, with a number behind: {names[0]}-{least}"
    return f"unknown value {value}, did you mean {near}?"


# How errors of the Hub's client, which is not imported here, and ours are called; datasets names them in its own.
_UNASKED = re.compile(r"\b(OfflineModeIsEnabled|LocalEntryNotFoundError|UnreachableError)\b")


def _not_here(error: BaseException) -> str | None:
    """Where an error comes from what is not in the Hub's cache, and the Hub can't be asked: that."""
    links = [*chain(error)]
    names = {name for link in links for name in _UNASKED.findall(f"{type(link).__name__} {link}")}
    if not names:
        return None
    causes = [*chain(next((link for link in links if _UNASKED.fullmatch(type(link).__name__)), None))]
    if "OfflineModeIsEnabled" in names or (causes and type(causes[-1]).__name__ == "LocalEntryNotFoundError"):
        return "it is not on this machine, and HF_HUB_OFFLINE is set; unset it"
    why = f" ({' '.join(str(causes[-1]).split())[:80]})" if causes else ""
    return f"it is not on this machine, and the Hub can't be reached{why}"
