"""The one exception that a user is meant to see."""


class UserError(Exception):
    """A mistake that the user can mend.

    The message is one line that names the thing and the cure. The command line prints it on stderr and exits with
    status 2; in Python it is an ordinary exception.
    """
