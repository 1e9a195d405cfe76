"""Whether the oracle can judge, before a long job rests on it: it knows the images, and is no kin of the classifier."""

import math
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fmrgen.classifiers.base import digests_of
from fmrgen.engine.images import as_float32, on_byte_grid, to_batch
from fmrgen.engine.interfaces import Oracle, Originals
from fmrgen.engine.objectives import also_of, loss
from fmrgen.errors import UserError, option
from fmrgen.image_files import open_rgb, stored_image
from fmrgen.metrics.cautions import ALIKE_ANSWERS, SHARED_WEIGHTS
from fmrgen.metrics.intervals import mean, proportion
from fmrgen.recipe.build import Components
from fmrgen.sources.base import LoadedExample
from fmrgen.storage.provenance import Kinship, Provenance
from fmrgen.storage.shards import SplitFolder
from fmrgen.weights.digest import shared_weights
from fmrgen.weights.identity import identity_of

_IMAGES = 256
_TOGETHER = 16
ASKED_TWICE = 16  # originals, at the start of a job and at its end
_SAME = 0.01  # of a probability: more than rounding differs
_MUCH = 10.0  # points of accuracy
_ALL = 0.999  # share of weights
_LEAST_PROBABILITY = 1e-30
_ASKED_AGAIN = 2  # rows of a shard
_UNCERTAIN = 0.7  # the loss of a classifier that sees the label and another class alike
_LOSS_WITHIN = 0.05  # of a loss, and of it as a share: more than servers' rounding, less than another model makes
_OF_A_CLASS, _FEWEST_CLASSES = 4, 4  # images, without which a class has no mean; wrong classes to agree on


@dataclass(frozen=True)
class CommonWeights:
    """Shares, 0 to 1: of the classifier's weights that are in the oracle, and of the oracle's in the classifier."""

    of_classifier: float
    of_oracle: float


def weights_in_common(components: Components) -> CommonWeights:
    """How many weights classifier and oracle have in common.

    Raises:
        UserError: the oracle has all of the classifier's. It then accepts an image only while this very network sees
            the label in it, and FMR is 100 whatever the network is worth.
    """
    classifier, oracle = components.classifier, components.oracle.deciding
    vetoing = () if oracle is components.oracle else getattr(components.oracle, "oracles", ())
    if any(_is_one_network(classifier, member) for member in vetoing):
        raise UserError(
            "oracle: the classifier itself is among those that have a veto, so an image counts only while it is right: "
            f"FMR would be 100 however good it is; choose another {option('oracle')}"
        )
    if (of_classifier := shared_weights(classifier, oracle)) >= _ALL:
        raise UserError(
            "oracle: has the classifier's own weights, so an image counts only while the classifier is right on it: "
            f"FMR would be 100 however good it is; choose another {option('oracle')}"
        )
    return CommonWeights(of_classifier, shared_weights(oracle, classifier))


def common_weights_caution(common: CommonWeights) -> str | None:
    """A line where classifier and oracle have weights in common: they then fail together, and FMR is too high."""
    if max(common.of_classifier, common.of_oracle) < SHARED_WEIGHTS:
        return None
    return (
        f"{common.of_oracle:.0%} of the oracle's weights are in the classifier ({common.of_classifier:.0%} of the "
        f"classifier's): the two fail together, and FMR is too high; compare it with that under another "
        f"{option('oracle')}"
    )


def _is_one_network(classifier: nn.Module, member: Oracle) -> bool:
    """Whether a member of a panel is the classifier: another preprocessing makes another one."""
    network = getattr(member, "classifier", None)
    return (
        network is not None
        and bool({*digests_of(classifier)} & {*digests_of(network)} - {None})
        and identity_of(classifier).state_sha256 == identity_of(network).state_sha256
    )


@dataclass(frozen=True)
class FirstAnswers:
    """What classifier and oracle say of the first originals: `labels` and the oracle's own `decided` [N], and
    log-probabilities [N, K], the oracle's and those of a panel's members.

    `members` has what each member of a panel decided [N], by name; `vetoing` are those that only have a veto.
    """

    labels: Tensor
    decided: Tensor
    of_classifier: Tensor
    of_oracles: list[Tensor]
    members: dict[str, Tensor] = field(default_factory=dict)
    vetoing: tuple[str, ...] = ()


def first_answers(components: Components, device: torch.device, count: int = _IMAGES) -> FirstAnswers | None:
    """Asks both about so many of the first originals, on `device`; None where that fails: the job tells it, in its
    place."""
    with suppress(Exception, SystemExit), torch.no_grad():  # a source's, or anyone's code
        return _first_answers(components, device, count)
    return None


