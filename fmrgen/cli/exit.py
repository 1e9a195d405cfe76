"""How a command ends before its time: with one line and an exit status, and soon where it is asked to."""

import errno
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from cyclopts import CycloptsError

from fmrgen.cli.mistakes import in_one_line
from fmrgen.errors import Terminated, UserError, missing_package, write_line

# What a signal raises in the main thread, and what a line says of the end.
_RAISED = {signal.SIGTERM: (Terminated, "terminated"), signal.SIGINT: (KeyboardInterrupt, "interrupted")}
_INTERRUPTED = 128 + signal.SIGINT
_TERMINATED = 128 + signal.SIGTERM
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_GRACE = 10.0  # seconds from the signal to the end, where the main thread can't hear it, and from an error to the end

_prepared = threading.Event()  # the process is the command's own
_received: list[type[BaseException]] = []  # what the signals raised that this process received
_ways_on: list[str] = []  # of the command that runs


def exit_status_of(run: Callable[[], int | None], again: str) -> int:
    """Run a command and return its exit status; where it is ended, a line says why, with `again` on how to go on.

    What only a traceback can tell is raised.
    """
    _ways_on.append(again)
    try:
        status = run()
        sys.stdout.flush()
    except BaseException as error:
        _stop_listening()
        status = _tell(error, again)
        if status is None:
            raise
    _stop_listening()
    if status == _INTERRUPTED:
        print_error(f"interrupted{again}")
    if status in (_TERMINATED, _INTERRUPTED) and _prepared.is_set():
        # A library that the signal met in the middle, as torch in its import, can abort the interpreter's own end.
        sys.stderr.flush()
        os._exit(status)
    if status and _prepared.is_set():  # what libraries do at the exit may wait for a process that is gone
        late = threading.Timer(_GRACE, os._exit, [status])
        late.daemon = True
        late.start()
    return status or 0


def _tell(error: BaseException, again: str) -> int | None:
    """Says in a line why a command ends by `error`, and returns the exit status; None for what needs a traceback."""
    if isinstance(error, UserError):
        if os.environ.get("LOCAL_RANK", "0") != "0" and not error.from_one_process:
            time.sleep(2)  # till the first one tells it: a launcher ends all processes as soon as one has ended
        return print_error(str(error), error.from_one_process)
    if isinstance(error, Terminated):
        print_error(f"terminated{again}")
        return _TERMINATED
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED
    if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):  # rich makes one of it
        error = error.__context__
    if isinstance(error, SystemExit):
        return print_error(f"third-party code ended the command, exit({error.code!r}){again}")
    if isinstance(error, BrokenPipeError):  # who reads the output has enough
        _write_no_more()
        return 128 + signal.SIGPIPE
    if isinstance(error, OSError) and not error.filename and error.errno in _UNWRITABLE:
        _write_no_more()
        return print_error(f"the output can't be written: {error.strerror}")
    if isinstance(error, OSError) and error.filename and error.strerror:
        return print_error(f"{str(error.filename)[:80]}: {error.strerror}")
    if isinstance(error, CycloptsError):
        return print_error(in_one_line(error))
    if missing := missing_package(error):
        return print_error(f"this command {missing}")
    if _received:  # a library turned the signal's exception into one of its own, as pydantic's compiled code does
        return _tell(_received[-1](), again)
    return None


def _write_no_more() -> None:
    """Send what is still to be written nowhere, so that the interpreter's end does not stumble over it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_error(text: str, from_one_process: bool = False) -> int:
    """One line on stderr, from the first process of a machine alone where all make the same mistake. Exit status 2."""
    rank = os.environ.get("RANK", "0")
    if os.environ.get("LOCAL_RANK", "0") == "0" or from_one_process:
        where = "fmrgen" if rank == "0" else f"fmrgen (process {rank})"
        write_line(f"{where}: {' '.join(text.split())}")
    return 2


def install_signal_handlers() -> None:
    """Make SIGTERM an exception of the main thread, as Ctrl-C is one, and see to it that both end the process. A
    terminal without UTF-8 gets question marks where its alphabet has no character of a table.

    Python runs its handlers between two of its own instructions: a main thread that is inside a long computation or a
    stuck file system would never come to them.
    """
    signal.signal(signal.SIGTERM, _raise)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as of a shell's background jobs
        signal.signal(signal.SIGINT, _raise)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.unraisablehook = _resend_lost_signal
    _prepared.set()
    heard, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_forget)
    threading.Thread(target=_end_in_any_case, args=(heard,), daemon=True, name="signals").start()


def _raise(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # launchers send several; the end is near in any case
    kind, word = _RAISED[signal.Signals(number)]
    _received.append(kind)
    spec = getattr(sys.modules.get("torch"), "__spec__", None)
    if not getattr(spec, "_initializing", False):
        raise kind
    # The exception may come up in torch's C++, which aborts. What is half done is as after a kill.
    try:
        print_error(f"{word}{''.join(_ways_on[-1:])}")
        sys.stdout.flush()
    finally:
        os._exit(128 + number)


def _resend_lost_signal(lost: "sys.UnraisableHookArgs") -> None:
    """Send the signal anew whose exception came up where Python drops all: in a destructor, in a weak reference."""
    for number, (kind, _) in _RAISED.items():
        if lost.exc_type is kind:
            signal.signal(number, _raise)
            threading.Timer(0.02, os.kill, [os.getpid(), number]).start()  # when what dropped it has returned
            return
    sys.__unraisablehook__(lost)


def _stop_listening() -> None:
    """From here on a signal ends the process at once: nobody would catch the exception any more."""
    for number in _RAISED:
        if signal.getsignal(number) is _raise:
            signal.signal(number, signal.SIG_DFL)


def _forget() -> None:
    """Forget the launcher in a forked child: its signals are not its parent's."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is _raise:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_in_any_case(heard: int) -> None:
    while (number := os.read(heard, 1)[0]) not in (signal.SIGTERM, signal.SIGINT):
        pass
    time.sleep(_GRACE)
    print_error("ended in the middle of a computation that did not return")
    os._exit(128 + number)
