"""An oracle for a user's images: unlike networks, taught on some of them, that judge the others together."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fmrgen.apps.training.augment import augment
from fmrgen.apps.training.loop import cpu_threads
from fmrgen.apps.training.recipe import TrainRecipe
from fmrgen.config import validate
from fmrgen.engine.images import on_byte_grid
from fmrgen.engine.interfaces import Oracle, Originals
from fmrgen.labels import Labels
from fmrgen.metrics.intervals import Estimate, proportion
from fmrgen.records import Example

_BATCH = 64
_SMALLEST_SIDE = 64  # px, to which members enlarge images: they are made for more than 32
_NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "densenet": ("densenet121", {"growth_rate": 16, "block_config": [4, 4, 4]}),
    "efficientnet": ("test_efficientnet", {}),
    "resnet": ("test_resnet", {"stem_type": "deep", "replace_stem_pool": True}),
}
MEMBERS = tuple(_NETWORKS)
_AUGMENT = {"warp": 0.7, "colour": 0.5, "blur": 1.0, "noise": 0.1, "cutout": 0.25}
_FEWEST_STEPS = 30
SHARES = {"densenet": 1.5, "efficientnet": 0.8, "resnet": 0.8}  # of the training time
_TIMED_STEPS = 3
_OVERHEAD = 1.3  # of a step beside others: reading, and caches that are shared

LEAST, MOST = 0.5, 0.99  # thresholds
_ORIGINALS_KEPT = 80.0  # percent, as many as by the thresholds that readings chose for the demos
_GIVEN_WRONGLY = 2.0  # percent of originals, at most, that may be accepted as another class
_SURE = 0.9


def network_recipe(
    name: str, size: int, classes: int, mean: Sequence[float], std: Sequence[float], parts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the training recipe of a network, one of `MEMBERS`, for one step, on images of `size` pixels.

    `mean` and `std` are those of the images, by channel; `parts` are their sources, `source` and `test`.
    """
    model, arguments = _NETWORKS[name]
    side = max(size, _SMALLEST_SIDE)
    statistics = {"mean": [round(value, 3) for value in mean], "std": [round(value, 3) for value in std]}
    classifier = {
        "kind": "timm",
        "pretrained": False,
        "model": model,
        "model_args": {"num_classes": classes, **arguments},
        "data_config": {"input_size": [3, side, side], "crop_pct": 1.0, **statistics},
    }
    return {
        "description": f"A {name} for fmrgen init",
        **parts,
        "model": {"kind": "classifier", "classifier": classifier, "image_size": size},
        "schedule": {"steps": 1, "batch_size": _BATCH, "learning_rate": 0.004, "threads": 1, "checkpoint_every": 100},
        "augment": _AUGMENT,
    }


def steps_within(recipe: Mapping[str, Any], labels: Labels, seconds: float, device: torch.device) -> int:
    """Return how many steps of a training recipe fit into a time on one thread, at least 30."""
    loaded = validate(TrainRecipe, recipe, "init")
    objective = loaded.model.objective(device, labels)
    batch, size = loaded.schedule.batch_size, objective.image_size
    images = torch.rand(batch, 3, size, size, device=device)
    targets = torch.zeros(batch, dtype=torch.int64, device=device)
    with cpu_threads(1):
        for step in range(_TIMED_STEPS):
            if step == 1:  # the first is slower
                started = time.perf_counter()
            changed, changed_targets = augment(images, targets, loaded.augment, None, len(labels))
            objective.loss(changed, changed_targets, 0.0).backward()
        per_step = (time.perf_counter() - started) / (_TIMED_STEPS - 1)
    return max(_FEWEST_STEPS, int(seconds / (per_step * _OVERHEAD)))


@dataclass(frozen=True)
class Judged:
    """What an oracle is like, by images that it was not taught on."""

    name: str
    section: dict[str, Any]  # of a recipe
    accuracy: Estimate  # on originals, in percent
    kept: Estimate  # percent of the originals that it sees as labelled with at least the threshold
    mixes: Estimate  # the same of images that are half another class: a control
    shuffled: Estimate  # percent of originals accepted as any class after their pixels were shuffled: another control
    wrong: Estimate  # percent of the originals that it accepts as another class
    threshold: float  # the least probability to accept an image
    members: Mapping[str, float]  # accuracy of each member, in percent
    doubted: Sequence[int]  # places of examples in which it is confident of another class than the label