def _first_answers(components: Components, device: torch.device, count: int) -> FirstAnswers | None:
    source, classifier, generator, oracle = components
    loaded = source.load(0, min(count, len(source)), generator.image_size)
    examples = (entry.for_engine() for entry in loaded if isinstance(entry, LoadedExample))
    found: list[tuple[Tensor, ...]] = []
    members: dict[str, list[Tensor]] = {}
    while batch := list(islice(examples, _TOGETHER)):
        images = on_byte_grid(torch.stack([example.image for example in batch]).to(device))
        labels = torch.tensor([example.label for example in batch], device=device)
        said = oracle.judge(images.clone(), Originals(images.clone(), labels))
        every = [said, *(said.members.values() if oracle.deciding is oracle else ())]
        logs = (one.probabilities.double().clamp(min=_LEAST_PROBABILITY).log() for one in every)
        found.append((labels, said.decided, classifier(images.clone()).double().log_softmax(1), *logs))
        for name, judgement in said.members.items():
            members.setdefault(name, []).append(judgement.decided)
    if not found:
        return None
    labels, decided, of_classifier, *of_oracles = (torch.cat(part).cpu() for part in zip(*found, strict=True))
    decided_by = {name: torch.cat(parts).cpu() for name, parts in members.items()}
    vetoing = tuple(decided_by)[1:] if oracle.deciding is not oracle else ()
    return FirstAnswers(labels, decided, of_classifier, of_oracles, decided_by, vetoing)


def check_first_answers(components: Components, device: torch.device, before: FirstAnswers | None) -> None:
    """Raises UserError where classifier or oracle say something else of the first `ASKED_TWICE` originals than
    `before`: what keeps count of its calls, or learns from them, is another network at the end of a job."""
    after = None if before is None else first_answers(components, device, ASKED_TWICE)
    if before is None or after is None:
        return
    answers = [("classifier", before.of_classifier, after.of_classifier)]
    for then, now in zip(before.of_oracles, after.of_oracles, strict=True):
        answers.append(("oracle", then, now))
    for name, then, now in answers:
        if not torch.allclose(then.exp(), now.exp(), rtol=0, atol=_SAME, equal_nan=True):
            raise UserError(
                f"{name}: its answers for the same images changed during the run; nothing in its forward may depend on "
                "earlier calls"
            )


def oracle_caution(answers: FirstAnswers) -> str | None:
    """A line where the oracle is hardly right on the first originals, or much less often than the classifier, with the
    likely cause; of a panel it says which member is wrong. None where nothing is wrong."""
    oracle = proportion((answers.decided == answers.labels).numpy())
    classifier = proportion((answers.of_classifier.argmax(1) == answers.labels).numpy())
    if oracle is None or classifier is None:
        return None
    chance = 100 / answers.of_classifier.shape[1]
    is_at_chance = oracle.low is not None and oracle.low <= chance
    apart = oracle.high is not None and classifier.low is not None and oracle.high < classifier.low
    if not is_at_chance and not (apart and classifier.value - oracle.value > _MUCH):
        return None

    right = {name: float((decided == answers.labels).float().mean()) for name, decided in answers.members.items()}
    accuracy = f"the oracle is right on {oracle.value:.0f} % of the first originals"
    if right:
        each = ", ".join(f"{name} on {100 * share:.0f} %" for name, share in right.items())
        accuracy = f"the oracle's panel is right on {oracle.value:.0f} % of the first originals ({each})"
    worst = min(right, key=lambda name: right[name], default=None)
    if worst in answers.vetoing:
        return (
            f"{accuracy} and the classifier on {classifier.value:.0f} %: {worst} has a veto, so each image that it "
            f"gets wrong is invalid, whatever the others see; does {worst} have the right weights and order of classes?"
        )
    if is_at_chance:
        prompts = option("oracle.prompts, oracle.class_prompts", "class_names=")
        return (
            f"{accuracy}, no more than by chance ({chance:.3g} %): are its weights and tokenizer the right ones, and "
            f"does it know the classes by the names in its prompts ({prompts})?"
        )
    prompts = option("oracle.class_prompts", "class_names=")
    return (
        f"{accuracy} and the classifier on {classifier.value:.0f} %: the oracle's mistakes decide which rows are "
        f"valid; name the classes as it knows them ({prompts}), or take a better oracle"
    )


