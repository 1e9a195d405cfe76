"""An oracle as a torch module that classifies."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fmrgen.engine.images import on_byte_grid
from fmrgen.engine.interfaces import Oracle
from fmrgen.errors import UserError
from fmrgen.labels import Labels


class AskedInWords(nn.Module):
    """`forward` takes images [B, 3, H, W] in [0, 1] and returns logits [B, K] over the labels that it was given.

    They are the oracle's own logits, with gradients; for an oracle without gradients, the logs of its probabilities.
    """

    def __init__(self, oracle: Oracle) -> None:
        super().__init__()
        self.oracle = oracle
        self.networks = nn.ModuleList(_networks_in(oracle))
        self._tells_logits = True
        self._labels: Labels | None = None

    def set_labels(self, labels: Labels) -> None:
        """Set the labels to answer in. Raises UserError if the oracle can't tell two of them apart."""
        if labels == self._labels:
            return
        try:
            self.oracle.set_labels(labels)
        except UserError as error:
            raise UserError(f"classifier.{error}") from None
        self._labels = labels

    def forward(self, images: Tensor) -> Tensor:
        if self._labels is None:
            raise UserError(
                "classifier: takes class names as prompts and has none; list them as class_names of its section"
            )
        if self._tells_logits:
            try:
                return self.oracle.logits(images)
            except UserError:  # it has no logits, or takes steps without a gradient
                self._tells_logits = False
        with torch.no_grad():
            probabilities = self.oracle.judge(on_byte_grid(images)).probabilities
        return probabilities.clamp(min=1e-30).log()  # every logarithm is finite


def _networks_in(held: object) -> Iterator[nn.Module]:
    """Yield the modules in an oracle, and in the oracles that it holds."""
    if isinstance(held, nn.Module):
        yield held
    elif isinstance(held, Oracle):
        for name, value in vars(held).items():
            if name not in held.derived:
                yield from _networks_in(value)
    elif isinstance(held, list | tuple):
        for value in held:
            yield from _networks_in(value)
