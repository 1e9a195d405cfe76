"""Where tests and what they share lie."""

from pathlib import Path

SUPPORT = Path(__file__).parent  # on the path of processes that need modules of a test
TESTS = SUPPORT.parent
ROOT = TESTS.parent
