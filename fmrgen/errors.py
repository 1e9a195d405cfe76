"""The one exception that a user is meant to see."""


class UserError(Exception):
    """A mistake that the user can mend.

    The message is one line that names the thing and the cure. The command line prints it on stderr and exits with
    status 2; in Python it is an ordinary exception. `of_one_process` tells that other processes of the job do not
    raise it too.
    """

    of_one_process = False


def one_line(error: BaseException, length: int = 240) -> str:
    """What `error` says, on one line and not without end; its type where it says nothing."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else f"{text[:length].rstrip()}…"
