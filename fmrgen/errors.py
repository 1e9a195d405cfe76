"""What ends a command before its time, and is told in one line."""


class UserError(Exception):
    """A mistake that the user can mend.

    The message is one line that names the thing and the cure. The command line prints it on stderr and exits with
    status 2; in Python it is an ordinary exception. `of_one_process` tells that other processes of the job do not
    raise it too.
    """

    of_one_process = False


class Terminated(SystemExit):
    """Somebody asked the process to end (SIGTERM); raised where the main thread is.

    `why` is another process's death where that was the cause; `of_one_process` as for UserError.
    """

    why: str | None = None
    of_one_process = False

    def __init__(self) -> None:
        super().__init__(143)


def one_line(error: BaseException, length: int = 240) -> str:
    """What `error` says, on one line and not without end; its type where it says nothing."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else f"{text[:length].rstrip()}…"
