"""Algorithm 1 as a stream: many images at once, each at its own step, every slot always at work.

Knows no files, no recipe and no command line; it can be lifted out and used alone.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fmrgen.engine.slots import Judged, Row, Slots, first_fault, new_rows
from fmrgen.engine.updates import UPDATES, Update
from fmrgen.errors import UserError, one_line
from fmrgen.generators.base import Generator, Latents
from fmrgen.oracles.base import Oracle
from fmrgen.records import Example, Perturbed

_ENCODE_ROWS = 16  # at most so many images are encoded together
_SLOTS_TRIED = tuple(2**power for power in range(11))  # by `slots="auto"`
_GAIN = 1.05  # by which more slots must be faster to be worth their memory
_MEASURES = ("score", "probability", "oracle_label", "prediction", "loss")
_TIMED_SECONDS = 0.5  # at least so long is each number of slots timed


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
    slots: int | Literal["auto"] = 32,
    precision: Literal["fp32", "bf16"] = "fp32",
    compile: bool = False,
    seed: int = 0,
    keep_latents: bool = False,
    device: torch.device | str = "cpu",
    on_pass: Callable[[int], None] = lambda active: None,
    on_slots: Callable[[int], None] = lambda slots: None,
) -> Iterator[Perturbed]:
    """Perturbs every example as far as the oracle allows (paper §3.1, Algorithm 1); yields each one as it ends.

    `slots` images are in flight; a slot whose image ends takes the next example at once. One pass decodes all slots,
    rounds to 8 bits, judges and classifies those very images, and moves the latents one step of `step_size` up the
    gradient of the summed cross-entropy. A row's result depends on neither its neighbours nor their number. With
    `reencode` the last image is encoded anew before each step, which costs a second decode. The oracle accepts where
    its label is the example's (`label`) or what it said of the original (`consistent`).

    `slots="auto"` times the models on the first example and takes the fewest slots that are about as fast as any; where
    a GPU's memory runs out, the slots are halved and nothing is lost. `precision="bf16"` decodes and classifies under
    autocast; the oracle judges, and the measures of stored images are taken, in full precision. `compile` runs both
    through `torch.compile` at one shape. `keep_latents` puts their latents into the rows. `on_pass` is called after
    each pass with the number of slots that held an image, `on_slots` with the number of slots at the start and when
    memory has run out.

    Raises ValueError for a budget, step size, precision or number of slots that makes no sense, and UserError where a
    model fails on a batch or answers for another number of images.
    """
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision must be fp32 or bf16: {precision=}")
    if budget < 1 or (slots != "auto" and slots < 1) or not step_size > 0:
        raise ValueError(
            f"budget and slots must be at least 1 and step_size positive: {budget=}, {slots=}, {step_size=}"
        )
    rule = UPDATES[update]()
    bench = _Bench(classifier, generator, oracle, rule, oracle_rule, precision, compile, seed, torch.device(device))
    if slots != "auto":
        bench.together = min(slots, _ENCODE_ROWS)
    queue = bench.prepare(iter(examples), keep_latents)
    if slots == "auto":
        if (first := next(queue, None)) is None:
            return
        slots = bench.fastest_slots(first)
        queue = chain([first], queue)
    state = Slots(slots, shrinks=not compile)  # a compiled pass has one shape
    on_slots(slots)
    while True:
        state.refill(queue)
        if not (active := state.active):
            return
        judged = bench.judge_if_it_fits(state.latents, state["label"])
        if judged is None:
            state.halve()
            on_slots(state.size)
            continue
        ends, moving = state.accept(judged, budget, reencode)
        state.move(step_size * rule.direction(judged.gradient, moving, state.rows), moving)
        if reencode:
            moves = moving.tolist()
            bench.encode_again(state, [slot for slot in state.going_on(ends) if not moves[slot]])
        bench.measure_exactly(state, [slot for slot, reason in enumerate(ends) if reason is not None])
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


class _Bench:
    """The three models at work on a batch, and how examples come to it."""

    def __init__(
        self,
        classifier: nn.Module,
        generator: Generator,
        oracle: Oracle,
        rule: Update,
        oracle_rule: str,
        precision: str,
        compiled: bool,
        seed: int,
        device: torch.device,
    ) -> None:
        self.classifier, self.generator, self.oracle = classifier, generator, oracle
        self.rule, self.oracle_rule, self.seed, self.device = rule, oracle_rule, seed, device
        self.reduced = precision == "bf16"
        self.at_work = "generator"  # whose mistake it is where something is thrown
        self.together = _ENCODE_ROWS
        # CUDA graphs come with this mode; elsewhere it is the default one.
        options: Any = {"dynamic": False, "mode": "reduce-overhead"}
        self.forward = torch.compile(self._forward, **options) if compiled else self._forward

    def prepare(self, examples: Iterator[Example], keep_latents: bool) -> Iterator[Row]:
        """Examples as rows ready for a slot, encoded `together` at a time.

        A short batch is padded: kernels differ in the last bits between batch sizes, and a row must not.
        """
        while batch := list(islice(examples, self.together)):
            padded = batch + [batch[-1]] * (self.together - len(batch))
            images = torch.stack([example.image for example in padded]).to(self.device)
            labels = torch.tensor([example.label for example in padded], device=self.device)
            ids = [example.id for example in padded]
            grid = _on_byte_grid(images)
            latents = self.encode(grid, labels, ids)
            measures = dict(zip(_MEASURES, self._in_parts_that_fit(self._look, grid, labels), strict=True))
            target = labels if self.oracle_rule == "label" else measures["oracle_label"]
            rows = new_rows(latents, grid, torch.tensor(ids), labels, target, measures, keep_latents)
            rows |= self.rule.memory(latents.free)
            for row in range(len(batch)):
                yield {name: values[row] for name, values in rows.items()}

    def encode(self, images: Tensor, labels: Tensor, ids: Sequence[int]) -> Latents:
        """The latents, in full precision."""
        free, *fixed = self._in_parts_that_fit(self._encode, images, labels, ids)
        return Latents(free, *fixed)

    def _encode(self, images: Tensor, labels: Tensor, ids: Sequence[int]) -> list[Tensor]:
        self.generator.row_seeds = [_row_seed(self.seed, example_id) for example_id in ids]
        self.at_work = "generator"
        with torch.no_grad(), self._precision():
            free, fixed = self.generator.encode(images, labels)
        return [in_full(free)] if fixed is None else [in_full(free), in_full(fixed)]

    @torch.no_grad()
    def _look(self, images: Tensor, labels: Tensor) -> list[Tensor]:
        """The measures of given images, in full precision."""
        logits = self._logits(images)
        measures, *_ = self._measure(images, labels, logits, cross_entropy(logits, labels, reduction="none"))
        return [measures[name] for name in _MEASURES]

    def encode_again(self, state: Slots, slots: list[int]) -> None:
        """Puts the latents of their last accepted images into `slots`."""
        for rows, padded in self._in_groups(slots):
            latents = self.encode(state["image"][padded], state["label"][padded], state["id"][padded].tolist())
            for name, values in (("free", latents.free), ("fixed", latents.fixed)):
                if values is not None:
                    state[name][rows] = values[: len(rows)]

    def measure_exactly(self, state: Slots, slots: list[int]) -> None:
        """Classifies the stored images of `slots` in full precision, where the passes do not."""
        if not self.reduced:
            return
        for rows, padded in self._in_groups(slots):
            found = self._in_parts_that_fit(self._classify, state["image"][padded], state["label"][padded])
            for name, values in zip(("prediction", "loss"), found, strict=True):
                state[name][rows] = values[: len(rows)]

    @torch.no_grad()
    def _classify(self, images: Tensor, labels: Tensor) -> list[Tensor]:
        logits = self._logits(images)
        return [logits.argmax(1), cross_entropy(logits, labels, reduction="none")]

    def _logits(self, images: Tensor) -> Tensor:
        """What the classifier says of images [B, 3, H, W]: [B, K], as exact as the images are.

        It gets a copy: what is stored and judged is nobody's to write into.
        """
        self.at_work = "classifier"
        logits = self.classifier(images.clone())
        if len(logits) != len(images):
            raise UserError(f"classifier: gives {len(logits)} rows of logits for {len(images)} images")
        return in_full(logits)

    def _in_groups(self, slots: list[int]) -> Iterator[tuple[list[int], list[int]]]:
        """`slots`, `together` at a time, and the same padded to that many."""
        for start in range(0, len(slots), self.together):
            rows = slots[start : start + self.together]
            yield rows, rows + [rows[-1]] * (self.together - len(rows))

    def fastest_slots(self, row: Row) -> int:
        """The fewest slots that make about as many image-passes per second as any number of them."""
        tried: list[float] = []  # rates of 1, 2, 4, … slots
        for slots in _SLOTS_TRIED:
            fixed = _repeated(row["fixed"], slots) if "fixed" in row else None
            latents, labels = Latents(_repeated(row["free"], slots), fixed), _repeated(row["label"], slots)
            seconds = self._if_it_fits(self._seconds_of_a_pass, latents, labels)
            if seconds is None:
                break
            tried.append(slots / seconds)
            if len(tried) > 2 and max(tried) <= _GAIN * max(tried[:-2]):
                break
        return next(slots for slots, rate in zip(_SLOTS_TRIED, tried, strict=False) if _GAIN * rate >= max(tried))

    def _seconds_of_a_pass(self, latents: Latents, labels: Tensor) -> float:
        self._judge(latents, labels, self._forward)  # what is done but once
        passes, started = 0, time.perf_counter()
        while not passes or time.perf_counter() - started < _TIMED_SECONDS:
            self._judge(latents, labels, self._forward).gradient.sum().item()  # waits for the device
            passes += 1
        return (time.perf_counter() - started) / passes

    def judge_if_it_fits(self, latents: Latents, labels: Tensor) -> Judged | None:
        """One pass over the slots; None where memory is too small for so many."""
        return self._if_it_fits(self._judge, latents, labels, self.forward)

    def _judge(self, latents: Latents, labels: Tensor, forward: Callable[..., Any]) -> Judged:
        with torch.enable_grad():
            free = latents.free.detach().requires_grad_(True)
            decoded, images, logits, losses = forward(free, latents.fixed, labels)
            (gradient,) = torch.autograd.grad(losses.sum(), free)
        decoded, images, logits, losses = (values.detach() for values in (decoded, images, logits, losses))
        measures, probabilities, score = self._measure(images, labels, logits, losses)
        fault = first_fault(decoded, losses, torch.cat([probabilities, score], 1))
        return Judged(images, measures, fault, gradient)

    def _forward(self, free: Tensor, fixed: Tensor | None, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        self.at_work = "generator"
        with self._precision():
            decoded = in_full(self.generator.decode(Latents(free, fixed)))
            images = _StraightThroughBytes.apply(decoded)
            logits = self._logits(images)
        return decoded, images, logits, cross_entropy(logits, labels, reduction="none")

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.reduced)

    def _measure(
        self, images: Tensor, labels: Tensor, logits: Tensor, losses: Tensor
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The measures of images, and the oracle's probabilities and score [B, K] that they rest on."""
        self.at_work = "oracle"
        probabilities, score = (in_full(values) for values in self.oracle.judge(images.clone()))
        if not len(probabilities) == len(score) == len(images):
            raise UserError(f"oracle: judges {len(probabilities)} images where there are {len(images)}")
        of_label = labels.unsqueeze(1)
        measures = {
            "score": score.gather(1, of_label).squeeze(1),
            "probability": probabilities.gather(1, of_label).squeeze(1),
            "oracle_label": probabilities.argmax(1),
            "prediction": logits.argmax(1),
            "loss": losses,
        }
        return measures, probabilities, score

    def _if_it_fits(self, work: Callable[..., Any], latents_or_images: Any, labels: Tensor, *arguments: Any) -> Any:
        """What `work` returns for the rows; None where a GPU's memory is too small for them and there are fewer to try.

        Raises UserError, with the part that was at work, for whatever else is thrown: anyone's code may stand there.
        """
        try:
            return work(latents_or_images, labels, *arguments)
        except torch.OutOfMemoryError:
            if len(labels) == 1:
                raise
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error, torch._dynamo.exc.TorchDynamoException):
                raise
            raise UserError(
                f"{self.at_work}: fails on a batch of {len(labels)} images: {type(error).__name__}: {one_line(error)}"
            ) from error
        if torch.cuda.is_available():  # here the traceback, which held the tensors, is gone
            torch.cuda.empty_cache()
        return None

    def _in_parts_that_fit(self, work: Callable[..., list[Tensor]], images: Tensor, *columns: Any) -> list[Tensor]:
        """What `work` returns for the rows, in halves, and halves of them, where they do not fit together."""
        if (found := self._if_it_fits(work, images, *columns)) is not None:
            return found
        parts = [
            self._in_parts_that_fit(work, images[half], *(column[half] for column in columns))
            for half in (slice(len(images) // 2), slice(len(images) // 2, None))
        ]
        return [torch.cat(values) for values in zip(*parts, strict=True)]


def _repeated(value: Tensor, rows: int) -> Tensor:
    return value.unsqueeze(0).expand(rows, *value.shape).contiguous()


def in_full(values: Tensor) -> Tensor:
    """Values of half precision as float32, others as they are."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def _row_seed(seed: int, example_id: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{example_id}".encode(), digest_size=8).digest()) >> 1
