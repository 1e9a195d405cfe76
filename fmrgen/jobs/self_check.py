"""Whether the oracle can judge, before a long job rests on it: it knows the images, and is no kin of the classifier."""

import math
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from fmrgen.classifiers.base import digests_of
from fmrgen.engine.images import on_byte_grid, to_batch
from fmrgen.engine.interfaces import Originals
from fmrgen.engine.objectives import also_of, loss, margin
from fmrgen.engine.slope import slope_along_gradient
from fmrgen.errors import UserError, option
from fmrgen.image_files import open_rgb, stored_image
from fmrgen.jobs.lifecycle import record
from fmrgen.metrics.cautions import kinship_caution
from fmrgen.metrics.gradients import slope_caution
from fmrgen.metrics.intervals import mean, proportion
from fmrgen.recipe.build import Components, judgement_of, logits_of
from fmrgen.sources.base import LoadedExample
from fmrgen.storage.provenance import Kinship, RecordedWeights
from fmrgen.storage.shards import SplitFolder
from fmrgen.storage.store import set_aside
from fmrgen.weights.digest import check_same_weights, shared_weights
from fmrgen.weights.identity import hashed

_IMAGES = 256
_ASKED_TWICE = 16  # originals, at the start of a job and at its end
_SAME = 0.01  # of a probability: more than rounding differs
_QUERIED_AGAIN = 16  # rows of the split that is resumed
_UNCERTAIN = 0.7  # the loss of a classifier that sees the label and another class alike
_LOSS_WITHIN = 0.05  # of a loss, and of it as a share: more than devices' rounding, less than another network makes
_OF_A_CLASS, _FEWEST_CLASSES = 4, 4  # images, without which a class has no mean; wrong classes to agree on


@dataclass(frozen=True)
class Checked:
    """Classifier and oracle as a job finds them, and must leave them."""

    outputs: "FirstOutputs | None"  # for some originals; None if that failed, which the job itself reports
    kinship: Kinship | None  # None if it was not measured
    notes: list[str]  # what a user should know before the work begins


def check(components: Components, oracle_rule: str, device: torch.device, *, in_full: bool) -> Checked:
    """Query classifier and oracle with a few originals, or in full with enough to say whether the oracle knows them and
    how alike the two are.

    Raises UserError if the oracle has all of the classifier's weights, see `weights_in_common`.
    """
    shared = weights_in_common(components)
    outputs = first_outputs(components, device, _IMAGES if in_full else _ASKED_TWICE)
    kinship = Kinship(weights=round(shared, 3), likeness=likeness(outputs) if in_full and outputs is not None else None)
    notes = [kinship_caution(kinship.weights, kinship.likeness)]
    if in_full and outputs is not None and oracle_rule == "label":
        notes.append(oracle_caution(outputs))
    return Checked(outputs, kinship if in_full else None, [note for note in notes if note is not None])


def check_unchanged(
    components: Components, before: Checked, weights: RecordedWeights, folder: SplitFolder, device: torch.device
) -> None:
    """Raise UserError if a model has other weights than those on record, or gives other outputs than before the job.

    The shards are set aside then: they are not of one network.
    """
    try:
        for name, digest in weights:
            check_same_weights(name, getattr(components, name), digest)
        if before.outputs is not None:
            _check_outputs(before.outputs, first_outputs(components, device, _ASKED_TWICE))
    except UserError:
        for name in folder.paths.shards_among(folder.store.names(folder.paths.shards)):
            set_aside(folder.store, folder.paths.shards / name)
        raise


def measure_slope(classifier: nn.Module, folder: SplitFolder, device: torch.device) -> str | None:
    """Measure how steep the classifier really is along its gradient, on the stored images nearest its boundary, and
    record that in the split. Return a line if it is not as steep as its gradient says.

    Steps end there: a gradient that shows the way far from the boundary, and not near it, hides failures.
    """
    images, labels = [], []
    with suppress(OSError, ValueError, pa.ArrowException, UserError):  # a damaged shard, which `finish` tells
        table = folder.read_columns(["id", "valid", "loss"])
        losses = table["loss"].to_numpy()
        usable = table["valid"].to_numpy().astype(bool) & np.isfinite(losses)
        distances = np.where(usable, np.abs(losses - _UNCERTAIN), np.inf)
        nearest = table["id"].to_numpy()[np.argsort(distances, kind="stable")][: min(16, usable.sum())]
        rows = folder.rows_of(nearest.tolist(), ["id", "image", "label"])
        images = [np.asarray(open_rgb(stored_image(row["image"]))) for row in rows]
        labels = [row["label"] for row in rows]
    if not images:
        return None
    pixels = to_batch(np.array(images), device)
    slope = slope_along_gradient(classifier, margin, pixels, torch.tensor(labels, device=device))
    if slope is None:
        return None
    record(folder, "slope", {"slope": round(slope, 3)})
    return slope_caution(slope)


