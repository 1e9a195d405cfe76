"""Models that are handed over as objects: in a recipe they are known by their class and their weights."""

import hashlib
import inspect
from typing import TYPE_CHECKING, Any

from pydantic import PrivateAttr

from fmrgen.config import ComponentConfig
from fmrgen.errors import UserError

if TYPE_CHECKING:
    import torch


class InMemory(ComponentConfig):
    """A classifier, generator or oracle that was made by the caller.

    `target` is its class, `weights_sha256` tells it from others of that class, and so does the fingerprint of a recipe
    that holds it: a split is continued with the same object alone.
    """

    kind: str = "in_memory"
    target: str
    weights_sha256: str | None = None
    _held: Any = PrivateAttr(None)

    @classmethod
    def of(cls, held: Any, weights_sha256: str | None) -> "InMemory":
        """The section of an object with the weights of that digest."""
        section = cls(target=called(held), weights_sha256=weights_sha256)
        section._held = held
        return section

    def build(self, device: "torch.device | str" = "cpu") -> Any:
        from torch import nn

        if self._held is None:
            raise UserError(
                f"{self.target} was an object in the memory of the process that made the split; hand it over in "
                "Python, as in fmrgen.verify(split, classifier=network)"
            )
        return self._held.to(device).eval() if isinstance(self._held, nn.Module) else self._held

    def code_sha256(self) -> str | None:
        """Of the source code of its class, where Python knows it."""
        try:
            return hashlib.sha256(inspect.getsource(type(self._held)).encode()).hexdigest()
        except (OSError, TypeError):  # typed into an interpreter, or built in
            return None

    def code_it_runs(self) -> list[str]:
        return []

    def places_it_reads(self) -> list[str]:
        return []


def called(held: Any) -> str:
    """What the class of an object is called: `module:Class`, without the module where that is the caller's own."""
    found = type(held)
    return found.__qualname__ if found.__module__ == "__main__" else f"{found.__module__}:{found.__qualname__}"
