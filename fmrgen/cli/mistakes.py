"""Mistakes in the line that was typed, in fmrgen's words: the word that is wrong, why, and where help is."""

from collections.abc import Iterable
from typing import Literal, get_args, get_origin

from cyclopts import CycloptsError
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
    ValidationError,
)

from fmrgen.errors import near_name

_IN_WORDS: dict[object, str] = {
    int: "a whole number",
    int | None: "a whole number",
    float: "a number",
    bool: "true or false",
}


def in_one_line(error: CycloptsError) -> str:
    """Return what is wrong with a command's arguments, and where its help is."""
    command = " ".join(["fmrgen", *(error.command_chain or [])])
    return f"{_mistake(error)}; see {command} --help"


def _mistake(error: CycloptsError) -> str:
    argument = error.argument
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        return _unknown("command", error.unused_tokens[0], error.app or ())
    if isinstance(error, UnknownOptionError):
        options: list[str] = []
        for candidate in error.argument_collection:
            options += [name for name in candidate.names if name.startswith("--")]
        return _unknown("option", error.token.keyword or error.token.value, options)
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"{error.unused_tokens[0]}: one argument too many"
    if isinstance(error, MissingArgumentError) and argument is not None:
        return f"{error.keyword}: its value is missing" if error.keyword else f"{argument.name}: missing"
    if isinstance(error, CoercionError) and error.token is not None and argument is not None:
        name = error.token.keyword or argument.name
        return f"{name}: must be {_values_of(error.target_type)}, not {error.token.value}"
    if isinstance(error, ValidationError) and argument is not None:
        token = argument.tokens[-1]
        rule = error.exception_message.rstrip(".").lower()
        return f"{token.keyword}: {rule}, not {token.value}"
    return str(error).rstrip(".?")


def _unknown(kind: str, name: str, names: Iterable[str]) -> str:
    """Return that a command or an option is unknown, and which of the names is nearest."""
    near = near_name(name, names)
    if near is None:
        return f"{name}: unknown {kind}"
    return f"{name}: unknown {kind}, did you mean {near}"


def _values_of(kind: object) -> str:
    """Return the values of a type in words."""
    if get_origin(kind) is Literal:
        *others, last = get_args(kind)
        return f"{', '.join(others)} or {last}"
    return _IN_WORDS.get(kind, "another value")