def weights_in_common(components: Components) -> float:
    """Return the larger share, 0 to 1, of the classifier's weights in the oracle and of the oracle's in the classifier.

    Raises UserError if the oracle has all of the classifier's. It then accepts an image only while this very network
    sees the label in it, and FMR is 100 whatever the network is worth.
    """
    classifier, oracle = components.classifier, components.oracle.deciding
    vetoing = () if oracle is components.oracle else getattr(components.oracle, "oracles", ())
    of_classifier, fault = shared_weights(classifier, oracle), None
    networks = [getattr(member, "classifier", None) for member in vetoing]
    if any(network is not None and _are_one_network(classifier, network) for network in networks):
        fault = "the classifier itself is among those that have a veto, so an image counts only while it is right"
    elif of_classifier >= 0.999:
        fault = "has the classifier's own weights, so an image counts only while the classifier is right on it"
    if fault is not None:
        raise UserError(f"oracle: {fault}: FMR would be 100 however good it is; choose another {option('oracle')}")
    return max(of_classifier, shared_weights(oracle, classifier)) if of_classifier else 0.0


def _are_one_network(classifier: nn.Module, network: nn.Module) -> bool:
    """Return whether two classifiers are one, also in a wrapper: with another preprocessing it is another network."""
    has_same_weights = bool(digests_of(classifier) & digests_of(network) - {None})
    return has_same_weights and hashed(classifier) == hashed(network)


@dataclass(frozen=True)
class FirstOutputs:
    """The outputs of classifier and oracle for the first N originals."""

    labels: Tensor  # [N]
    decided: Tensor  # the classes that the oracle decides on, [N]
    of_classifier: Tensor  # log-probabilities, [N, K]
    of_oracles: list[Tensor]  # those of the oracle and of a panel's members, [N, K] each
    members: dict[str, Tensor]  # the classes that each member of a panel decides on, [N]
    vetoing: tuple[str, ...]  # the members that only have a veto


def first_outputs(components: Components, device: torch.device, count: int = _IMAGES) -> FirstOutputs | None:
    """Return the outputs of both for the first `count` originals; None if that fails: the job itself reports why."""
    with suppress(Exception, SystemExit), torch.no_grad():  # a source's, or anyone's code
        source, classifier, generator, oracle = components
        loaded = source.load(0, min(count, len(source)), generator.image_size)
        examples = (entry.for_engine() for entry in loaded if isinstance(entry, LoadedExample))
        columns: list[tuple[Tensor, ...]] = []
        members: list[list[Tensor]] = []  # the classes that each decides on, of each batch
        names: tuple[str, ...] = ()
        while batch := list(islice(examples, 16)):
            images = on_byte_grid(torch.stack([example.image for example in batch]).to(device))
            labels = torch.tensor([example.label for example in batch], device=device)
            _, verdict = judgement_of(oracle, images, Originals(images, labels))
            names, judgements = tuple(verdict.members), list(verdict.members.values())
            members.append([judgement.decided for judgement in judgements])
            deciding = [verdict, *judgements] if oracle.deciding is oracle else [verdict]
            logs = [judgement.probabilities.double().clamp(min=1e-30).log() for judgement in deciding]
            columns.append((labels, verdict.decided, logits_of(classifier, images).double().log_softmax(1), *logs))
        if not columns:
            return None
        labels, decided, of_classifier, *of_oracles = (torch.cat(part).cpu() for part in zip(*columns, strict=True))
        of_members = [torch.cat(parts).cpu() for parts in zip(*members, strict=True)]
        decided_by = dict(zip(names, of_members, strict=True))
        vetoing = names[1:] if oracle.deciding is not oracle else ()
        return FirstOutputs(labels, decided, of_classifier, of_oracles, decided_by, vetoing)
    return None


def _check_outputs(before: FirstOutputs, after: FirstOutputs | None) -> None:
    """Raise UserError if the outputs for the first originals are others than before; `after` is None if they failed.

    A network that counts its calls, or learns from them, is another one at the end of a job.
    """
    if after is None:
        return
    outputs = [("classifier", before.of_classifier, after.of_classifier)]
    outputs += [("oracle", *pair) for pair in zip(before.of_oracles, after.of_oracles, strict=True)]
    for name, then, now in outputs:
        if not torch.allclose(then[: len(now)].exp(), now.exp(), rtol=0, atol=_SAME, equal_nan=True):
            raise UserError(
                f"{name}: its predictions for the same images changed during the run; nothing in its forward may "
                "depend on earlier calls"
            )


