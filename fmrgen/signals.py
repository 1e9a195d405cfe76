"""How a command ends when it is asked to: soon, with one line, and with what is whole on the disk."""

import os
import signal
import sys
import threading
import time
from types import FrameType

from fmrgen.errors import Terminated

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
BROKEN_PIPE = 128 + signal.SIGPIPE
_GRACE = 10.0  # seconds from the signal to the end, where the main thread can't hear it


def listen() -> None:
    """Makes SIGTERM an exception of the main thread, as Ctrl-C is one, and sees to it that both end the process.

    Python runs its handlers between two of its own instructions: a main thread that is inside a long computation or a
    stuck file system would never come to them.
    """
    signal.signal(signal.SIGTERM, _terminate)
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    threading.Thread(target=_end_in_any_case, args=(heard,), daemon=True, name="signals").start()


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process as it stands
    raise Terminated


def _end_in_any_case(heard: int) -> None:
    while (number := os.read(heard, 1)[0]) not in (signal.SIGTERM, signal.SIGINT):
        pass
    time.sleep(_GRACE)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print("fmrgen: ended in the middle of a computation; what was whole is kept", file=sys.stderr, flush=True)
    os._exit(128 + number)
