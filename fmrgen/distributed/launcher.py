"""Starts several processes of a command, with accelerate's own launcher."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from fmrgen.errors import UserError

OPTION = "--num-processes"
_LAUNCHER = "FMRGEN_LAUNCHER"  # environment variable: the pid of the launcher that started this process
_CHECK_INTERVAL = 1.0  # seconds between two checks whether the launcher is alive


def start_again(processes: int, arguments: Sequence[str]) -> int:
    """Run a command on several processes of this machine, on GPUs if there are any, and return the exit status.

    `arguments` is the command line after `fmrgen`. The status is that of the first process that failed; the processes
    report their own errors. Raises UserError if a launcher has already started this process, there are too few GPUs, or
    a process was killed.
    """
    if "LOCAL_RANK" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ:
        raise UserError(f"{OPTION}: a launcher has already started this process; use only one of the two")
    import torch
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    gpus = torch.cuda.device_count()
    if gpus == 0:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    elif processes > gpus:
        raise UserError(f"{OPTION} {processes}: must be at most {gpus}, the number of GPUs")
    # Everything that accelerate would otherwise read from its configuration, or warn about; port 0 is any free one.
    launch = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "--main_process_port", "0", "-m", "fmrgen", *arguments]
    os.environ[_LAUNCHER] = str(os.getpid())
    sys.stdout.flush()
    logging.disable(logging.CRITICAL)  # the launcher's reports of errors that the processes have reported themselves
    signal.set_wakeup_fd(-1)  # from here on the launcher handles signals: it passes them on and waits
    try:
        launch_command(launch_command_parser().parse_args(launch))
    except ChildFailedError as error:
        rank, failure = min(error.failures.items(), key=lambda entry: entry[1].timestamp)
        if failure.exitcode >= 0:
            return failure.exitcode
        name = signal.Signals(-failure.exitcode).name
        raise UserError(f"process {rank} was killed ({name}); run the same command again to continue") from None
    except (SignalException, SystemExit) as error:  # accelerate makes the second of the first, from 1.16 on
        sys.stdout.flush()
        # The processes have printed the error.
        os._exit(128 + error.sigval if isinstance(error, SignalException) else int(error.code or 0))
    return 0


def is_started_again() -> bool:
    """Return whether this process is one of those that `start_again` runs."""
    return "LOCAL_RANK" in os.environ and os.environ.get(_LAUNCHER) == str(os.getppid())


def end_with_the_launcher() -> None:
    """End this process, as SIGTERM would, when its launcher is gone: a killed launcher cannot end it."""
    if not is_started_again():
        return
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(_CHECK_INTERVAL)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="launcher").start()


def unheeded_processes() -> str | None:
    """Return a note if accelerate was asked for several processes and has started this one alone; else None."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or "ACCELERATE_MIXED_PRECISION" not in os.environ:
        return None
    processes = ""
    with suppress(Exception):  # another process may be hidden, or gone
        import psutil

        words = [word.replace("_", "-") for word in psutil.Process(os.getppid()).cmdline()]
        processes = words[words.index(OPTION) + 1]
    if not processes.isdigit() or int(processes) < 2:
        return None
    return (
        f"accelerate launch was asked for {processes} processes but started one, as it does on CPUs; "
        f"use fmrgen's own {OPTION} {processes} instead"
    )


def launched_precision() -> Literal["bf16"] | None:
    """Return the precision of `accelerate launch --mixed_precision`; None for full precision.

    Raises UserError for one that does not suffice.
    """
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if precision not in ("bf16", "no"):
        raise UserError(
            f"--mixed_precision {precision}: not precise enough for these gradients; launch with bf16 or no"
        )
    return "bf16" if precision == "bf16" else None
