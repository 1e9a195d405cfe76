"""The images in flight: their state, row by row, and how it changes in one pass."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fmrgen.engine.images import to_bytes
from fmrgen.engine.interfaces import Latents, Originals
from fmrgen.engine.options import PerturbOptions
from fmrgen.records import AttackRecord, Perturbed, StopReason

# Many slots shrink to 16, 24, 32, … as the last images end: with other numbers kernels round last bits differently.
_FEWEST, _MULTIPLE = 16, 8
_REASONS = tuple(StopReason)
_UNFINISHED = -1  # instead of the index of a reason
OF_LOGITS = ("prediction", "loss", "objective", "margin")  # measures of an image that the classifier's logits give
PARTS = ("generator", "classifier", "oracle", "gradient")  # whose values may not be finite
_NO_FAULT = -1
_LABELS = ("oracle_label", "prediction")
_COLUMNS = (
    *("id", "fault", "label", "accepted", "stored", "queries", "latent_shift"),
    *("score", "probability", "loss", "margin"),
    *("oracle_label", "original_oracle_label", "reconstruction_oracle_label", "rejected_oracle_label"),
    *("prediction", "original_prediction", "reconstruction_prediction", "rejected_prediction"),
)
_TENSORS = ("image", "original", "initial_free", "latent", "also_true")  # columns that do not become lists

Rows = dict[str, Tensor]  # columns of images that wait for a slot, [n, …] each
OptionalColumns = dict[str, Tensor]  # those of `OPTIONAL` that the rows have
# Classes that are true besides the label, bool [S, K]; the class that the image should be mistaken for, [S]; and the
# place, among the objectives, of the one that is climbed, [S].
OPTIONAL = ("also_true", "target_class", "objective_number")
# Returns the columns [B, …] with which rows begin an attack, given its number, their latents [B, …] and their ids.
AttackColumns = Callable[[int, Tensor, Sequence[int]], Rows]


# Measures that are stored for every step of a row, with the column that they are in.
_OF_STEPS = {
    "prediction": "step_predictions",
    "loss": "step_losses",
    "objective": "step_objectives",
    "target_probability": "step_oracle_probabilities",
}

# Measures of the stored image by each member of a panel, [S, M], with the list that they become in a row.
OF_MEMBERS = {
    "member_label": "member_labels",
    "member_probability": "member_probabilities",
    "member_score": "member_scores",
}


@dataclass
class PassOutput:
    """The output of one pass over the slots."""

    images: Tensor  # [S, 3, H, W] in [0, 1] on the 8-bit grid
    measures: dict[str, Tensor]  # of the images, [S] each
    accepted: Tensor  # whether the oracle accepts them, [S]
    target_probability: Tensor  # the oracle's probability of its target, [S]
    fault: Tensor  # index of the first of `PARTS` that is not finite, -1 if all are, [S]
    gradient: Tensor  # of the objective, [S, …]

    @property
    def finite(self) -> Tensor:
        """Whether images and measures are finite, [S]."""
        return self.fault == _NO_FAULT


def new_rows(
    latents: Latents,
    originals: Tensor,
    ids: list[int],
    labels: Tensor,
    target: Tensor,
    measures: dict[str, Tensor],
    controlled: list[bool],
    budget: int,
    keep_latents: bool,
) -> Rows:
    """Return the state of images before their first pass: the stored image is the original, as none is accepted yet.

    `latents` and `measures` are of `originals`, [B, 3, H, W] in [0, 1]; `target` [B] is the label that the oracle must
    see. `controlled` says for each row whether random steps follow, and `budget` is the most steps of a row. With
    `keep_latents` the latents of the stored image are stored too.
    """
    count, device = len(ids), originals.device
    rows = {"free": latents.free, "initial_free": latents.free.clone(), "label": labels, "target": target}
    rows["id"] = torch.tensor(ids, device=device)
    if latents.fixed is not None:
        rows["fixed"] = latents.fixed
    if keep_latents:
        rows["latent"] = latents.free.clone()  # of the stored image
    rows |= {"original": originals, "image": originals, **measures}
    for name in _LABELS:
        rows[f"original_{name}"] = measures[name]
        rows[f"reconstruction_{name}"] = torch.full_like(measures[name], -1)
        rows[f"rejected_{name}"] = torch.full_like(measures[name], -1)
    step_measures = {**measures, "target_probability": measures["probability"]}
    for name, column in _OF_STEPS.items():
        rows[column] = step_measures[name].new_zeros(count, budget + 1)
    rows["accepted"] = torch.zeros(count, dtype=torch.int64, device=device)  # steps
    rows["stored"] = torch.zeros_like(rows["accepted"])  # steps in the stored image
    rows["budget"] = torch.full_like(rows["accepted"], budget)
    rows["queries"] = torch.ones_like(rows["accepted"])  # one about the original
    rows["controlled"] = torch.tensor(controlled, device=device)  # random steps follow the guided ones
    rows["by_chance"] = torch.zeros_like(rows["controlled"])  # the steps are the random ones
    rows["first_pass"] = torch.ones(count, dtype=torch.bool, device=device)  # not decoded yet: pass 0
    rows["gradient_only"] = torch.ones(count, dtype=torch.bool, device=device)  # decoded for its gradient, not judged
    rows["fault"] = torch.full_like(rows["accepted"], _NO_FAULT)
    rows["latent_shift"] = torch.zeros(count, dtype=latents.free.dtype, device=device)
    return rows


class Slots:
    """One tensor [S, …] for each quantity, one row for each slot; an empty slot holds a copy of some real row."""

    def __init__(self, size: int, shrinks: bool, attacks: int, holds_all: bool = False) -> None:
        self.size, self.shrinks, self.attacks = size, shrinks, attacks
        self.fewest, self.multiple = (_FEWEST, _MULTIPLE) if size > _FEWEST else (1, 1)
        if holds_all:  # processes that share a few images, or generate some anew, must get the same last bits
            self.fewest = min(size, _FEWEST)
        self.occupied = [False] * size
        self._mask: tuple[list[bool], Tensor] | None = None
        self.rows: dict[str, Tensor] = {}
        self.waiting: list[Rows] = []  # encoded, or in flight when memory ran out
        self.results: dict[int, list[Perturbed]] = {}  # by id: of the attacks that are over, of rows in flight
        self.recorded = torch.zeros(size, dtype=torch.bool)  # whether the last pass recorded a step, [S]

    def __getitem__(self, name: str) -> Tensor:
        return self.rows[name]

    @property
    def active(self) -> int:
        return sum(self.occupied)

    @property
    def latents(self) -> Latents:
        return Latents(self["free"], self.rows.get("fixed"))

    @property
    def optional(self) -> OptionalColumns:
        return {name: self.rows[name] for name in OPTIONAL if name in self.rows}

    @property
    def originals(self) -> Originals:
        return Originals(self["original"], self["label"])

    def refill(self, queue: Iterator[Rows]) -> None:
        """Put waiting rows into empty slots; if too few are left to fill them, shrink."""
        empty = [slot for slot in range(self.size) if not self.occupied[slot]]
        while empty:
            rows = self.waiting.pop() if self.waiting else next(queue, None)
            if rows is None:
                break
            count = min(len(empty), len(rows["id"]))
            self._put(rows, empty[:count])
            empty = empty[count:]
        if empty and self.shrinks:
            self._shrink()

    def _put(self, rows: Rows, slots: list[int]) -> None:
        """Put the first of `rows` into `slots`; the others wait."""
        index, count = torch.tensor(slots, device=rows["id"].device), len(slots)
        for name, values in rows.items():
            if name not in self.rows:
                self.rows[name] = values[:1].expand(self.size, *values.shape[1:]).clone()
            self.rows[name][index] = values[:count]
        for slot in slots:
            self.occupied[slot] = True
        if count < len(rows["id"]):
            self.waiting.append(_select(rows, slice(count, None)))

    def _shrink(self) -> None:
        """Give up empty slots, down to the next multiple above the occupied ones."""
        multiples = -(-self.active // self.multiple)  # rounded up
        size = max(self.fewest, multiples * self.multiple)
        if size < self.size:
            occupied_first = sorted(range(self.size), key=lambda slot: not self.occupied[slot])
            self._keep(occupied_first[:size])

    def halve(self) -> None:
        """Give up half the slots, as memory is short; their rows wait."""
        half = self.size // 2
        displaced = [slot for slot in range(half, self.size) if self.occupied[slot]]
        if displaced:
            self.waiting.append(_select(self.rows, displaced))
        self._keep(list(range(half)))

    def _keep(self, slots: list[int]) -> None:
        self.rows = _select(self.rows, slots)
        self.occupied = [self.occupied[slot] for slot in slots]
        self.size = len(slots)

    def accept(self, output: PassOutput, options: PerturbOptions) -> tuple[list[StopReason | None], Tensor]:
        """Store what the oracle accepted. Return why each slot ends (None: it goes on) and which rows step, [S]."""
        rows, measures = self.rows, output.measures
        rows["queries"] = rows["queries"] + ~rows["by_chance"]
        gradient_only = rows["gradient_only"]
        for name in _LABELS:
            column = f"reconstruction_{name}"
            rows[column] = torch.where(rows["first_pass"], measures[name], rows[column])
        accepted = ~gradient_only & output.accepted & output.finite
        rows["accepted"] = rows["accepted"] + accepted
        self._store(self._worth_storing(accepted, measures), output)
        self.recorded = rows["first_pass"] | accepted
        self._record(self.recorded, {**measures, "target_probability": output.target_probability})

        steps_now = gradient_only if options.reencode else torch.ones_like(gradient_only)
        codes = self._reason_codes(output, accepted, steps_now, options)
        rows["first_pass"] = torch.zeros_like(rows["first_pass"])
        moving = steps_now & (codes == _UNFINISHED) & self._occupied_mask(codes.device)
        rows["gradient_only"] = ~moving
        ends: list[StopReason | None] = []
        for code, occupied in zip(codes.tolist(), self.occupied, strict=True):
            ends.append(_REASONS[code] if occupied and code != _UNFINISHED else None)
        return ends, moving

    def recorded_steps(self, images: Tensor) -> Iterator[tuple[int, int, int, Tensor]]:
        """Yield the guided steps that the last pass recorded: id of the example, attack, step, and image, uint8.

        `images` are those of the pass, [S, 3, H, W] in [0, 1].
        """
        rows = self.rows
        wanted = self.recorded & ~rows["by_chance"] & self._occupied_mask(self.recorded.device)
        slots = wanted.nonzero().flatten()
        columns = [rows[name][slots].tolist() for name in ("id", "attack", "accepted")]
        yield from zip(*columns, to_bytes(images[slots]), strict=True)

    def _worth_storing(self, accepted: Tensor, measures: dict[str, Tensor]) -> Tensor:
        """Return which of the accepted images [S] are stored: all, or of several attacks those worse than the stored.

        Worse is one that fools the classifier where the stored one does not, or else one of a higher margin.
        """
        if self.attacks == 1:
            return accepted
        rows = self.rows
        fools, fooled = self._fooled(measures), self._fooled(rows)
        is_worse = (fools & ~fooled) | ((fools == fooled) & (measures["margin"] > rows["margin"]))
        return accepted & ((rows["stored"] == 0) | is_worse)

    def _store(self, written: Tensor, output: PassOutput) -> None:
        """Store the images of the slots `written` [S], with their measures and latents."""
        rows = self.rows
        shift = (rows["free"] - rows["initial_free"]).flatten(1).square().mean(1).sqrt()
        stored = {**output.measures, "image": output.images, "latent_shift": shift, "stored": rows["accepted"]}
        if "latent" in rows:
            stored["latent"] = rows["free"]
        for name, values in stored.items():
            rows[name] = torch.where(as_column(written, values), values, rows[name])

    def _reason_codes(self, output: PassOutput, accepted: Tensor, steps_now: Tensor, options: PerturbOptions) -> Tensor:
        """Return the index of the reason for which each slot ends, [S]; `_UNFINISHED` where it goes on.

        Records the fault of slots whose values are not finite, and the labels of images that the oracle rejects.
        """
        rows, measures = self.rows, output.measures
        follows = steps_now & ~rows["by_chance"] & rows["follows_gradient"]
        lost = follows & ~all_finite(output.gradient)
        rows["fault"] = output.fault.masked_fill(output.finite & lost, PARTS.index("gradient"))
        stuck = follows & (output.gradient == 0).flatten(1).all(1)
        spent = accepted & (rows["accepted"] == rows["budget"])
        reached = accepted & (measures["objective"] > 0) & self._fooled(measures) & ~rows["by_chance"]
        reached &= options.keep == "first"
        refused = ~rows["gradient_only"] & ~output.accepted
        for name in _LABELS:
            column = f"rejected_{name}"
            rows[column] = torch.where(refused & output.finite, measures[name], rows[column])
        never = refused & (rows["accepted"] == 0)
        codes = torch.full_like(rows["accepted"], _UNFINISHED)
        # A later reason overrides an earlier one: numbers that are not finite decide before the oracle does.
        for reason, ended in (
            (StopReason.STUCK, stuck),
            (StopReason.NONFINITE, lost),
            (StopReason.BUDGET, spent),
            (StopReason.REACHED, reached),
            (StopReason.ORACLE, refused),
            (StopReason.REJECTED, never),
            (StopReason.NONFINITE, ~output.finite),
        ):
            codes = codes.masked_fill(ended, _REASONS.index(reason))
        return codes

    def _occupied_mask(self, device: torch.device) -> Tensor:
        """Return which slots hold an image, [S]. The copies in empty slots would query the classifier without end."""
        if self._mask is None or self._mask[0] != self.occupied:
            self._mask = [*self.occupied], torch.tensor(self.occupied, device=device)
        return self._mask[1]

    def _fooled(self, measures: Mapping[str, Tensor]) -> Tensor:
        """Return whether the classifier's predictions are wrong, [S]."""
        predictions = measures["prediction"]
        fooled = predictions != self["label"]
        if "also_true" in self.rows:
            fooled &= ~self["also_true"].gather(1, predictions.unsqueeze(1)).squeeze(1)
        return fooled

    def _record(self, written: Tensor, measures: dict[str, Tensor]) -> None:
        """Write the measures of the last step of the slots `written` [S]."""
        budget = self["step_losses"].shape[1] - 1
        entry = self["accepted"].clamp(max=budget).unsqueeze(1)  # an empty slot may count on
        for name, column in _OF_STEPS.items():
            recorded = self[column].gather(1, entry).squeeze(1)
            self[column].scatter_(1, entry, torch.where(written, measures[name], recorded).unsqueeze(1))

    def correct_stored_entry(self, slots: list[int]) -> None:
        """Overwrite the entries of the stored images of `slots` by their measures, which were taken again."""
        stored = self["stored"][slots]
        for name, column in _OF_STEPS.items():
            if name in OF_LOGITS:
                steps = self[column]
                steps[slots, stored] = torch.where(stored > 0, self[name][slots], steps[slots, stored])

    def move(self, direction: Tensor, moving: Tensor, project: Callable[[Latents, Tensor], Tensor]) -> None:
        """Move latents by one step. Rows of the control go in their random direction; a first step adds start noise.

        `direction` is [S, …], and `moving` [S] says which rows move. `project` puts the moved latents where they
        belong, given the latents that they began with.
        """
        if "random_signs" in self.rows:
            direction = torch.where(as_column(self["by_chance"], direction), self["random_signs"], direction)
        delta = as_column(self["step_size"], direction) * direction
        if "start_noise" in self.rows:
            noise = self["start_noise"]
            delta = delta + noise.where(as_column(self["accepted"] == 0, noise), 0.0)
        moved = project(Latents(self["free"] + delta, self.rows.get("fixed")), self["initial_free"])
        self.rows["free"] = torch.where(as_column(moving, delta), moved, self["free"])

    def going_on(self, ends: list[StopReason | None]) -> list[int]:
        """Return the slots whose image does not end."""
        return [slot for slot in range(self.size) if self.occupied[slot] and ends[slot] is None]

    def pop_finished(self, ends: list[StopReason | None], attack_columns: AttackColumns) -> Iterator[list[Perturbed]]:
        """Yield the results of all attacks on each finished example, and free its slot.

        A row whose attack ends keeps its slot for the random steps of a control, and for the next attack unless this
        one fools the classifier.
        """
        finished = [(slot, reason) for slot, reason in enumerate(ends) if reason is not None]
        if not finished:
            return
        columns = self._finished_columns([slot for slot, _ in finished])
        lists = {name: values.tolist() for name, values in columns.items() if name not in _TENSORS}
        for row, (slot, reason) in enumerate(finished):
            values = {name: column[row] for name, column in lists.items()}
            values |= {name: columns[name][row] for name in _TENSORS if name in columns}
            controlled, by_chance = values.pop("controlled"), values.pop("by_chance")
            results = self.results.setdefault(values["id"], [])
            if by_chance:
                entries = values["accepted"] + 1
                predictions, objectives = values["step_predictions"][:entries], values["step_objectives"][:entries]
                results[0] = replace(results[0], control_predictions=predictions, control_objectives=objectives)
            else:
                results.append(self._result(values, reason))
                if controlled and len(results) == 1 and results[0].valid:
                    self._step_by_chance(slot)
                    continue
            last = results[-1]
            is_fooled = last.valid and not last.accepts(last.prediction)
            if len(results) < self.attacks and not is_fooled:
                self._begin_attack(slot, len(results), attack_columns)
                continue
            self.occupied[slot] = False
            yield self.results.pop(last.id)

    def _result(self, values: dict[str, Any], reason: StopReason) -> Perturbed:
        """Return the result of an attack, given the columns of its row."""
        iterations, entries = values.pop("stored"), values.pop("accepted") + 1
        steps = {column: values[column][:entries] for column in _OF_STEPS.values()}
        for column, step_values in steps.items():
            values[column] = step_values[: iterations + 1]
        if self.attacks > 1:
            record = AttackRecord(
                stop_reason=reason,
                predictions=steps["step_predictions"],
                objectives=steps["step_objectives"],
                oracle_probabilities=steps["step_oracle_probabilities"],
                rejected_prediction=values["rejected_prediction"],
            )
            values["attacks"] = [record]
        fault = values.pop("fault")
        if reason is StopReason.NONFINITE:
            values["fault"] = PARTS[fault]
        if "latent" in values:
            values["latents"] = values.pop("initial_free"), values.pop("latent")
        if "also_true" in values:
            others = values.pop("also_true").nonzero().flatten().tolist()
            values["accepted_labels"] = [values["label"], *others]
        return Perturbed(valid=iterations > 0, iterations=iterations, stop_reason=reason, **values)

    def _finished_columns(self, slots: list[int]) -> dict[str, Tensor]:
        """Return all that the rows of `slots` need, [n, …] each, on the CPU."""
        index = torch.tensor(slots, device=self["id"].device)
        names = [*_COLUMNS, *_OF_STEPS.values(), "controlled", "by_chance"]
        if "latent" in self.rows:
            names += ["initial_free", "latent"]
        if "also_true" in self.rows:
            names.append("also_true")
        columns = {name: self[name][index] for name in names}
        for name, column in OF_MEMBERS.items():
            if name in self.rows:
                columns[column] = self[name][index]
        for name in ("image", "original"):
            columns[name] = to_bytes(self[name][index])
        return at_once(columns)

    def _step_by_chance(self, slot: int) -> None:
        """Restart the row of a slot, for at most as many random steps as it took guided ones."""
        self["budget"][slot] = self["accepted"][slot]
        self._restart(slot)
        self["by_chance"][slot] = True

    def _begin_attack(self, slot: int, number: int, attack_columns: AttackColumns) -> None:
        """Restart the row of a slot, for its attack `number`."""
        rows = slice(slot, slot + 1)
        for name, values in attack_columns(number, self["initial_free"][rows], self["id"][rows].tolist()).items():
            self[name][rows] = values
        if "target_classes" in self.rows:
            self["target_class"][rows] = self["target_classes"][rows, number]
        self["budget"][slot] = self["step_losses"].shape[1] - 1
        self["by_chance"][slot] = False
        self._restart(slot)

    def _restart(self, slot: int) -> None:
        """Take the row of a slot back to its encoding, with nothing accepted."""
        self["free"][slot] = self["initial_free"][slot]
        for name in ("accepted", "stored"):
            self[name][slot] = 0
        for name in ("first_pass", "gradient_only"):
            self[name][slot] = True
        self["fault"][slot] = _NO_FAULT
        for name in _LABELS:
            self[f"rejected_{name}"][slot] = -1


