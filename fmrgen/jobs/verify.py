"""Verify a split: judge and classify every stored image again, and compare with the stored values."""

from collections.abc import Collection
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
        if loaded[name] == recorded_sha256:
            continue
        if name == "classifier" and recorded_sha256 in digests_of(judges.classifier) - {None}:  # in a wrapper
            continue
        if replacement is None:
            raise UserError(f"{split}: the recipe now loads other {name} weights than when the split was generated")
        raise UserError(f"{split}: the {name} has other weights than when the split was generated ({NEW_WEIGHTS})")
    return judges, loaded, recipe


def _verify_rows(
    opened: Split,
    provenance: Provenance,
    judges: ClassifierAndOracle,
    device: torch.device | str,
) -> tuple[int, list[Disagreement]]:
    rows, schema = provenance.rows, provenance.row_schema
    if judges.oracle.needs_originals and "original" not in opened.image_columns:
        raise UserError(f"{opened.name}: has no originals (output.keep_original), and its oracle compares with them")
    if not rows:
        return 0, []
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
        if schema.judges:
            disagreements += _compare_members(batch, schema.judges, by_member)
        if "pixel_shift" in batch and "original" in pixels:
            change = torch.from_numpy((pixels["image"].astype(np.float64) - originals) / 255)
            disagreements += _compare(batch, "pixel_shift", change.square().mean((1, 2, 3)).sqrt())
        disagreements += _check_reasons_and_invalid_rows(batch, pixels)
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
    for i, verdicts in enumerate(batch["judges"]):
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


def _check_reasons_and_invalid_rows(batch: _Batch, pixels: dict[str, np.ndarray]) -> list[Disagreement]:
    """Check that reasons to stop exist, and that invalid rows have taken no step, so that their images are the
    originals."""
    wrong = []
    for i, example_id in enumerate(batch["id"]):
        reason, valid, iterations = batch["stop_reason"][i], batch["valid"][i], batch["iterations"][i]
        if not 0 <= reason < len(StopReason):
            wrong.append(Disagreement(example_id, "stop_reason", reason, f"one of 0 to {len(StopReason) - 1}"))
        if valid != (iterations > 0):
            wrong.append(Disagreement(example_id, "valid", valid, f"iterations {iterations}"))
        if "queries" in batch and batch["queries"][i] < iterations + 2:  # original, reconstruction and each step
            wrong.append(Disagreement(example_id, "queries", batch["queries"][i], f"{iterations + 2} or more"))
        if "attacks" in batch and not are_whole(batch["attacks"][i]):
            wrong.append(Disagreement(example_id, "attacks", "a missing part", "whole records"))
        else:
            wrong += _check_steps(batch, i)
            if batch.keys() >= {"attack", "attacks", "step_predictions"}:
                wrong += _check_attacks(batch, i)
        if not valid and "original" in pixels and not np.array_equal(pixels["image"][i], pixels["original"][i]):
            wrong.append(Disagreement(example_id, "image", "another image", "the original, as the row is invalid"))
    return wrong


def _check_attacks(batch: _Batch, i: int) -> list[Disagreement]:
    """Check that the image of row `i` is of one of its attacks, and that only the last of them fools the classifier."""
    example_id, number, records = batch["id"][i], batch["attack"][i], batch["attacks"][i]
    if not 0 <= number < len(records):
        return [Disagreement(example_id, "attack", number, f"one of 0 to {len(records) - 1}")]
    wrong = []
    predictions, entries = records[number]["predictions"], batch["iterations"][i] + 1
    if predictions[:entries] != batch["step_predictions"][i]:
        wrong.append(Disagreement(example_id, "attacks", predictions[:entries], batch["step_predictions"][i]))
    right = set(batch["accepted_labels"][i]) if "accepted_labels" in batch else {batch["label"][i]}
    fools = [not right.issuperset(record["predictions"][1:]) for record in records]
    if any(fools[:-1]) or fools[-1] != (batch["valid"][i] and batch["prediction"][i] not in right):
        wrong.append(
            Disagreement(example_id, "attacks", f"fooled by {fools.count(True)}", "by the last alone, or none")
        )
    return wrong


def _check_steps(batch: _Batch, i: int) -> list[Disagreement]:
    """Check that row `i` has an entry for the reconstruction and each step, the last for the stored image."""
    wrong = []
    example_id, entries = batch["id"][i], batch["iterations"][i] + 1
    for steps, column in _STEPS.items():
        if steps not in batch:
            continue
        values = batch[steps][i]
        if len(values) != entries:
            wrong.append(Disagreement(example_id, steps, f"{len(values)} entries", f"{entries}"))
        elif column and batch["valid"][i] and values[-1] != batch[column][i]:
            wrong.append(Disagreement(example_id, steps, values[-1], batch[column][i]))
    controls = [batch[name][i] for name in ("control_predictions", "control_objectives") if name in batch]
    most = entries
    if "attacks" in batch and batch["attacks"][i]:
        most = len(batch["attacks"][i][0]["predictions"])
    if controls and not (len(controls[0]) == len(controls[-1]) <= most):
        stored = f"{len(controls[0])} and {len(controls[-1])} entries"
        wrong.append(Disagreement(example_id, "control_predictions", stored, f"as many, and {most} at most"))
    if "step_predictions" in batch:
        first, reconstruction = batch["step_predictions"][i][:1], [batch["reconstruction_prediction"][i]]
        if first != reconstruction:
            wrong.append(Disagreement(example_id, "step_predictions", first, reconstruction))
    return wrong
