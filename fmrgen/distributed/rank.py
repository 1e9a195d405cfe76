"""Which of a launch's processes this one is."""

import os


def is_first_process() -> bool:
    """Whether this process speaks for all of its launch."""
    return os.environ.get("RANK", "0") == "0"
