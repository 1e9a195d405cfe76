"""Help as plain text: names on the left, what they mean on the right."""

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

_TYPES = ("STR", "INT", "FLOAT", "PATH")  # cyclopts' words for values, from their types in Python


class PlainHelp:
    """Formats help for cyclopts, which calls it once for each part."""

    def render_usage(self, console: "Console", options: "ConsoleOptions", usage: Any) -> None:
        """Print how the command is written."""
        _print_wrapped(console, f"Usage: {usage.plain.strip()}", indent=0)

    def render_description(self, console: "Console", options: "ConsoleOptions", description: Any) -> None:
        """Print what the command does, of its docstring."""
        for paragraph in description.primary_renderable.plain.split("\n\n"):
            console.out()
            _print_wrapped(console, paragraph, indent=2)

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        """Print a list of arguments, of options or of commands; a command's page has an empty one of commands."""
        if not panel.entries:
            return
        console.out(f"\n{panel.title}:", highlight=False)
        names = [_name(entry) for entry in panel.entries]
        width = min(max(map(len, names)), 30)  # a longer name has a line of its own
        for name, entry in zip(names, panel.entries, strict=True):
            text = entry.description.primary_renderable.plain
            if entry.required:
                text += " [required]"
            if entry.default is not None:
                text += f" [default: {entry.default}]"
            if len(name) > width:
                console.out(f"  {name}", highlight=False)
                name = ""
            _print_wrapped(console, text, indent=width + 4, first=f"  {name:{width}}  ")


def _print_wrapped(console: "Console", text: str, indent: int, first: str | None = None) -> None:
    """Print a paragraph, its first line after `first`, the others indented."""
    start = " " * indent if first is None else first
    wrapped = textwrap.fill(
        text,
        min(console.width, 100),
        initial_indent=start,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    console.out(wrapped or start.rstrip(), highlight=False)


def _name(entry: "HelpEntry") -> str:
    """Return the name of an argument or a command; of an option all its names and its value's."""
    value = "|".join(entry.choices) if entry.choices else entry.metavar
    if entry.positional_label is not None:
        return value if value and entry.choices else entry.positional_label
    names = ", ".join([*entry.positive_shorts, *entry.positive_names])
    if not value:
        return names
    if value.removesuffix("...") in _TYPES:
        value = entry.positive_names[0].lstrip("-").upper()
    return f"{names} {value}"


def shown_default(default: object) -> str | None:
    """Return a default as help shows it; None for one that says nothing: an option that is off, no text, no value."""
    if default is None or default is False or default in ("", ()):
        return None
    if isinstance(default, tuple):
        return ", ".join(default)
    return str(default)