def oracle_caution(outputs: FirstOutputs) -> str | None:
    """Return a caution if the oracle is hardly right on the first originals, or much less often than the classifier.

    It names the likely cause, and the member of a panel that is wrong.
    """
    oracle = proportion((outputs.decided == outputs.labels).numpy())
    classifier = proportion((outputs.of_classifier.argmax(1) == outputs.labels).numpy())
    if oracle is None or classifier is None:
        return None
    chance = 100 / outputs.of_classifier.shape[1]
    is_at_chance = oracle.low is not None and oracle.low <= chance
    is_apart = oracle.high is not None and classifier.low is not None and oracle.high < classifier.low
    is_much_worse = is_apart and classifier.value - oracle.value > 10  # points of accuracy
    if not is_at_chance and not is_much_worse:
        return None

    right = {name: float((decided == outputs.labels).float().mean()) for name, decided in outputs.members.items()}
    accuracy = f"the oracle is right on {oracle.value:.0f} % of the first originals"
    if right:
        each = ", ".join(f"{name} on {100 * share:.0f} %" for name, share in right.items())
        accuracy = f"the oracle's panel is right on {oracle.value:.0f} % of the first originals ({each})"
    worst = min(right, key=lambda name: right[name], default=None)
    if worst in outputs.vetoing:
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


def likeness(outputs: FirstOutputs) -> float | None:
    """Return how alike classifier and oracle, or the most alike member of its panel, weigh the wrong classes: the lower
    end of the mean correlation; None if there are too few originals.

    Accuracy does not show it: two networks may both be right and still differ in their second guess. For every
    original the log-probabilities of the wrong classes are correlated, less their mean over originals of its class. On
    MNIST unrelated networks have .2 to .5, one distilled from the oracle .6.
    """
    labels, classes = outputs.labels, outputs.of_classifier.shape[1]
    has_mean = torch.bincount(labels, minlength=classes)[labels] >= _OF_A_CLASS
    if classes <= _FEWEST_CLASSES or not has_mean.any():
        return None
    labels = labels[has_mean]
    is_wrong = torch.ones(len(labels), classes, dtype=torch.bool).scatter(1, labels.unsqueeze(1), False)

    def centred(log_probabilities: Tensor) -> Tensor:
        """Return those of the wrong classes, less their mean over the rows of a label, and centred in each row."""
        values = log_probabilities[has_mean][is_wrong].view(len(labels), -1)
        counts = torch.bincount(labels, minlength=classes).clamp(min=1).unsqueeze(1)
        means = values.new_zeros(classes, values.shape[1]).index_add(0, labels, values) / counts
        values = values - means[labels]
        return values - values.mean(1, keepdim=True)

    ours, lows = centred(outputs.of_classifier), []
    for of_oracle in outputs.of_oracles:
        correlation = mean(torch.cosine_similarity(ours, centred(of_oracle), dim=1).numpy())
        if correlation is not None and correlation.low is not None:
            lows.append(correlation.low)
    return round(max(lows), 3) if lows else None


def check_kept_rows(classifier: nn.Module, folder: SplitFolder, device: torch.device) -> None:
    """Raise UserError if the classifier's losses on stored images are not those that their rows have.

    Identity does not see all that a forward depends on: the environment, files, functions that were replaced. So rows
    that are spread over the existing shards are classified again before any is kept.
    """
    names = folder.store.names(folder.paths.shards)
    existing = [shard for shard in range(folder.shards) if folder.shard_path(shard).name in names]
    spread = {existing[int(place)] for place in np.linspace(0, len(existing) - 1, _QUERIED_AGAIN)} if existing else ()
    where = f"{folder.paths.root}:{folder.paths.name}"
    rows: list[dict[str, Any]] = []
    for shard in spread:
        first = folder.first_rows(shard, ["id", "image", "label", "accepted_labels", "loss"])
        usable = [row for row in first if row["loss"] is not None and math.isfinite(row["loss"])]
        usable.sort(key=lambda row: abs(row["loss"] - _UNCERTAIN))  # a change shows most where it is least certain
        rows += usable[: math.ceil(_QUERIED_AGAIN / len(spread))]
    for row in rows:
        try:
            pixels = np.asarray(open_rgb(stored_image(row["image"])))
        except UserError as error:
            raise UserError(f"{where}: id {row['id']}: its image is unreadable ({error}); delete its shard") from None
        logits = logits_of(classifier, to_batch(pixels[None], device))
        also_true = also_of([(row.get("accepted_labels") or [row["label"]])[1:]], logits.shape[1]).to(device)
        now = float(loss(logits, torch.tensor([row["label"]], device=device), also_true))
        if not math.isclose(now, row["loss"], rel_tol=_LOSS_WITHIN, abs_tol=_LOSS_WITHIN):
            raise UserError(
                f"{where}: the classifier is not the one of the existing rows: its loss on the image of id {row['id']} "
                f"was {row['loss']:.3g} and is {now:.3g}; put back what its forward reads, or choose another "
                f"{option('output')}"
            )
