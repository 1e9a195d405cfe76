"""The command line: `env`, the core's other commands, from the modules beside this one, and those of the apps."""

import os
import platform
import sys
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from typing import Any

from cyclopts import App, Group, Parameter

from fmrgen.cli import display, make, measure, options, publish
from fmrgen.cli.command import Command
from fmrgen.cli.exit import exit_status_of, install_signal_handlers
from fmrgen.cli.help import PlainHelp, shown_default
from fmrgen.distributed.launcher import end_with_the_launcher, is_started_again, start_again
from fmrgen.errors import UserError, command_line
from fmrgen.internals import apps

# In help's order.
_HEADINGS = ("Arguments", "Options", "Generate", "Measure", "Validate", "Compare", "Publish", "Tools")
_GROUPS = {heading: Group(heading, sort_key=place) for place, heading in enumerate(_HEADINGS)}
_OPTIONS = _GROUPS["Options"]

# What `env` prints.
_PACKAGES = (
    *("fmrgen", "torch", "torchvision", "transformers", "diffusers", "timm", "datasets", "huggingface_hub"),
    *("accelerate", "pyarrow", "numpy", "pillow", "obstore"),
)
_VARIABLES = ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_HUB_DISABLE_XET", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")

app = App(
    name="fmrgen",
    help="Makes a perturbed test set for each image classifier and measures its robustness (FMR).",
    version=lambda: f"fmrgen {version('fmrgen')}",
    help_flags="--help",
    help_format="plaintext",
    help_formatter=PlainHelp(),
    group_arguments=_GROUPS["Arguments"],
    group_parameters=_OPTIONS,
    # No --no-OPTION; the last value of an option counts; values are text, never JSON.
    default_parameter=Parameter(
        negative=(), allow_repeating=True, json_dict=False, json_list=False, show_default=shown_default
    ),
    print_error=False,
    exit_on_error=False,
)


def _shell() -> Any:
    from cyclopts.completion.detect import ShellDetectionError, detect_shell

    try:
        return detect_shell()
    except ShellDetectionError:
        raise UserError("unknown shell; set SHELL to the path of bash, zsh or fish") from None


def _install_completion() -> None:
    """Install completion for the current shell."""
    print(f"{app.install_completion(shell=_shell())}: installed; start a new shell to use it")


def _show_completion() -> None:
    """Show completion for the current shell, to copy it."""
    print(app.generate_completion(shell=_shell()))


app["--help"].group = app["--version"].group = _OPTIONS
app.command(_install_completion, name="--install-completion", group=_OPTIONS)
app.command(_show_completion, name="--show-completion", group=_OPTIONS)


def env(*, as_json: options.Json = False) -> None:
    """Print versions, devices and variables for a bug report.

    Prints no secrets.

    Example: fmrgen env
    """
    import torch

    facts = {"python": f"{platform.python_version()} on {platform.platform()}"}
    for name in _PACKAGES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = "not installed"
    facts["cores"] = str(os.cpu_count())
    facts["gpu"] = "none"
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        facts[f"gpu {index}"] = f"{gpu.name}, {gpu.total_memory / 2**30:.1f} GiB, CUDA {torch.version.cuda}"
        facts.pop("gpu", None)
    names = [name for name in os.environ if name in _VARIABLES or name.startswith("FMRGEN_")]
    facts["variables"] = ", ".join(f"{name}={os.environ[name]}" for name in sorted(names)) or "none set"
    lines = [f"{name:16} {fact}" for name, fact in facts.items()]
    display.print_outcome(facts, lines, as_json=as_json)


_CORE = [
    Command("recipes", "Generate", make.recipes),
    Command("generate", "Generate", make.generate, resumes=True),
    Command("evaluate", "Measure", measure.evaluate, resumes=True),
    Command("show", "Measure", measure.show),
    Command("verify", "Measure", measure.verify),
    Command("compare", "Compare", measure.compare, resumes=True),
    Command("push", "Publish", publish.push, resumes=True),
    Command("rebuild", "Publish", publish.rebuild),
    Command("env", "Tools", env),
]
_of_apps = [import_module(f"{package.__name__}.commands").COMMANDS for package in apps()]
# In the order of `fmrgen --help`.
_commands = sorted(chain(_CORE, *_of_apps), key=lambda command: _HEADINGS.index(command.group))
COMMANDS = {command.name: command for command in _commands}
for _place, _command in enumerate(_commands):
    app.command(_command.run, name=_command.name, group=_GROUPS[_command.group], sort_key=_place)


def main(arguments: list[str] | None = None) -> None:
    """Run a command; a user's mistake is one line on stderr and exit status 2."""
    # Before torch is imported: threads that spin while they wait slow a job many times over on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a lost process is reported in one line
    if arguments is None:
        install_signal_handlers()
        end_with_the_launcher()
    arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    command = COMMANDS.get(arguments[0])
    resumes = command is not None and command.resumes
    sys.exit(exit_status_of(partial(_run, arguments), "; run the same command again to continue" if resumes else ""))


def _run(arguments: list[str]) -> int | None:
    """Run the command that the arguments name, in several processes if they say so; return its exit status."""
    with command_line():
        command, bound, _ = app.parse_args(arguments)
        processes = bound.arguments.get("processes", 1)
        if processes > 1 and not is_started_again():
            return start_again(processes, arguments)
        if bound.arguments.get("quiet"):
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # before its libraries are imported
        status: int | None = command(*bound.args, **bound.kwargs)
        return status
