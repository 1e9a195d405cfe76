"""Any oracle as the classifier: image-text models, with gradients, and vision-language models, to be evaluated."""

from typing import TYPE_CHECKING, Annotated

from pydantic import SerializeAsAny

from fmrgen.config import ClassifierConfig, ComponentConfig, component
from fmrgen.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn


class Config(ClassifierConfig):
    """`oracle` is any oracle section that looks at the image alone.

    It answers in the labels of the job or split, by the words of its prompts; with `class_names` it answers in these,
    and labels are matched to them by name. Its logits decide: a threshold or an option `none` has no effect.
    """

    PLACES = ()

    kind: str = "oracle"
    oracle: Annotated[SerializeAsAny[ComponentConfig], component("fmrgen.oracles")]

    def build(self, device: "torch.device | str" = "cpu") -> "nn.Module":
        from fmrgen.classifiers.base import Classifier
        from fmrgen.classifiers.networks.asked_in_words import AskedInWords
        from fmrgen.labels import Labels

        try:
            oracle = self.oracle.build(device)
        except UserError as error:  # it names the section `oracle`
            raise UserError(f"classifier.{error}") from None
        if oracle.needs_originals:
            raise UserError(
                f"classifier.oracle: {self.oracle.kind} compares images with their originals; it can't classify them"
            )
        network = AskedInWords(oracle)
        if self.class_names is not None:
            network.set_labels(Labels(tuple(self.class_names)))
        return Classifier(network, lambda images: images, self.class_names, self.channels).eval()
