"""The command line: a group of commands is a module beside this one, which only wires them together."""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from fmrgen.cli import compare, doubt, make, measure, publish, release, tools
from fmrgen.cli.exit import exit_status_of, install_signal_handlers
from fmrgen.cli.options import GroupedHelp, PlainHelp
from fmrgen.distributed.launcher import end_with_the_launcher
from fmrgen.distributed.schedulers import adopt_scheduler
from fmrgen.errors import command_line

app = typer.Typer(
    name="fmrgen",
    help="Makes a perturbed test set for each image classifier and measures its robustness (FMR).",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    cls=GroupedHelp,
)


def _say_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"fmrgen {version('fmrgen')}")
        raise typer.Exit


@app.callback()
def fmrgen(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


_GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "Make": {
        "recipes": make.recipes,
        "inspect": make.inspect,
        "generate": make.generate,
        "merge": make.merge,
        "sparsify": make.sparsify,
        "train": make.train,
    },
    "Measure": {
        "evaluate": measure.evaluate,
        "transfer": measure.evaluate,
        "show": measure.show,
        "explain": release.explain,
        "verify": measure.verify,
        "export": measure.export,
    },
    "Doubt": {
        "judge": doubt.judge,
        "audit": doubt.audit,
        "attack-oracle": doubt.attack_oracle,
        "sweep": doubt.sweep,
    },
    "Compare": {
        "compare": compare.compare,
        "diff": release.diff,
        "gate": release.gate,
        "agree": compare.agree,
        "study": compare.study,
    },
    "Publish": {
        "push": publish.push,
        "submit": publish.submit,
        "leaderboard": publish.board,
        "delta": publish.delta,
        "rebuild": publish.rebuild,
    },
    "Tools": {"store": tools.store, "doctor": tools.doctor},
}
_RESUMED = ("generate", "push", "merge", "train", "evaluate", "transfer", "compare", "judge", "study")
_HELP = {"transfer": "Print the transfer matrix: each classifier on each split."}  # where a command has two names

for _group, _commands in _GROUPS.items():
    for _name, _run_it in _commands.items():
        app.command(_name, cls=PlainHelp, rich_help_panel=_group, help=_HELP.get(_name))(_run_it)


def main(arguments: list[str] | None = None) -> None:
    """Runs a command; a user's mistake is one line on stderr and exit status 2."""
    # Before torch is imported: threads that spin while they wait slow a job many times over on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a lost process is reported in one line
    if arguments is None:
        adopt_scheduler()
        install_signal_handlers()
        end_with_the_launcher()
    arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    goes_on = arguments[:1] in ([name] for name in _RESUMED)
    sys.exit(exit_status_of(partial(_run, arguments), "; run the same command again to continue" if goes_on else ""))


def _run(arguments: list[str]) -> Any:
    with command_line():
        return typer.main.get_command(app).main(arguments, prog_name="fmrgen", standalone_mode=False)
