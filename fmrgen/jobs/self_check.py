"""Whether the oracle can judge, before a long job rests on it: it knows the images, and is no kin of the classifier."""

from contextlib import suppress
from itertools import islice

import numpy as np
import torch

from fmrgen.components import Components
from fmrgen.engine.images import on_byte_grid
from fmrgen.engine.interfaces import Originals
from fmrgen.errors import UserError, option
from fmrgen.intervals import Estimate, proportion
from fmrgen.sources.base import LoadedExample
from fmrgen.weights.digest import shared_weights

_IMAGES = 64
_TOGETHER = 16
_MUCH = 10.0  # points of accuracy
_ALL, _MANY = 0.999, 0.1  # shares of weights


def kinship_caution(components: Components) -> str | None:
    """A line where classifier and oracle have weights in common: they then fail together, and FMR is too high.

    Raises:
        UserError: the oracle has all of the classifier's. It then accepts an image only while this very network sees
            the label in it, and FMR is 100 whatever the network is worth.
    """
    _, classifier, _, oracle = components
    if (of_classifier := shared_weights(classifier, oracle)) >= _ALL:
        raise UserError(
            "oracle: has the classifier's own weights, so an image counts only while the classifier is right on it: "
            f"FMR would be 100 whatever it is worth; choose another {option('oracle')}"
        )
    of_oracle = shared_weights(oracle, classifier)
    if max(of_classifier, of_oracle) < _MANY:
        return None
    return (
        f"{of_oracle:.0%} of the oracle's weights are in the classifier ({of_classifier:.0%} of the classifier's): "
        f"the two fail together, and FMR is too high; compare it with that under another {option('oracle')}"
    )


def oracle_caution(components: Components, device: torch.device) -> str | None:
    """A line where the oracle is hardly right on the first originals, or much less often than the classifier.

    Args:
        components: of the job, on `device`.
        device: where they are.

    Returns:
        What is wrong and its likely cause; None where nothing is. What fails here is told by the job, in its place.
    """
    found = None
    with suppress(Exception), torch.no_grad():  # a source's, or anyone's code
        found = _rates(components, device)
    if found is None:
        return None
    oracle, classifier = found
    chance = 100 / len(components.source.labels)
    told = f"the oracle is right on {oracle.value:.0f} % of the first originals"
    if oracle.low is not None and oracle.low <= chance:
        prompts = option("oracle.prompts, oracle.class_prompts", "class_names=")
        return (
            f"{told}, no more than by chance ({chance:.3g} %): are its weights and tokenizer the right ones, and does "
            f"it know the classes by the names in its prompts ({prompts})?"
        )
    apart = oracle.high is not None and classifier.low is not None and oracle.high < classifier.low
    if apart and classifier.value - oracle.value > _MUCH:
        prompts = option("oracle.class_prompts", "class_names=")
        return (
            f"{told} and the classifier on {classifier.value:.0f} %: its own mistakes will decide which rows are "
            f"valid; name the classes as it knows them ({prompts}), or take a better oracle"
        )
    return None


def _rates(components: Components, device: torch.device) -> tuple[Estimate, Estimate] | None:
    """What oracle and classifier get right of the first originals; None where there are none."""
    source, classifier, generator, oracle = components
    loaded = source.load(0, min(_IMAGES, len(source)), generator.image_size)
    examples = (entry.for_engine() for entry in loaded if isinstance(entry, LoadedExample))
    of_oracle, of_classifier = list[bool](), list[bool]()
    while batch := list(islice(examples, _TOGETHER)):
        images = on_byte_grid(torch.stack([example.image for example in batch]).to(device))
        labels = torch.tensor([example.label for example in batch], device=device)
        of_oracle += (oracle.judge(images.clone(), Originals(images.clone(), labels)).decided == labels).tolist()
        of_classifier += (classifier(images.clone()).argmax(1) == labels).tolist()
    rates = proportion(np.array(of_oracle)), proportion(np.array(of_classifier))
    return None if rates[0] is None or rates[1] is None else (rates[0], rates[1])
