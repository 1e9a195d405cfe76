"""Whether a split tells the truth: every stored image judged and classified again."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fmrgen.classifiers.base import has_weights
from fmrgen.config import StrictConfig
from fmrgen.engine.images import as_float32, to_batch
from fmrgen.engine.interfaces import Oracle, Originals
from fmrgen.engine.models import OF_MEMBERS, judged
from fmrgen.engine.objectives import also_of, loss
from fmrgen.errors import UserError, option
from fmrgen.recipe.build import ClassifierAndOracle, blank_image, build_classifier_and_oracle, component_errors
from fmrgen.recipe.objects import classifier_section, oracle_section
from fmrgen.recipe.sections import ClassifierField, OracleField
from fmrgen.records import StopReason
from fmrgen.split.open import Split, open_own_split
from fmrgen.storage.provenance import NEW_WEIGHTS, Provenance
from fmrgen.storage.schema import IMAGES
from fmrgen.trust.code import changed_code, code_sha256
from fmrgen.trust.recipes import untrusted_config
from fmrgen.weights.digest import check_same_weights, weights_sha256

_BATCH = 64
_MOST_PIXELS = 1 << 25  # of the images of a batch, each of which takes 27 bytes on its way
_TOLERANCE = 1e-4  # of the oracle's score and probability and of the loss: float noise between batch sizes and devices


@dataclass(frozen=True)
class Disagreement:
    """A stored value that the stored image does not bear out."""

    id: int
    column: str
    stored: Any
    found: Any


@dataclass(frozen=True)
class Verification:
    """The outcome: how many of `rows` are true in every column, what is not, and what else is to be known."""

    rows: int
    disagreements: list[Disagreement]
    notes: list[str]

    @property
    def true_rows(self) -> int:
        return self.rows - len({entry.id for entry in self.disagreements})


class ModelsOfRecipe(StrictConfig):
    """The sections of what looks at images."""

    classifier: ClassifierField
    oracle: OracleField


def verify(
    split: str,
    *,
    classifier: nn.Module | None = None,
    oracle: Oracle | nn.Module | None = None,
    trust: bool = False,
    device: torch.device | str | None = None,
    on_rows: Callable[[int, int], None] = lambda done, rows: None,
) -> Verification:
    """Judges and classifies every stored image of a split again, with the oracle and the classifier of its recipe.

    Args:
        split: a reference, `PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]`.
        classifier: instead of the recipe's, where that was an object in memory; its weights must be the same.
        oracle: likewise.
        trust: let the recipe, which may be a stranger's, run the code and read the files and addresses that it names.
        device: of the models; a GPU where there is one.
        on_rows: called with (rows done, rows in all).

    Returns:
        How many rows are true, and what is not.

    Raises:
        UserError: the split or its models can't be loaded, or are not the ones that made it.
    """
    opened, provenance = open_own_split(split)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    judges, loaded, recipe = load_judges(
        split, provenance, classifier=classifier, oracle=oracle, trust=trust, device=device
    )
    rows, disagreements = _verify_rows(opened, provenance, judges, device, on_rows)
    for name, judge in judges._asdict().items():
        check_same_weights(name, judge, loaded[name])
    changed = changed_code(provenance.code_sha256, code_sha256(recipe))
    notes = [f"the code in {', '.join(changed)} is not the code that made the split"] if changed else []
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
    """The classifier and the oracle that made a split, by the recipe in its provenance, or those given instead; the
    sha256 of their weights, by name, and their sections.

    Raises UserError where they can't be loaded, or are not the ones that made it, but for those that `may_differ`.
    """
    recorded = provenance.recipe
    tree: dict[str, Any] = {"classifier": dict(recorded.classifier.tree), "oracle": recorded.oracle.tree}
    if provenance.rows_version == 1 and tree["classifier"].get("kind") in ("module", "cifar"):
        tree["classifier"].setdefault("interpolation", "bilinear")  # as these resized then
    if classifier is not None:
        tree["classifier"] = classifier_section(classifier)
    if oracle is not None:
        tree["oracle"] = oracle_section(oracle)
    what = f"{split}: the recipe in its provenance"
    recipe = untrusted_config(
        ModelsOfRecipe, tree, what, trust=trust, cure=f"if you trust it, use {option('trust', 'trust=True')}"
    )
    labels = provenance.job_labels
    blank = blank_image(provenance.image_size, device)
    judges = build_classifier_and_oracle(recipe.classifier, recipe.oracle, labels, blank)
    loaded = {name: weights_sha256(judge) for name, judge in judges._asdict().items()}
    for name, given in {"classifier": classifier, "oracle": oracle}.items():
        recorded_sha256 = getattr(provenance.weights_sha256, name)
        same = loaded[name] == recorded_sha256
        if name == "classifier" and recorded_sha256 is not None:
            same = has_weights(judges.classifier, recorded_sha256)
        if not same and name not in may_differ:
            whose = f"the recipe now loads other {name} weights" if given is None else f"the {name} has other weights"
            cure = "" if given is None else f" ({NEW_WEIGHTS})"
            raise UserError(f"{split}: {whose} than those that made the split{cure}")
    return judges, loaded, recipe


def _verify_rows(
    opened: Split,
    provenance: Provenance,
    judges: ClassifierAndOracle,
    device: torch.device | str,
    on_rows: Callable[[int, int], None],
) -> tuple[int, list[Disagreement]]:
    rows, schema = provenance.rows, provenance.row_schema
    columns = [name for name in IMAGES if name in opened.features]
    if judges.oracle.needs_originals and "original" not in columns:
        raise UserError(f"{opened.name}: has no originals (output.keep_original), and its oracle compares with them")
    disagreements: list[Disagreement] = []
    done = 0
    batch_size = max(1, min(_BATCH, _MOST_PIXELS // provenance.image_size**2))
    for batch in opened.batches(batch_size, columns) if rows else ():
        check_no_gaps(opened.name, batch, len(provenance.labels))
        pixels = {name: opened.pixels(batch, name) for name in columns}
        originals = pixels.get("original", pixels["image"])
        found = _measure(pixels["image"], originals, batch, "", judges, device)
        if "original" in pixels:
            found |= _measure(originals, originals, batch, "original_", judges, device)
        members = {name: found.pop(name) for name in OF_MEMBERS if name in found}
        for field, values in found.items():
            disagreements += _compare(batch, schema.name_of(field), values)
        if schema.judges:
            disagreements += _compare_members(batch, schema.judges, members)
        if "pixel_shift" in batch and "original" in pixels:
            disagreements += _compare(batch, "pixel_shift", _pixel_shift(pixels))
        disagreements += _check_reasons_and_invalid_rows(batch, pixels)
        done += len(batch["id"])
        on_rows(done, rows)
    return rows, disagreements


def check_no_gaps(name: str, batch: dict[str, list[Any]], labels: int) -> None:
    """Raises UserError where a row of a batch of the split `name` lacks a value, or has none of so many labels."""
    for i, example_id in enumerate(batch["id"]):
        for column, values in batch.items():
            if values[i] is None:
                raise UserError(f"{name}: id {example_id}: has no {column}; every row needs one")
        accepted = batch.get("accepted_labels", {i: [batch["label"][i]]})[i]
        if accepted[:1] != [batch["label"][i]]:
            raise UserError(f"{name}: id {example_id}: its accepted_labels do not begin with its label")
        if wrong := [label for label in accepted if label is None or not 0 <= label < labels]:
            raise UserError(f"{name}: id {example_id}: label {wrong[0]} is not one of the {labels} classes")


def _measure(
    pixels: np.ndarray,
    originals: np.ndarray,
    batch: dict[str, list[Any]],
    prefix: str,
    judges: ClassifierAndOracle,
    device: torch.device | str,
) -> dict[str, Tensor]:
    images = to_batch(pixels, device)
    labels = torch.tensor(batch["label"], device=device)
    with torch.no_grad():
        with component_errors("classifier", images):
            logits = as_float32(judges.classifier(images.clone()))
        with component_errors("oracle", images):
            said, _ = judged(judges.oracle, images, Originals(to_batch(originals, device), labels))
    if prefix:
        return {f"{prefix}prediction": logits.argmax(1), f"{prefix}oracle_label": said["oracle_label"]}
    several = batch.get("accepted_labels")
    others = None if several is None else also_of([of_row[1:] for of_row in several], logits.shape[1]).to(device)
    return said | {"prediction": logits.argmax(1), "loss": loss(logits, labels, others)}


def _pixel_shift(pixels: dict[str, np.ndarray]) -> Tensor:
    change = (pixels["image"].astype(np.float64) - pixels["original"]) / 255
    return torch.from_numpy(np.sqrt(np.square(change).mean((1, 2, 3))))


def _compare_members(
    batch: dict[str, list[Any]], names: tuple[str, ...], found: dict[str, Tensor]
) -> list[Disagreement]:
    """What differs of the verdicts of a panel's members, [B, M] each, from those in the column `judges`."""
    found_names = [tuple(verdict["name"] for verdict in of_row) for of_row in batch["judges"]]
    wrong = [
        Disagreement(batch["id"][i], "judges", of_row, names) for i, of_row in enumerate(found_names) if of_row != names
    ]
    right = [i for i, of_row in enumerate(found_names) if of_row == names]
    for part, values in found.items():
        for place, name in enumerate(names):
            key = part.removeprefix("member_")
            column = f"judges: {key} of {name}"
            stored = {
                "id": [batch["id"][i] for i in right],
                column: [batch["judges"][i][place][key] for i in right],
            }
            wrong += _compare(stored, column, values[right, place])
    return wrong


