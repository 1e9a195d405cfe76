"""Verify a split: judge and classify every stored image again, and compare with the stored values."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fmrgen.classifiers.base import digests_of
from fmrgen.config import StrictConfig
from fmrgen.engine.images import to_batch
from fmrgen.engine.interfaces import Oracle, Originals
from fmrgen.engine.objectives import also_of, loss
from fmrgen.engine.slots import OF_MEMBERS
from fmrgen.errors import UserError
from fmrgen.progress.bars import report
from fmrgen.recipe.build import ClassifierAndOracle, build_classifier, build_oracle, judgement_of, logits_of
from fmrgen.recipe.objects import classifier_section, oracle_section
from fmrgen.recipe.sections import ClassifierField, OracleField
from fmrgen.records import StopReason
from fmrgen.split.open import open_own_split
from fmrgen.split.rows import Split, reading
from fmrgen.storage.provenance import NEW_WEIGHTS, Provenance
from fmrgen.storage.schema import are_whole
from fmrgen.trust.code import changed_code, code_sha256
from fmrgen.trust.recipes import untrusted_config
from fmrgen.weights.digest import check_same_weights, weights_sha256

_BATCH = 64  # rows
_MOST_PIXELS = 1 << 25  # of the images of a batch; each pixel takes 27 bytes on its way
_TOLERANCE = 1e-4  # of the oracle's score and probability and of the loss: float noise between batch sizes and devices

_Batch = dict[str, list[Any]]  # the values of each column
# Columns with a value for each step, and the column that repeats the last one, if there is one.
_STEPS = {
    "step_predictions": "prediction",
    "step_losses": "loss",
    "step_oracle_probabilities": None,
    "step_objectives": None,
}


@dataclass(frozen=True)
class Disagreement:
    """A stored value that differs from what the stored image gives now."""

    id: int
    column: str
    stored: Any
    found: Any


@dataclass(frozen=True)
class Verification:
    """The outcome: how many of `rows` are true in every column, the values that are not, and notes for the reader."""

    rows: int
    disagreements: list[Disagreement]
    notes: list[str]

    @property
    def true_rows(self) -> int:
        return self.rows - len({entry.id for entry in self.disagreements})


class ModelsOfRecipe(StrictConfig):
    """The sections of a recipe's classifier and oracle."""

    classifier: ClassifierField
    oracle: OracleField


def verify(
    split: str,
    *,
    classifier: nn.Module | None = None,
    oracle: Oracle | nn.Module | None = None,
    trust: bool = False,
    device: torch.device | str | None = None,
) -> Verification:
    """Judge and classify every stored image of a split again, with the oracle and the classifier of its recipe.

    Args:
        split: a reference, `PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]`.
        classifier: the classifier, if it was an object in memory; it must have the same weights.
        oracle: likewise.
        trust: let the split's recipe, which may be a stranger's, run the code and read the places that it names.
        device: of the models; by default a GPU if there is one.

    Returns:
        How many rows match, and the values that do not.

    Raises:
        UserError: the split or its models can't be loaded, or are not those that generated it.
    """
    opened, provenance = open_own_split(split)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    judges, loaded, recipe = load_judges(
        split, provenance, classifier=classifier, oracle=oracle, trust=trust, device=device
    )
    with reading(split):
        rows, disagreements = _verify_rows(opened, provenance, judges, device)
    for name, judge in judges._asdict().items():
        check_same_weights(name, judge, loaded[name])
    changed = ", ".join(changed_code(provenance.code_sha256, code_sha256(recipe)))
    notes = [f"the code in {changed} is not the code that generated the split"] if changed else []
    return Verification(rows, disagreements, notes)