def judged(
    name: str, section: dict[str, Any], oracle: Oracle, examples: Sequence[Example], device: torch.device
) -> Judged:
    """Return what an oracle says of examples, originals of at least two classes, and the threshold that follows.

    The rule: the highest hundredth at which it accepts 80 % of the originals, which it has not seen either, but at
    least 0.5, and higher where it would accept more than 2 % of the originals as another class. So an accepted image is
    as clear to it as most photos are, and it is seldom sure without reason.
    """
    originals = on_byte_grid(torch.stack([example.image for example in examples]).to(device))
    labels = torch.tensor([example.label for example in examples], device=device)
    judgements, members = _judgements(oracle, originals, labels)
    others = _of_other_classes(labels)
    of_mixed, _ = _judgements(oracle, on_byte_grid((originals + originals[others]) / 2), labels)
    of_shuffled, _ = _judgements(oracle, _shuffled(originals), labels)
    threshold = _threshold(judgements)
    return Judged(
        name=name,
        section=section,
        accuracy=share(judgements.right),
        kept=share(judgements.right & (judgements.of_label >= threshold)),
        mixes=share(of_mixed.right & (of_mixed.of_label >= threshold)),
        shuffled=share(of_shuffled.highest >= threshold),
        wrong=share(~judgements.right & (judgements.highest >= threshold)),
        threshold=threshold,
        members=members,
        doubted=np.flatnonzero(~judgements.right & (judgements.highest >= _SURE)).tolist(),
    )


def share(hits: np.ndarray) -> Estimate:
    """Return the share of True in `hits` [N], N ≥ 1, in percent."""
    share = proportion(hits)
    assert share is not None
    return share


class _Judgements(NamedTuple):
    """What an oracle says of images, [N]: whether it names the label, and the label's and the highest probability."""

    right: np.ndarray
    of_label: np.ndarray
    highest: np.ndarray


def _threshold(judgements: _Judgements) -> float:
    clearest = np.quantile(np.where(judgements.right, judgements.of_label, 0), 1 - _ORIGINALS_KEPT / 100)
    threshold = np.floor(100 * clearest) / 100
    allowed = int(len(judgements.right) * _GIVEN_WRONGLY / 100)
    wrong = np.sort(judgements.highest[~judgements.right])[::-1]
    if len(wrong) > allowed:
        threshold = max(threshold, np.floor(100 * wrong[allowed] + 1) / 100)  # above the first that is too many
    return round(float(np.clip(threshold, LEAST, MOST)), 2)


@torch.no_grad()
def _judgements(oracle: Oracle, images: Tensor, labels: Tensor) -> tuple[_Judgements, dict[str, float]]:
    """Return what an oracle says of images, and the accuracy of each of its members in percent."""
    parts, right = [], dict.fromkeys(oracle.member_names, 0)
    for batch, targets in zip(images.split(_BATCH), labels.split(_BATCH), strict=True):
        judgement = oracle.judge(batch, Originals(batch, targets))
        parts.append(judgement.probabilities)
        for name, of_member in judgement.members.items():
            right[name] += int((of_member.decided == targets).sum())
    probabilities = torch.cat(parts)
    judgements = _Judgements(
        right=(probabilities.argmax(1) == labels).cpu().numpy(),
        of_label=probabilities.gather(1, labels[:, None])[:, 0].cpu().numpy(),
        highest=probabilities.max(1).values.cpu().numpy(),
    )
    return judgements, {name: 100 * count / len(images) for name, count in right.items()}


def _shuffled(images: Tensor) -> Tensor:
    """Return images whose pixels are in one random order, which leaves nothing to see."""
    order = torch.randperm(images[0, 0].numel(), generator=torch.Generator().manual_seed(0)).to(images.device)
    return images.flatten(2)[:, :, order].view_as(images)


def _of_other_classes(labels: Tensor) -> Tensor:
    """Return for each row the next row, from the middle on, that is of another class."""
    rows = torch.arange(len(labels), device=labels.device)
    later_rows = (rows[:, None] + len(labels) // 2 + rows) % len(labels)  # of each row all others, from the middle on
    first = (labels[later_rows] != labels[:, None]).int().argmax(1, keepdim=True)
    return later_rows.gather(1, first)[:, 0]
