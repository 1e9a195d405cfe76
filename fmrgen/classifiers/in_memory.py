"""A classifier that was handed over as an object in Python."""

from fmrgen.in_memory import InMemory as Config

__all__ = ["Config"]