def load_judges(
    split: str,
    provenance: Provenance,
    *,
    classifier: nn.Module | None = None,
    oracle: Oracle | nn.Module | None = None,
    may_differ: Collection[str] = (),
    trust: bool = False,
    device: torch.device | str,
) -> tuple[ClassifierAndOracle, dict[str, str | None], ModelsOfRecipe]:
    """Load the classifier and the oracle that made a split, by the recipe in its provenance, or those passed instead.

    Returns both models, the sha256 of the weights that must not differ, by name, and the models' sections. `may_differ`
    names the models whose weights need not be those that generated the split. With `trust` the recipe may run the code
    and read the files and addresses that it names. Raises UserError if a model can't be loaded, or is not the one that
    generated the split.
    """
    tree: dict[str, Any] = {
        "classifier": dict(provenance.recipe.classifier.tree) if classifier is None else classifier_section(classifier),
        "oracle": provenance.recipe.oracle.tree if oracle is None else oracle_section(oracle),
    }
    recipe = untrusted_config(ModelsOfRecipe, tree, f"{split}: the recipe in its provenance", trust=trust)
    labels, size = provenance.job_labels, provenance.image_size
    judges = ClassifierAndOracle(
        build_classifier(recipe.classifier, labels, size, device), build_oracle(recipe.oracle, labels, size, device)
    )
    loaded: dict[str, str | None] = {}
    for name, replacement in {"classifier": classifier, "oracle": oracle}.items():
        if name in may_differ:
            continue
        recorded_sha256 = getattr(provenance.weights_sha256, name)
        loaded[name] = weights_sha256(getattr(judges, name))
        is_recorded = loaded[name] == recorded_sha256
        if name == "classifier" and not is_recorded:  # it may be in a wrapper
            is_recorded = recorded_sha256 in digests_of(judges.classifier) - {None}
        if not is_recorded and replacement is None:
            raise UserError(f"{split}: the recipe now loads other {name} weights than when the split was generated")
        if not is_recorded:
            raise UserError(f"{split}: the {name} has other weights than when the split was generated ({NEW_WEIGHTS})")
    return judges, loaded, recipe


