"""Algorithm 1 as a stream: many images at once, each at its own step, every slot always at work.

Knows no files, no recipe and no command line; it can be lifted out and used alone.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fmrgen.generators.base import Generator, Latents
from fmrgen.oracles.base import Oracle
from fmrgen.rows import Example, Perturbed, StopReason
from fmrgen.updates import UPDATES

_ENCODE_ROWS = 16  # at most so many images are encoded together
_FEWEST_SLOTS = 16  # with fewer, kernels round the last bits of a row differently


_ENDS = (StopReason.BUDGET, StopReason.ORACLE, StopReason.REJECTED, StopReason.NONFINITE)
_GOES_ON = -1


def perturb(
    examples: Iterable[Example],
    classifier: nn.Module,
    generator: Generator,
    oracle: Oracle,
    *,
    budget: int,
    step_size: float,
    update: Literal["sign", "l2", "adam"] = "sign",
    reencode: bool = False,
    oracle_rule: Literal["label", "consistent"] = "label",
    slots: int = 32,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_pass: Callable[[int], None] = lambda active: None,
) -> Iterator[Perturbed]:
    """Perturbs every example as far as the oracle allows (paper §3.1, Algorithm 1); yields each one as it ends.

    `slots` images are in flight; a slot whose image ends takes the next example at once. One pass decodes all slots,
    rounds to 8 bits, judges and classifies those very images, and moves the latents one step of `step_size` up the
    gradient of the summed cross-entropy. A row's result depends on neither its neighbours nor their number. With
    `reencode` the last image is encoded anew before each step, which costs a second decode. The oracle accepts where
    its label is the example's (`label`) or what it said of the original (`consistent`). `on_pass` is called after
    each pass with the number of slots that held an image.

    Raises ValueError for a budget, step size or number of slots that makes no sense.
    """
    if budget < 1 or slots < 1 or not step_size > 0:
        raise ValueError(
            f"budget and slots must be at least 1 and step_size positive: {budget=}, {slots=}, {step_size=}"
        )
    bench = _Bench(classifier, generator, oracle, oracle_rule, seed, torch.device(device))
    state = _Slots(slots)
    rule = UPDATES[update]()
    together = min(slots, _ENCODE_ROWS)
    queue = bench.prepare(iter(examples), together)
    while True:
        filled = state.refill(queue)
        active = state.active
        if not active:
            return
        rule.reset(torch.tensor(filled, device=device, dtype=torch.int64))
        if (kept := state.shrink()) is not None:
            rule.keep(kept)
        judged = bench.judge(state.latents, state["label"])
        ends, moving = state.accept(judged, budget, reencode)
        state.move(step_size * rule.direction(judged.gradient, moving), moving)
        if reencode:
            moves = moving.tolist()
            bench.encode_again(state, [slot for slot in state.going_on(ends) if not moves[slot]], together)
        on_pass(active)
        yield from state.take(ends)


def _on_byte_grid(images: Tensor) -> Tensor:
    """The nearest images that 8 bits can store, still in [0, 1]."""
    return (images * 255).round().clamp(0, 255) / 255


class _StraightThroughBytes(torch.autograd.Function):
    """Rounds [0, 1] to multiples of 1/255; the gradient passes as if it did not."""

    @staticmethod
    def forward(ctx: object, images: Tensor) -> Tensor:
        return _on_byte_grid(images)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return gradients[0]


@dataclass
class _Judged:
    """One pass over the slots: images [S, 3, H, W] in [0, 1] on the 8-bit grid, their measures [S], the gradient."""

    images: Tensor
    measures: dict[str, Tensor]
    finite: Tensor
    gradient: Tensor


class _Bench:
    """The three models at work on a batch, and how examples come to it."""

    def __init__(
        self,
        classifier: nn.Module,
        generator: Generator,
        oracle: Oracle,
        oracle_rule: str,
        seed: int,
        device: torch.device,
    ) -> None:
        self.classifier, self.generator, self.oracle = classifier, generator, oracle
        self.oracle_rule, self.seed, self.device = oracle_rule, seed, device

    def prepare(self, examples: Iterator[Example], together: int) -> Iterator[dict[str, Tensor]]:
        """Examples as rows ready for a slot, encoded `together` at a time.

        A short batch is padded: kernels differ in the last bits between batch sizes, and a row must not.
        """
        while batch := list(islice(examples, together)):
            padded = batch + [batch[-1]] * (together - len(batch))
            images = torch.stack([example.image for example in padded]).to(self.device)
            labels = torch.tensor([example.label for example in padded], device=self.device)
            ids = [example.id for example in padded]
            grid = _on_byte_grid(images)
            latents = self.encode(grid, labels, ids)
            with torch.no_grad():
                measures, _ = self._measure(grid, labels, self.classifier(grid))
            target = labels if self.oracle_rule == "label" else measures["oracle_label"]
            rows = {"free": latents.free, "start": latents.free.clone(), "label": labels, "target": target}
            rows |= {} if latents.fixed is None else {"fixed": latents.fixed}
            rows |= {"id": torch.tensor(ids), "original": grid, "image": grid, **measures}
            rows |= {f"original_{name}": measures[name] for name in ("oracle_label", "prediction")}
            for row in range(len(batch)):
                yield {name: values[row] for name, values in rows.items()}

    def encode(self, images: Tensor, labels: Tensor, ids: list[int]) -> Latents:
        self.generator.row_seeds = [_row_seed(self.seed, example_id) for example_id in ids]
        with torch.no_grad():
            return self.generator.encode(images, labels)

    def encode_again(self, state: "_Slots", slots: list[int], together: int) -> None:
        """Puts the latents of their last accepted images into `slots`, `together` at a time."""
        for start in range(0, len(slots), together):
            rows = slots[start : start + together]
            padded = rows + [rows[-1]] * (together - len(rows))
            latents = self.encode(state["image"][padded], state["label"][padded], state["id"][padded].tolist())
            for name, values in (("free", latents.free), ("fixed", latents.fixed)):
                if values is not None:
                    state[name][rows] = values[: len(rows)]

    def judge(self, latents: Latents, labels: Tensor) -> _Judged:
        with torch.enable_grad():
            free = latents.free.detach().requires_grad_(True)
            decoded = self.generator.decode(Latents(free, latents.fixed))
            images = _StraightThroughBytes.apply(decoded)
            logits = self.classifier(images)
            (gradient,) = torch.autograd.grad(cross_entropy(logits, labels, reduction="sum"), free)
        measures, finite = self._measure(images.detach(), labels, logits.detach())
        return _Judged(images.detach(), measures, finite & _all_finite(decoded.detach()), gradient)

    def _measure(self, images: Tensor, labels: Tensor, logits: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The measures of images, and whether all that they rest on is finite, [B] bool."""
        probabilities, score = self.oracle.judge(images)
        of_label = labels.unsqueeze(1)
        measures = {
            "score": score.gather(1, of_label).squeeze(1),
            "probability": probabilities.gather(1, of_label).squeeze(1),
            "oracle_label": probabilities.argmax(1),
            "prediction": logits.argmax(1),
            "loss": cross_entropy(logits, labels, reduction="none"),
        }
        return measures, _all_finite(probabilities) & _all_finite(score) & _all_finite(measures["loss"])


