"""The images in flight: their state, row by row, and how it changes in one pass."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fmrgen.engine.images import to_bytes
from fmrgen.engine.interfaces import Latents, Originals
from fmrgen.engine.options import PerturbOptions
from fmrgen.records import Perturbed, StopReason

_FEWEST, _STEP = 16, 8  # of many slots, as the last images end: with other numbers kernels round last bits differently
_ENDS = tuple(StopReason)
_UNFINISHED = -1
OF_LOGITS = ("prediction", "loss", "objective")  # what a classifier's logits of an image come to
PARTS = ("generator", "classifier", "oracle", "gradient")  # what may be no number
_NO_FAULT = -1
_LABELS = ("oracle_label", "prediction")
_COLUMNS = (
    *("id", "fault", "label", "accepted", "queries", "latent_shift", "score", "probability", "loss", *_LABELS),
    *(f"{of}_{name}" for of in ("original", "reconstruction", "rejected") for name in _LABELS),
)

Rows = dict[str, Tensor]  # of images that wait for a slot, [n, …] each
Beside = dict[str, Tensor]  # of those columns that are there
_BESIDE = ("also", "aim")  # which classes are true besides the label [S, K], and which one is to be taken for true [S]


# What is kept of every step of a row, under `step_…`, and the column that it is in.
_OF_STEPS = {
    "prediction": "step_predictions",
    "loss": "step_losses",
    "objective": "step_objectives",
    "target_probability": "step_oracle_probabilities",
}

# What the members of a panel said of the stored image, [S, M], and the list of a row that it becomes.
_OF_MEMBERS = {
    "member_label": "member_labels",
    "member_probability": "member_probabilities",
    "member_score": "member_scores",
}


@dataclass
class PassOutput:
    """One pass over the slots: images [S, 3, H, W] in [0, 1] on the 8-bit grid, their measures [S], whether the oracle
    accepts them [S] and with what probability of its target, the gradient, and the first of `PARTS` that is not finite,
    [S]."""

    images: Tensor
    measures: dict[str, Tensor]
    accepted: Tensor
    target_probability: Tensor
    fault: Tensor
    gradient: Tensor

    @property
    def finite(self) -> Tensor:
        """Whether images and measures are numbers, [S]."""
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
    """The state of images before their first pass; nothing is accepted yet, so the stored image is the original."""
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
    for name, values in {**measures, "target_probability": measures["probability"]}.items():
        if name in _OF_STEPS:
            rows[_OF_STEPS[name]] = values.new_zeros(count, budget + 1)
    rows["accepted"] = torch.zeros(count, dtype=torch.int64, device=device)
    rows["budget"] = torch.full_like(rows["accepted"], budget)
    rows["queries"] = torch.ones_like(rows["accepted"])  # about the original
    rows["controlled"] = torch.tensor(controlled, device=device)  # random steps are to follow
    rows["by_chance"] = torch.zeros_like(rows["controlled"])  # and these they are
    rows["first_pass"] = torch.ones(count, dtype=torch.bool, device=device)  # not decoded yet: pass 0
    rows["gradient_only"] = torch.ones(count, dtype=torch.bool, device=device)  # decoded for its gradient, not judged
    rows["fault"] = torch.full_like(rows["accepted"], _NO_FAULT)
    rows["latent_shift"] = torch.zeros(count, dtype=latents.free.dtype, device=device)
    return rows


class Slots:
    """One tensor [S, …] for each quantity, one row for each slot; an empty slot holds a copy of some real row."""

    def __init__(self, size: int, shrinks: bool) -> None:
        self.size, self.shrinks = size, shrinks
        self.fewest, self.step = (_FEWEST, _STEP) if size > _FEWEST else (1, 1)
        self.occupied = [False] * size
        self._mask: tuple[list[bool], Tensor] | None = None
        self.rows: dict[str, Tensor] = {}
        self.waiting: list[Rows] = []  # encoded, or in flight when memory ran out
        self.guided: dict[int, Perturbed] = {}  # what came of rows whose steps are now random, by id

    def __getitem__(self, name: str) -> Tensor:
        return self.rows[name]

    @property
    def active(self) -> int:
        return sum(self.occupied)

    @property
    def latents(self) -> Latents:
        return Latents(self["free"], self.rows.get("fixed"))

    @property
    def beside(self) -> Beside:
        return {name: self.rows[name] for name in _BESIDE if name in self.rows}

    @property
    def originals(self) -> Originals:
        return Originals(self["original"], self["label"])

    def refill(self, queue: Iterator[Rows]) -> None:
        """Puts waiting rows into empty slots; where no more will come, gives up slots that the last images leave."""
        empty = [slot for slot in range(self.size) if not self.occupied[slot]]
        while empty and (rows := self.waiting.pop() if self.waiting else next(queue, None)) is not None:
            count = min(len(empty), len(rows["id"]))
            self._put(rows, empty[:count])
            empty = empty[count:]
        if empty and self.shrinks:
            self._shrink()

    def _put(self, rows: Rows, slots: list[int]) -> None:
        """Puts the first of `rows` into `slots`; the others wait."""
        where, count = torch.tensor(slots, device=rows["id"].device), len(slots)
        for name, values in rows.items():
            if name not in self.rows:
                self.rows[name] = values[:1].expand(self.size, *values.shape[1:]).clone()
            self.rows[name][where] = values[:count]
        for slot in slots:
            self.occupied[slot] = True
        if count < len(rows["id"]):
            self.waiting.append({name: values[count:] for name, values in rows.items()})

    def _shrink(self) -> None:
        size = min(self.size, max(self.fewest, -(-self.active // self.step) * self.step))
        if size < self.size:
            self._keep(sorted(range(self.size), key=lambda slot: not self.occupied[slot])[:size])

    def halve(self) -> None:
        """Half the slots, where memory is short; what was in the others waits."""
        half = self.size // 2
        if given_up := [slot for slot in range(half, self.size) if self.occupied[slot]]:
            self.waiting.append({name: values[given_up] for name, values in self.rows.items()})
        self._keep(list(range(half)))

    def _keep(self, slots: list[int]) -> None:
        self.rows = {name: values[slots] for name, values in self.rows.items()}
        self.occupied = [self.occupied[slot] for slot in slots]
        self.size = len(slots)

    def accept(self, output: PassOutput, options: PerturbOptions) -> tuple[list[StopReason | None], Tensor]:
        """Keeps what the oracle accepted. Returns why each slot ends (None: it goes on) and which rows step [S].

        Where the first image is kept, a guided row ends where its objective is above zero.
        """
        rows, measures = self.rows, output.measures
        rows["queries"] = rows["queries"] + ~rows["by_chance"]
        gradient_only = rows["gradient_only"]
        for name in _LABELS:
            key = f"reconstruction_{name}"
            rows[key] = torch.where(rows["first_pass"], measures[name], rows[key])
        accepted = ~gradient_only & output.accepted & output.finite
        shift = (rows["free"] - rows["initial_free"]).flatten(1).square().mean(1).sqrt()
        stored = {**measures, "image": output.images, "latent_shift": shift}
        if "latent" in rows:
            stored["latent"] = rows["free"]
        for name, values in stored.items():
            rows[name] = torch.where(as_column(accepted, values), values, rows[name])
        rows["accepted"] = rows["accepted"] + accepted
        self._record(rows["first_pass"] | accepted, {**measures, "target_probability": output.target_probability})

        steps_now = gradient_only if options.reencode else torch.ones_like(gradient_only)
        follows = steps_now & ~rows["by_chance"] & options.follows_gradient
        codes = torch.full_like(rows["accepted"], _UNFINISHED)
        lost = follows & ~all_finite(output.gradient)
        rows["fault"] = output.fault.masked_fill(output.finite & lost, PARTS.index("gradient"))
        stuck = follows & (output.gradient == 0).flatten(1).all(1)
        spent = accepted & (rows["accepted"] == rows["budget"])
        reached = accepted & (measures["objective"] > 0) & self._fooled(measures) & ~rows["by_chance"]
        reached &= options.keep == "first"
        refused = ~gradient_only & ~output.accepted
        for name in _LABELS:
            key = f"rejected_{name}"
            rows[key] = torch.where(refused & output.finite, measures[name], rows[key])
        never = refused & (rows["accepted"] == 0)
        # Of several ends the last one here holds: numbers that are not finite decide before the oracle does.
        for reason, ended in (
            (StopReason.STUCK, stuck),
            (StopReason.NONFINITE, lost),
            (StopReason.BUDGET, spent),
            (StopReason.REACHED, reached),
            (StopReason.ORACLE, refused),
            (StopReason.REJECTED, never),
            (StopReason.NONFINITE, ~output.finite),
        ):
            codes = codes.masked_fill(ended, _ENDS.index(reason))
        rows["first_pass"] = torch.zeros_like(rows["first_pass"])
        moving = steps_now & (codes == _UNFINISHED) & self._held(codes.device)
        rows["gradient_only"] = ~moving
        ends = [
            _ENDS[code] if occupied and code != _UNFINISHED else None
            for code, occupied in zip(codes.tolist(), self.occupied, strict=True)
        ]
        return ends, moving

    def _held(self, device: torch.device) -> Tensor:
        """Which slots hold an image, [S]: what is in the others would ask on and on."""
        if self._mask is None or self._mask[0] != self.occupied:
            self._mask = [*self.occupied], torch.tensor(self.occupied, device=device)
        return self._mask[1]

    def _fooled(self, measures: dict[str, Tensor]) -> Tensor:
        """Whether the answers are not true, [S]."""
        answers = measures["prediction"]
        fooled = answers != self["label"]
        if "also" in self.rows:
            fooled &= ~self["also"].gather(1, answers.unsqueeze(1)).squeeze(1)
        return fooled

    def _record(self, written: Tensor, measures: dict[str, Tensor]) -> None:
        """Writes the entry of the last step of the slots `written` [S]."""
        budget = self["step_losses"].shape[1] - 1
        entry = self["accepted"].clamp(max=budget).unsqueeze(1)  # an empty slot may count on
        for name, column in _OF_STEPS.items():
            kept = self[column].gather(1, entry).squeeze(1)
            self[column].scatter_(1, entry, torch.where(written, measures[name], kept).unsqueeze(1))

    def correct_last_entry(self, slots: list[int]) -> None:
        """Makes the last entries of `slots` those of their stored images, which were measured again."""
        stored = self["accepted"][slots]
        for name in OF_LOGITS:
            steps = self[_OF_STEPS[name]]
            steps[slots, stored] = torch.where(stored > 0, self[name][slots], steps[slots, stored])

    def move(
        self, direction: Tensor, step_size: float, moving: Tensor, project: Callable[[Latents, Tensor], Tensor]
    ) -> None:
        """Moves the latents of the rows `moving` [S] one step in their `direction` [S, …], or in a random one, a
        first step with start noise. Then `project` puts them where they belong, given the latents that they began with.
        """
        if "random_signs" in self.rows:
            direction = torch.where(as_column(self["by_chance"], direction), self["random_signs"], direction)
        delta = step_size * direction
        if "start_noise" in self.rows:
            noise = self["start_noise"]
            delta = delta + noise.where(as_column(self["accepted"] == 0, noise), 0.0)
        moved = project(Latents(self["free"] + delta, self.rows.get("fixed")), self["initial_free"])
        self.rows["free"] = torch.where(as_column(moving, delta), moved, self["free"])

    def going_on(self, ends: list[StopReason | None]) -> list[int]:
        """The slots whose image does not end."""
        return [slot for slot in range(self.size) if self.occupied[slot] and ends[slot] is None]

    def pop_finished(self, ends: list[StopReason | None]) -> Iterator[Perturbed]:
        """The finished rows; their slots are empty afterwards, but for those that now take random steps."""
        done = [(slot, reason) for slot, reason in enumerate(ends) if reason is not None]
        if not done:
            return
        index = torch.tensor([slot for slot, _ in done], device=self["id"].device)
        members = [name for name in _OF_MEMBERS if name in self.rows]
        kept_latents = ["initial_free", "latent"] if "latent" in self.rows else []
        also_true = ["also"] if "also" in self.rows else []
        names = [*_COLUMNS, *members, *_OF_STEPS.values(), "controlled", "by_chance", *kept_latents, *also_true]
        taken = {name: self[name][index] for name in names}
        taken |= {name: to_bytes(self[name][index]) for name in ("image", "original")}
        here = at_once(taken)
        columns = {name: here[name].tolist() for name in _COLUMNS}
        columns |= {_OF_MEMBERS[name]: here[name].tolist() for name in members}
        steps = {name: here[name].tolist() for name in _OF_STEPS.values()}
        images = {name: here[name] for name in ("image", "original")}
        kept = [here[name] for name in kept_latents] or None
        also = here.get("also")
        iterations, faults = columns.pop("accepted"), columns.pop("fault")
        phases = [here[name].tolist() for name in ("controlled", "by_chance")]
        for row, (slot, reason) in enumerate(done):
            controlled, by_chance = (phase[row] for phase in phases)
            if by_chance:
                self.occupied[slot] = False
                control = {
                    f"control_{of}": steps[f"step_{of}"][row][: iterations[row] + 1]
                    for of in ("predictions", "objectives")
                }
                yield replace(self.guided.pop(columns["id"][row]), **control)
                continue
            found = Perturbed(
                image=images["image"][row],
                original=images["original"][row],
                valid=iterations[row] > 0,
                iterations=iterations[row],
                stop_reason=reason,
                fault=PARTS[faults[row]] if reason is StopReason.NONFINITE else None,
                latents=None if kept is None else (kept[0][row], kept[1][row]),
                accepted_labels=[] if also is None else _all_true(columns["label"][row], also[row]),
                **{name: values[row] for name, values in columns.items()},
                **{name: values[row][: iterations[row] + 1] for name, values in steps.items()},
            )
            if controlled and found.valid:
                self.guided[found.id] = found
                self._step_by_chance(slot)
            else:
                self.occupied[slot] = False
                yield found

    def _step_by_chance(self, slot: int) -> None:
        """Begins the row of a slot anew, for at most as many steps as it took, in a direction that nobody is asked."""
        self["free"][slot] = self["initial_free"][slot]
        self["budget"][slot] = self["accepted"][slot]
        self["accepted"][slot] = 0
        for name in ("by_chance", "first_pass", "gradient_only"):
            self[name][slot] = True


def _all_true(label: int, also: Tensor) -> list[int]:
    return [label, *also.nonzero().flatten().tolist()]


def at_once(columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors [N, …] of numbers of any kind on the CPU, brought there together: a device is waited for once."""
    raw = {name: values.reshape(len(values), -1).contiguous().view(torch.uint8) for name, values in columns.items()}
    there = torch.cat([*raw.values()], 1).cpu()
    parts = there.split([values.shape[1] for values in raw.values()], 1)
    return {
        name: part.clone(memory_format=torch.contiguous_format).view(columns[name].dtype).view(columns[name].shape)
        for name, part in zip(raw, parts, strict=True)
    }


def as_column(mask: Tensor, values: Tensor) -> Tensor:
    """`mask` [S] so that it broadcasts over `values` [S, …]."""
    return mask.view(-1, *[1] * (values.ndim - 1))


def first_fault(*parts: Tensor) -> Tensor:
    """Of the values [B, …] of the first of `PARTS`, the first that are not finite, [B]; -1 where all are."""
    fault = torch.full((len(parts[0]),), _NO_FAULT, device=parts[0].device)
    for part, values in reversed(list(enumerate(parts))):
        fault = fault.masked_fill(~all_finite(values), part)
    return fault


def all_finite(values: Tensor) -> Tensor:
    """Whether all of each row is finite, [S]: whether its extremes are, which takes less."""
    rows = values.reshape(len(values), -1)
    return rows.amax(1).isfinite() & rows.amin(1).isfinite()
