"""The rank of this process among those of its launch."""

import logging
import os


def is_first_process() -> bool:
    """Return whether this is the first process of its launch, which prints for all of them."""
    return os.environ.get("RANK", "0") == "0"


def launched_processes() -> int:
    """Return how many processes this launch has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def note(line: str, level: int = logging.WARNING, *, of_one: bool = False) -> None:
    """Log what a user should know, once for a launch; at the level INFO what `--quiet` hides.

    `of_one` is for what one process alone knows, any of them.
    """
    if of_one or is_first_process():
        logging.getLogger("fmrgen").log(level, line)