class _Slots:
    """The images in flight: one tensor [S, …] for each quantity, one row for each slot."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.occupied = [False] * size
        self.rows: dict[str, Tensor] = {}
        self.drained = False  # no more images will come

    def __getitem__(self, name: str) -> Tensor:
        return self.rows[name]

    @property
    def active(self) -> int:
        return sum(self.occupied)

    @property
    def latents(self) -> Latents:
        return Latents(self["free"], self.rows.get("fixed"))

    def refill(self, queue: Iterator[dict[str, Tensor]]) -> list[int]:
        """Puts waiting rows into empty slots; returns which slots."""
        empty = [slot for slot in range(self.size) if not self.occupied[slot]]
        incoming = list(islice(queue, len(empty)))
        self.drained = len(incoming) < len(empty)
        if not incoming:
            return []
        filled = empty[: len(incoming)]
        new = {name: torch.stack([row[name] for row in incoming]) for name in incoming[0]}
        count = len(filled)
        device = new["free"].device
        new["accepted"] = torch.zeros(count, dtype=torch.int64, device=device)
        new["fresh"] = torch.ones(count, dtype=torch.bool, device=device)  # not decoded yet: pass 0
        new["probing"] = torch.ones(count, dtype=torch.bool, device=device)  # decoded for its gradient, not judged
        new["latent_shift"] = torch.zeros(count, dtype=new["free"].dtype, device=device)
        for name in ("oracle_label", "prediction"):
            new[f"reconstruction_{name}"] = torch.full((count,), -1, device=device)
        for name, values in new.items():
            if name not in self.rows:  # empty slots carry a copy of a real row, never garbage
                self.rows[name] = values[:1].expand(self.size, *values.shape[1:]).clone()
            self.rows[name][filled] = values
        for slot in filled:
            self.occupied[slot] = True
        return filled

    def shrink(self) -> Tensor | None:
        """Halves the slots for as long as the last images fit; returns which slots are kept, None where all are."""
        size = self.size
        while self.drained and size // 2 >= max(self.active, _FEWEST_SLOTS):
            size //= 2
        if size == self.size:
            return None
        order = sorted(range(self.size), key=lambda slot: not self.occupied[slot])[:size]
        self.rows = {name: values[order] for name, values in self.rows.items()}
        self.occupied = [self.occupied[slot] for slot in order]
        self.size = size
        return torch.tensor(order, device=self["free"].device)

    def accept(self, judged: _Judged, budget: int, reencode: bool) -> tuple[list[StopReason | None], Tensor]:
        """Keeps what the oracle accepted. Returns why each slot ends (None: it goes on) and which rows step [S]."""
        rows, measures = self.rows, judged.measures
        probing = rows["probing"]
        for name in ("oracle_label", "prediction"):
            key = f"reconstruction_{name}"
            rows[key] = torch.where(rows["fresh"], measures[name], rows[key])
        agrees = measures["oracle_label"] == rows["target"]
        accepted = ~probing & agrees & judged.finite
        shift = (rows["free"] - rows["start"]).flatten(1).square().mean(1).sqrt()
        for name, values in {**measures, "image": judged.images, "latent_shift": shift}.items():
            rows[name] = torch.where(_as_column(accepted, values), values, rows[name])
        rows["accepted"] = rows["accepted"] + accepted

        steps_now = probing if reencode else torch.ones_like(probing)
        codes = torch.full_like(rows["accepted"], _GOES_ON)
        lost = steps_now & ~_all_finite(judged.gradient)
        spent = accepted & (rows["accepted"] == budget)
        refused = ~probing & ~agrees
        never = refused & (rows["accepted"] == 0)
        # Of several ends the last one here holds: numbers that are not finite decide before the oracle does.
        for reason, ended in (
            (StopReason.NONFINITE, lost),
            (StopReason.BUDGET, spent),
            (StopReason.ORACLE, refused),
            (StopReason.REJECTED, never),
            (StopReason.NONFINITE, ~judged.finite),
        ):
            codes = codes.masked_fill(ended, _ENDS.index(reason))
        rows["fresh"] = torch.zeros_like(rows["fresh"])
        moving = steps_now & (codes == _GOES_ON)
        rows["probing"] = ~moving
        ends = [
            _ENDS[code] if occupied and code != _GOES_ON else None
            for code, occupied in zip(codes.tolist(), self.occupied, strict=True)
        ]
        return ends, moving

    def move(self, delta: Tensor, moving: Tensor) -> None:
        self.rows["free"] = torch.where(_as_column(moving, delta), self["free"] + delta, self["free"])

    def going_on(self, ends: list[StopReason | None]) -> list[int]:
        """The slots whose image does not end."""
        return [slot for slot in range(self.size) if self.occupied[slot] and ends[slot] is None]

    def take(self, ends: list[StopReason | None]) -> Iterator[Perturbed]:
        """The finished rows; their slots are empty afterwards."""
        done = [(slot, reason) for slot, reason in enumerate(ends) if reason is not None]
        if not done:
            return
        slots = [slot for slot, _ in done]
        inner = {"free", "start", "fixed", "target", "fresh", "probing"}
        out = {name: values[slots].cpu() for name, values in self.rows.items() if name not in inner}
        images = {name: (out.pop(name) * 255).round().to(torch.uint8) for name in ("image", "original")}
        columns = {name: values.tolist() for name, values in out.items()}
        iterations = columns.pop("accepted")
        for row, (slot, reason) in enumerate(done):
            self.occupied[slot] = False
            yield Perturbed(
                image=images["image"][row],
                original=images["original"][row],
                valid=iterations[row] > 0,
                iterations=iterations[row],
                stop_reason=reason,
                **{name: values[row] for name, values in columns.items()},
            )


def _as_column(mask: Tensor, values: Tensor) -> Tensor:
    return mask.view(-1, *[1] * (values.ndim - 1))


def _all_finite(values: Tensor) -> Tensor:
    return values.isfinite().flatten(1).all(1) if values.ndim > 1 else values.isfinite()


def _row_seed(seed: int, example_id: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{example_id}".encode(), digest_size=8).digest()) >> 1
