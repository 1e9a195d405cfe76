"""A command of the line, as the core and the apps list theirs."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A command, as it is typed and as it is run.

    The positional parameters of `run` are the command's arguments, its keywords the options; their help is in its
    docstring, or in the types of `fmrgen.cli.options`. It returns the exit status; None means 0.
    """

    name: str
    group: str  # the heading of `fmrgen --help` that it stands under
    run: Callable[..., int | None]
    resumes: bool = False  # whether the same command, run again, goes on where it was interrupted
