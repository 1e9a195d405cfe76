"""Starting several processes of a command, by accelerate's own launcher."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from fmrgen.errors import UserError

OPTION = "--num-processes"
LAUNCHER = "FMRGEN_LAUNCHER"  # the number of the process that started this one among others
_LOOK = 1.0  # seconds between two looks whether it is still there


def start_again(processes: int, arguments: Sequence[str]) -> int:
    """Runs the command `arguments` on so many processes of this machine, and returns the exit status.

    On GPUs where there are any, else on the CPU. They say themselves what went wrong. Raises UserError where this is
    one of a launcher's processes already, or a process was killed.
    """
    if "LOCAL_RANK" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ:
        raise UserError(f"{OPTION}: a launcher has already started this process; use only one of the two")
    import torch

    if (gpus := torch.cuda.device_count()) == 0:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    elif processes > gpus:
        raise UserError(f"{OPTION} {processes}: must be at most {gpus}, the number of GPUs")
    # All that accelerate would else ask its configuration for, or warn about; port 0 is any that is free.
    launch = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "--main_process_port", "0"]
    os.environ[LAUNCHER] = str(os.getpid())
    sys.stdout.flush()
    return _launch([*launch, "-m", "fmrgen", *_without(arguments)])


def _launch(arguments: list[str]) -> int:
    """Runs accelerate's launcher and returns the exit status of the first process that failed, or 0."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.CRITICAL)  # its reports of what the processes tell in a line themselves
    signal.set_wakeup_fd(-1)  # from here on signals are the launcher's, which hands them on and waits
    try:
        launch_command(launch_command_parser().parse_args(arguments))
    except ChildFailedError as error:
        rank, failure = min(error.failures.items(), key=lambda entry: entry[1].timestamp)
        if failure.exitcode >= 0:
            return failure.exitcode
        name = signal.Signals(-failure.exitcode).name
        raise UserError(f"process {rank} was killed ({name}); run the same command again to continue") from None
    except SignalException as error:
        sys.stdout.flush()
        os._exit(128 + error.sigval)  # the processes have printed the error
    return 0


def end_with_the_launcher() -> None:
    """Ends this process, as SIGTERM would, when the launcher that started it is gone: a killed one can't."""
    launcher = int(os.environ.get(LAUNCHER, "0"))
    if not launcher or "LOCAL_RANK" not in os.environ:
        return

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(_LOOK)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="launcher").start()


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
    """A note where accelerate was asked for several processes and has started this one alone."""
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
        f"accelerate launch was asked for {asked[0]} processes but started one, as it does on CPUs; "
        f"use fmrgen's own {OPTION} {asked[0]} instead"
    )
