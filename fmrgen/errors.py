"""What ends a command before its time, and is told in one line."""

import re
import unicodedata
from collections.abc import Iterator


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
    return "".join(
        char
        if char in _JOINERS or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else char.encode("unicode_escape").decode()
        for char in text
    )


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