def _verify_rows(
    opened: Split, provenance: Provenance, judges: ClassifierAndOracle, device: torch.device | str
) -> tuple[int, list[Disagreement]]:
    """Return how many rows there are, and the values that are not those of their images."""
    rows, schema = provenance.rows, provenance.row_schema
    if judges.oracle.needs_originals and "original" not in opened.image_columns:
        raise UserError(f"{opened.name}: has no originals (output.keep_original), and its oracle compares with them")
    disagreements: list[Disagreement] = []
    done = 0
    batch_size = max(1, min(_BATCH, _MOST_PIXELS // provenance.image_size**2))
    for table in opened.tables(batch_size):
        batch = table.to_pydict()
        pixels = opened.decoded(batch)
        originals = pixels.get("original", pixels["image"])
        outputs = _outputs(pixels["image"], originals, batch, judges, device)
        if "original" in pixels:
            of_originals = _outputs(originals, originals, batch, judges, device)
            outputs["original_prediction"] = of_originals["prediction"]
            outputs["original_oracle_label"] = of_originals["oracle_label"]
        by_member = {field: outputs.pop(field) for field in OF_MEMBERS if field in outputs}
        for field, values in outputs.items():
            disagreements += _compare(batch, schema.name_of(field), values)
        disagreements += _compare_members(batch, schema.judges, by_member)
        if "pixel_shift" in batch and "original" in pixels:
            change = torch.from_numpy((pixels["image"].astype(np.float64) - originals) / 255)
            disagreements += _compare(batch, "pixel_shift", change.square().mean((1, 2, 3)).sqrt())
        for i, example_id in enumerate(batch["id"]):
            row = {name: values[i] for name, values in batch.items()}
            disagreements += [Disagreement(example_id, *fault) for fault in _faults_of(row)]
            if "original" in pixels and not row["valid"] and not np.array_equal(pixels["image"][i], originals[i]):
                wanted = "the original, as the row is invalid"
                disagreements.append(Disagreement(example_id, "image", "another image", wanted))
        done += len(batch["id"])
        report("verify", done, rows)
    return rows, disagreements


def _outputs(
    pixels: np.ndarray, originals: np.ndarray, batch: _Batch, judges: ClassifierAndOracle, device: torch.device | str
) -> dict[str, Tensor]:
    """Return the oracle's verdicts, predictions and losses [B] by column."""
    images, labels = to_batch(pixels, device), torch.tensor(batch["label"], device=device)
    logits = logits_of(judges.classifier, images)
    verdicts, _ = judgement_of(judges.oracle, images, Originals(to_batch(originals, device), labels))
    other_labels = None
    if "accepted_labels" in batch:
        accepted = [row[1:] for row in batch["accepted_labels"]]
        other_labels = also_of(accepted, logits.shape[1]).to(device)
    return verdicts | {"prediction": logits.argmax(1), "loss": loss(logits, labels, other_labels)}


def _compare_members(batch: _Batch, names: tuple[str, ...], by_member: dict[str, Tensor]) -> list[Disagreement]:
    """Compare the verdicts of a panel's members, [B, M] each, with those in the column `judges`."""
    disagreements = []
    comparable = []  # rows of the batch with the verdicts of these members
    for i, verdicts in enumerate(batch["judges"] if names else ()):
        stored_names = tuple(verdict["name"] for verdict in verdicts)
        if stored_names == names:
            comparable.append(i)
        else:
            disagreements.append(Disagreement(batch["id"][i], "judges", stored_names, names))
    ids = [batch["id"][i] for i in comparable]
    for field, values in by_member.items():
        key = field.removeprefix("member_")
        for place, name in enumerate(names):
            column = f"judges: {key} of {name}"
            stored = [batch["judges"][i][place][key] for i in comparable]
            disagreements += _compare({"id": ids, column: stored}, column, values[comparable, place])
    return disagreements


def _compare(batch: _Batch, column: str, values: Tensor) -> list[Disagreement]:
    """Compare a stored column with its values [B] now."""
    stored, now = np.asarray(batch[column]), values.cpu().numpy()
    if np.issubdtype(stored.dtype, np.floating):
        is_same = np.isclose(now, stored, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
    else:
        is_same = now == stored
    return [Disagreement(batch["id"][i], column, stored[i].item(), now[i].item()) for i in np.flatnonzero(~is_same)]


def _faults_of(row: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield each column of a row that contradicts others, with its stored value and what would fit."""
    valid, iterations, reason = row["valid"], row["iterations"], row["stop_reason"]
    if not 0 <= reason < len(StopReason):
        yield "stop_reason", reason, f"one of 0 to {len(StopReason) - 1}"
    if valid != (iterations > 0):
        yield "valid", valid, f"iterations {iterations}"
    if "queries" in row and row["queries"] < iterations + 2:  # original, reconstruction and each step
        yield "queries", row["queries"], f"{iterations + 2} or more"
    if "attacks" in row and not are_whole(row["attacks"]):
        yield "attacks", "a missing part", "whole records"
        return
    yield from _faults_of_steps(row)
    if row.keys() >= {"attack", "attacks", "step_predictions"}:
        yield from _faults_of_attacks(row)


def _faults_of_steps(row: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield faults unless there is an entry for the reconstruction and each step, the last for the stored image."""
    most = entries = row["iterations"] + 1
    for steps, column in _STEPS.items():
        values = row.get(steps)
        if values is not None and len(values) != entries:
            yield steps, f"{len(values)} entries", f"{entries}"
        elif values is not None and column and row["valid"] and values[-1] != row[column]:
            yield steps, values[-1], row[column]
    controls = [len(row[name]) for name in ("control_predictions", "control_objectives") if name in row]
    if row.get("attacks"):
        most = len(row["attacks"][0]["predictions"])
    if controls and not (controls[0] == controls[-1] <= most):
        yield "control_predictions", f"{controls[0]} and {controls[-1]} entries", f"as many, and {most} at most"
    if "step_predictions" in row and row["step_predictions"][:1] != [row["reconstruction_prediction"]]:
        yield "step_predictions", row["step_predictions"][:1], [row["reconstruction_prediction"]]


def _faults_of_attacks(row: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield faults unless the image is of one of the attacks, and only the last of them fools the classifier."""
    number, records, stored = row["attack"], row["attacks"], row["step_predictions"]
    if not 0 <= number < len(records):
        yield "attack", number, f"one of 0 to {len(records) - 1}"
        return
    predictions = records[number]["predictions"][: row["iterations"] + 1]
    if predictions != stored:
        yield "attacks", predictions, stored
    right = set(row.get("accepted_labels", [row["label"]]))
    fools = [not right.issuperset(record["predictions"][1:]) for record in records]
    if any(fools[:-1]) or fools[-1] != (row["valid"] and row["prediction"] not in right):
        yield "attacks", f"fooled by {fools.count(True)}", "by the last alone, or none"
