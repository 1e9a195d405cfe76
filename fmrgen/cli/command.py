"""A command of the line, as the core and the apps list theirs."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        name: as it is typed.
        group: the heading of `fmrgen --help` that it stands under.
        run: a function whose parameters are typer's.
        resumes: whether the same command, run again, goes on where it was interrupted.
        help: replaces the first line of the function's docstring.
    """

    name: str
    group: str
    run: Callable[..., None]
    resumes: bool = False
    help: str | None = None