def _select(rows: Rows, index: slice | list[int]) -> Rows:
    return {name: values[index] for name, values in rows.items()}


def at_once(columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors [N, …], of any dtypes, on the CPU; they are copied together, to wait for the device once."""
    rows = []  # bytes [N, …]
    for values in columns.values():
        rows.append(values.reshape(len(values), -1).contiguous().view(torch.uint8))
    packed = torch.cat(rows, 1).cpu()
    parts = packed.split([values.shape[1] for values in rows], 1)
    unpacked = {}
    for (name, values), part in zip(columns.items(), parts, strict=True):
        unpacked[name] = part.clone(memory_format=torch.contiguous_format).view(values.dtype).view(values.shape)
    return unpacked


def as_column(mask: Tensor, values: Tensor) -> Tensor:
    """Return `mask` [S] in a shape that broadcasts over `values` [S, …]."""
    return mask.view(-1, *[1] * (values.ndim - 1))


def first_fault(*parts: Tensor) -> Tensor:
    """Return the index of the first of `PARTS` whose values [B, …] are not all finite, [B]; -1 if all are."""
    fault = torch.full((len(parts[0]),), _NO_FAULT, device=parts[0].device)
    for part in reversed(range(len(parts))):
        fault = fault.masked_fill(~all_finite(parts[part]), part)
    return fault


def all_finite(values: Tensor) -> Tensor:
    """Return whether each row is all finite, [S]. Only its extremes are checked, which is faster."""
    rows = values.reshape(len(values), -1)
    return rows.amax(1).isfinite() & rows.amin(1).isfinite()
