"""What fmrgen notes while a test runs."""

import logging
from contextlib import contextmanager


class _Notes(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@contextmanager
def noted():
    """Yields the list to which every note inside is added, those that `--quiet` hides too."""
    logger, handler = logging.getLogger("fmrgen"), _Notes()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
