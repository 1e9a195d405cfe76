"""Errors that end a command with one line."""

import difflib
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

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
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    return f"unknown {what}, " + (f"did you mean {near[0]}?" if near else f"choose from {', '.join(names)}")


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
