"""Any classifier as the oracle."""

from typing import TYPE_CHECKING

from fmrgen.engine.interfaces import Judgement, Oracle, Originals
from fmrgen.labels import Labels
from fmrgen.oracles.base import OracleConfig
from fmrgen.recipe.sections import ClassifierField

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Config(OracleConfig):
    """`classifier` is any classifier section."""

    PLACES = ()

    kind: str = "classifier"
    classifier: ClassifierField

    def build(self, device: "torch.device | str" = "cpu") -> "ClassifierOracle":
        return ClassifierOracle(self.classifier.build(device))


class ClassifierOracle(Oracle):
    """Judges by the softmax probabilities of a classifier, which are the score too."""

    derived = ("_given",)  # the same network, before it was made to answer in the labels

    def __init__(self, classifier: "nn.Module") -> None:
        self._given = classifier
        self.classifier = classifier
        self._unfitted_labels: Labels | None = None

    def set_labels(self, labels: Labels) -> None:
        self._unfitted_labels = labels

    def judge(self, images: "Tensor", originals: Originals | None = None) -> Judgement:
        import torch

        with torch.no_grad():
            probabilities = self.logits(images).softmax(dim=1)
        return Judgement(probabilities, probabilities)

    def logits(self, images: "Tensor") -> "Tensor":
        import torch

        from fmrgen.classifiers.base import in_labels

        if self._unfitted_labels is not None:
            with torch.no_grad():
                self.classifier = in_labels(self._given, self._unfitted_labels, images[:1], "oracle.classifier")
            self._unfitted_labels = None
        answer: Tensor = self.classifier(images)
        return answer
