"""Which apps are there: each can be deleted with its folder, and tests of the core pass without it."""

import importlib.util

import pytest


def has_app(name):
    return importlib.util.find_spec(f"fmrgen.apps.{name}") is not None


def needs_app(name):
    """A mark of a test that uses an app."""
    return pytest.mark.skipif(not has_app(name), reason=f"the app {name} is not installed")


def of_installed_commands(cases):
    """Of cases that begin with arguments, or a line, those whose command is there."""
    from fmrgen.cli.app import app

    commands = {command.name for command in app.registered_commands}
    apps = {"agree", "attack-oracle", "audit", "diff", "explain", "gate", "inspect", "judge", "leaderboard"}
    apps |= {"sparsify", "study", "submit", "sweep", "train"}

    def command(case):
        words = case if isinstance(case, str) else case[0]
        return words.split()[0] if isinstance(words, str) else words[0]

    return [case for case in cases if command(case) not in apps - commands]