def likeness_caution(answers: FirstAnswers) -> str | None:
    """A line where classifier and oracle weigh the wrong classes alike, as a network does that was taught by another.

    Accuracy says nothing of that: two networks may both be right, and what each takes the image for next is its own.
    Of every original the log-probabilities of the wrong classes are compared, less their mean over originals of its
    class, by their correlation. On MNIST unrelated networks have .2 to .5, one distilled from the oracle .6.
    """
    alike = likeness(answers)
    if alike is None or alike <= ALIKE_ANSWERS:
        return None
    return (
        "classifier and oracle weigh the wrong classes of an original alike, with a correlation of "
        f"{alike:.2f} or more (unrelated networks have .2 to .5), so one may have been taught by the other: they fail "
        f"together, and FMR is too high; compare it with that under another {option('oracle')}"
    )


def likeness(answers: FirstAnswers) -> float | None:
    """The lower end of the mean correlation that `likeness_caution` goes by, with the oracle or the member of its panel
    that is most alike; None where too few originals tell."""
    correlations = [_likeness(answers, of_oracle) for of_oracle in answers.of_oracles]
    return max((correlation for correlation in correlations if correlation is not None), default=None)


def kinship(common: CommonWeights, answers: FirstAnswers | None) -> Kinship:
    """What a split keeps of how near its classifier and its oracle are."""
    alike = None if answers is None else likeness(answers)
    weights = max(common.of_classifier, common.of_oracle)
    return Kinship(weights=round(weights, 3), answers=None if alike is None else round(alike, 3))


def _likeness(answers: FirstAnswers, of_oracle: Tensor) -> float | None:
    """The lower end of the mean correlation; None where there are too few originals of a class, or classes."""
    labels, classes = answers.labels, answers.of_classifier.shape[1]
    counts = torch.bincount(labels, minlength=classes)
    kept = counts[labels] >= _OF_A_CLASS
    if classes <= _FEWEST_CLASSES or not kept.any():
        return None
    labels = labels[kept]
    wrong = torch.ones(len(labels), classes, dtype=torch.bool).scatter(1, labels.unsqueeze(1), False)
    ours, theirs = (
        _without_class_means(said[kept][wrong].view(len(labels), -1), labels)
        for said in (answers.of_classifier, of_oracle)
    )
    found = mean(torch.cosine_similarity(ours, theirs, dim=1).numpy())
    return None if found is None else found.low


def _without_class_means(values: Tensor, labels: Tensor) -> Tensor:
    """The values [N, K - 1] less their mean over the rows of the same label, and centred in each row."""
    classes = int(labels.max()) + 1
    sums = torch.zeros(classes, values.shape[1], dtype=values.dtype).index_add(0, labels, values)
    values = values - (sums / torch.bincount(labels, minlength=classes).clamp(min=1).unsqueeze(1))[labels]
    return values - values.mean(1, keepdim=True)


def check_answers_of_rows(
    components: Components, folder: SplitFolder, provenance: Provenance, device: torch.device
) -> None:
    """Raises UserError where a classifier without weights, as an endpoint, answers otherwise than it did for rows that
    are there: what is behind its address was changed, and one split would be made against two models.

    It is asked about two rows of the first shard and two of the last, those of which it was least certain.
    """
    if provenance.weights_sha256.classifier is not None:  # which are compared
        return
    names = folder.shared.names(folder.paths.shards)
    there = [shard for shard in range(folder.shards) if folder.shard_path(shard).name in names]
    for shard in {*there[:1], *there[-1:]}:
        rows = folder.first_rows(shard, ["id", "image", "label", "accepted_labels", "loss"])
        rows = [row for row in rows if row["loss"] is not None and math.isfinite(row["loss"])]
        for row in sorted(rows, key=lambda row: abs(row["loss"] - _UNCERTAIN))[:_ASKED_AGAIN]:
            now = _loss_of(row, components.classifier, folder.shard_path(shard), device)
            if not math.isclose(now, row["loss"], rel_tol=_LOSS_WITHIN, abs_tol=_LOSS_WITHIN):
                raise UserError(
                    f"{folder.paths.root}:{folder.paths.name}: the classifier answers otherwise than it did for the "
                    f"rows that are there (of id {row['id']} its loss was {row['loss']:.3g}, is {now:.3g}), so the "
                    f"model behind it was changed; choose another {option('output')}"
                )


@torch.no_grad()
def _loss_of(row: dict[str, Any], classifier: nn.Module, path: Path, device: torch.device) -> float:
    try:
        pixels = np.asarray(open_rgb(stored_image(row["image"])))
    except UserError as error:
        raise UserError(f"{path}: id {row['id']}: its image is unreadable ({error}); delete this shard") from None
    logits = as_float32(classifier(to_batch(pixels[None], device)))
    others = (row.get("accepted_labels") or [row["label"]])[1:]
    also = also_of([others], logits.shape[1]).to(device)
    return float(loss(logits, torch.tensor([row["label"]], device=device), also))
