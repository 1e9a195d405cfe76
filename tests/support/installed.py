"""Which apps are there: each can be deleted with its folder, and tests of the core pass without it."""

import pytest

from fmrgen.internals import apps

# Each app and its commands. When a folder is gone, only this list knows what went with it.
APPS = {
    "explain": ("explain",),
    "judging": ("judge",),
    "pilot": ("init", "sparsify"),
    "release": ("diff",),
    "training": ("train",),
}


def has_app(name):
    return f"fmrgen.apps.{name}" in [app.__name__ for app in apps()]


def needs_app(name):
    """A mark of a test that uses an app."""
    return pytest.mark.skipif(not has_app(name), reason=f"the app {name} is not installed")


def of_installed_commands(cases):
    """Of cases that begin with arguments, or a line, those whose command is there."""
    from fmrgen.cli.app import COMMANDS

    of_apps = {command for commands in APPS.values() for command in commands}

    def command(case):
        words = case if isinstance(case, str) else case[0]
        return words.split()[0] if isinstance(words, str) else words[0]

    return [case for case in cases if command(case) not in of_apps - COMMANDS.keys()]
