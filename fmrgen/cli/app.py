"""The command line: the core's commands, from the modules beside this one, and those of the apps."""

import os
import sys
from functools import partial
from importlib import import_module
from typing import Annotated, Any

import typer

from fmrgen.cli import compare, make, measure, publish, tools
from fmrgen.cli.command import Command
from fmrgen.cli.exit import exit_status_of, install_signal_handlers
from fmrgen.cli.options import GroupedHelp, PlainHelp
from fmrgen.distributed.launcher import end_with_the_launcher
from fmrgen.distributed.schedulers import adopt_scheduler
from fmrgen.errors import command_line
from fmrgen.internals import apps

app = typer.Typer(
    name="fmrgen",
    help="Makes a perturbed test set for each image classifier and measures its robustness (FMR).",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    cls=GroupedHelp,
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        print(f"fmrgen {version('fmrgen')}")
        raise typer.Exit


@app.callback()
def fmrgen(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


_CORE = [
    Command("recipes", "Make", make.recipes),
    Command("generate", "Make", make.generate, resumes=True),
    Command("merge", "Make", make.merge, resumes=True),
    Command("evaluate", "Measure", measure.evaluate, resumes=True),
    Command(
        "transfer",
        "Measure",
        measure.evaluate,
        resumes=True,
        help="Print the transfer matrix: each classifier on each split.",
    ),
    Command("show", "Measure", measure.show),
    Command("verify", "Measure", measure.verify),
    Command("export", "Measure", measure.export),
    Command("compare", "Compare", compare.compare, resumes=True),
    Command("push", "Publish", publish.push, resumes=True),
    Command("delta", "Publish", publish.delta),
    Command("rebuild", "Publish", publish.rebuild),
    Command("store", "Tools", tools.store),
    Command("doctor", "Tools", tools.doctor),
]
_GROUPS = ("Make", "Measure", "Validate", "Compare", "Publish", "Tools")


def _commands() -> list[Command]:
    """Return the commands of the core and of all apps, in the order of `fmrgen --help`."""
    commands = list(_CORE)
    for package in apps():
        commands += import_module(f"{package.__name__}.commands").COMMANDS
    return sorted(commands, key=lambda command: _GROUPS.index(command.group))


_COMMANDS = _commands()
for _command in _COMMANDS:
    app.command(_command.name, cls=PlainHelp, rich_help_panel=_command.group, help=_command.help)(_command.run)


def main(arguments: list[str] | None = None) -> None:
    """Run a command; a user's mistake is one line on stderr and exit status 2."""
    # Before torch is imported: threads that spin while they wait slow a job many times over on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a lost process is reported in one line
    if arguments is None:
        adopt_scheduler()
        install_signal_handlers()
        end_with_the_launcher()
    arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    goes_on = any(command.resumes for command in _COMMANDS if command.name == arguments[0])
    sys.exit(exit_status_of(partial(_run, arguments), "; run the same command again to continue" if goes_on else ""))


def _run(arguments: list[str]) -> Any:
    with command_line():
        return typer.main.get_command(app).main(arguments, prog_name="fmrgen", standalone_mode=False)