def _compare(batch: dict[str, list[Any]], column: str, found: Tensor) -> list[Disagreement]:
    stored, now = np.asarray(batch[column]), found.cpu().numpy()
    if np.issubdtype(stored.dtype, np.floating):
        same = np.isclose(now, stored, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
    else:
        same = now == stored
    return [Disagreement(batch["id"][i], column, stored[i].item(), now[i].item()) for i in np.flatnonzero(~same)]


def _check_reasons_and_invalid_rows(batch: dict[str, list[Any]], pixels: dict[str, np.ndarray]) -> list[Disagreement]:
    """There are so many reasons to stop; an invalid row has taken no step, and its image is the original."""
    wrong = []
    for i, example_id in enumerate(batch["id"]):
        if not 0 <= (reason := batch["stop_reason"][i]) < len(StopReason):
            wrong.append(Disagreement(example_id, "stop_reason", reason, f"one of 0 to {len(StopReason) - 1}"))
        valid, iterations = batch["valid"][i], batch["iterations"][i]
        if valid != (iterations > 0):
            wrong.append(Disagreement(example_id, "valid", valid, f"iterations {iterations}"))
        if "queries" in batch and batch["queries"][i] < iterations + 2:  # original, reconstruction and each step
            wrong.append(Disagreement(example_id, "queries", batch["queries"][i], f"{iterations + 2} or more"))
        wrong += _check_steps(batch, i)
        if not valid and "original" in pixels and not np.array_equal(pixels["image"][i], pixels["original"][i]):
            wrong.append(Disagreement(example_id, "image", "another image", "the original, as the row is invalid"))
    return wrong


def _check_steps(batch: dict[str, list[Any]], i: int) -> list[Disagreement]:
    """A row has an entry for the reconstruction and each step; the last is that of the stored image."""
    wrong = []
    for steps, column in (
        ("step_predictions", "prediction"),
        ("step_losses", "loss"),
        ("step_oracle_probabilities", None),
        ("step_objectives", None),
    ):
        if steps not in batch:
            continue
        values, iterations = batch[steps][i], batch["iterations"][i]
        if len(values) != iterations + 1:
            wrong.append(Disagreement(batch["id"][i], steps, f"{len(values)} entries", f"{iterations + 1}"))
        elif column and batch["valid"][i] and values[-1] != batch[column][i]:
            wrong.append(Disagreement(batch["id"][i], steps, values[-1], batch[column][i]))
    controls = [batch[name][i] for name in ("control_predictions", "control_objectives") if name in batch]
    if controls and not (len(controls[0]) == len(controls[-1]) <= batch["iterations"][i] + 1):
        values = f"{len(controls[0])} and {len(controls[-1])} entries"
        at_most = f"as many, and {batch['iterations'][i] + 1} at most"
        wrong.append(Disagreement(batch["id"][i], "control_predictions", values, at_most))
    if "step_predictions" in batch and batch["step_predictions"][i][:1] != [batch["reconstruction_prediction"][i]]:
        found = batch["reconstruction_prediction"][i]
        wrong.append(Disagreement(batch["id"][i], "step_predictions", batch["step_predictions"][i][:1], [found]))
    return wrong
