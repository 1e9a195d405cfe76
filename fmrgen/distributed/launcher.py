"""Starting several processes of a command, by accelerate's own launcher."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from fmrgen.errors import UserError

OPTION = "--num-processes"


def start_again(processes: int, arguments: Sequence[str]) -> NoReturn:
    """Runs the command `arguments` on so many processes of this machine, in this process's place.

    On GPUs where there are any, else on the CPU. Raises UserError where this is one of a launcher's processes already.
    """
    if "LOCAL_RANK" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ:
        raise UserError(f"{OPTION}: this is a launcher's process already; give it to one of the two")
    import torch

    environment = dict(os.environ)
    if (gpus := torch.cuda.device_count()) == 0:
        environment["ACCELERATE_USE_CPU"] = "true"
    elif processes > gpus:
        raise UserError(f"{OPTION} {processes}: there are {gpus} GPUs")
    # All that accelerate would else ask its configuration for, or warn about; port 0 is any that is free.
    launch = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "--main_process_port", "0"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *launch, "-m", "fmrgen", *_without(arguments)]
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)


def _without(arguments: Sequence[str]) -> list[str]:
    """The arguments but for the option and its value."""
    kept, following = [], iter(arguments)
    for argument in following:
        if argument == OPTION:
            next(following, None)
        elif not argument.startswith(f"{OPTION}="):
            kept.append(argument)
    return kept


def unheeded_processes() -> str | None:
    """What is to be told where accelerate was asked for several processes and has started this one alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or "ACCELERATE_MIXED_PRECISION" not in os.environ:
        return None
    words: list[str] = []
    with suppress(Exception):  # whatever the machine says of another process
        import psutil

        words = psutil.Process(os.getppid()).cmdline()
    asked = [words[place + 1] for place, word in enumerate(words[:-1]) if word in ("--num_processes", OPTION)]
    if not asked or not asked[0].isdigit() or int(asked[0]) < 2:
        return None
    return (
        f"accelerate launch was asked for {asked[0]} processes and has started one, as it does on CPUs; "
        f"fmrgen's own {OPTION} {asked[0]} starts them all"
    )
