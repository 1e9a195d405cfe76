"""The three models at work on a batch: one pass, and the measures of given images."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fmrgen.engine.acceptance import accepts
from fmrgen.engine.attacks import Attack
from fmrgen.engine.checks import check_decoded, check_labels, checked_judgement
from fmrgen.engine.images import StraightThroughBytes, as_float32
from fmrgen.engine.interfaces import Generator, Judgement, Latents, Oracle, Originals
from fmrgen.engine.objectives import OBJECTIVES, loss, truth_of
from fmrgen.engine.options import PerturbOptions
from fmrgen.engine.slots import OF_LOGITS, Beside, PassOutput, Slots, first_fault
from fmrgen.errors import UserError, one_line, option

MEASURES = ("score", "probability", "oracle_label", *OF_LOGITS)
OF_MEMBERS = ("member_label", "member_probability", "member_score")  # of a panel's members, [B, M]
_PGD_STEPS = 10  # of an attack that latents start from
ENCODED_TOGETHER = 16  # at most so many images are encoded together
_LEAST_ALIKE = 0.9  # cosine of a compiled pass's gradient with the plain one's: rounding and bf16 leave more
ASKED_TOGETHER = 32  # always so many are decoded, whatever the slots: see `Models`


class Models:
    """Classifier, generator and oracle, as the engine uses them.

    `together` images are encoded, and measured, at a time; always so many, for kernels differ in the last bits between
    batch sizes, and a row must not.
    """

    def __init__(
        self,
        classifier: nn.Module,
        generator: Generator,
        oracle: Oracle,
        options: PerturbOptions,
        device: torch.device,
        needs_gradient: bool = True,
    ) -> None:
        self.needs_gradient = needs_gradient
        self.classifier, self.generator, self.oracle = classifier, generator, oracle
        self.options, self.device = options, device
        self.attack = _attack(options)
        self._classes: int | None = None
        self.several: bool | None = None  # whether examples say which labels are accepted; the first one tells
        self.objective = OBJECTIVES[options.objective]
        self.half_precision = options.precision == "bf16"
        self.measures = MEASURES + (OF_MEMBERS if oracle.member_names else ())
        self.running = "generator"  # whose mistake it is where something is thrown
        self.is_decoded_checked = False  # once: it waits for the device
        self.together = ENCODED_TOGETHER if options.slots == "auto" else min(options.slots, ENCODED_TOGETHER)
        self.is_compiled_checked = not options.compile
        self.forward = self._compiled() if options.compile else self._forward

    def _compiled(self) -> Callable[..., Any]:
        torch.compiler.reset()  # of one function no more than eight models are compiled
        how: Any = {"mode": "reduce-overhead"}  # with CUDA graphs
        if self.device.type == "cpu":  # where convolutions in another layout lose the gradient (torch 2.13)
            how = {"options": {"layout_optimization": False}}
        compiled: Callable[..., Any] = torch.compile(self._forward, fullgraph=True, dynamic=False, **how)
        return compiled

    def attacked(self, images: Tensor, labels: Tensor, ids: Sequence[int]) -> Tensor:
        """The images that are encoded instead of originals: after the attack they start with, if there is one."""
        if self.attack is None:
            return images
        self.running = "classifier"
        seeds = [row_seed(self.options.seed, example_id, "attack") for example_id in ids]
        found: Tensor = self._in_parts_that_fit(self._attack_given, images, labels, seeds)[0]
        return found

    def _attack_given(self, images: Tensor, labels: Tensor, seeds: Sequence[int]) -> list[Tensor]:
        assert self.attack is not None
        return [self.attack(lambda batch: as_float32(self.classifier(batch)), images, labels, row_seeds=seeds)]

    def encode(self, images: Tensor, labels: Tensor, ids: Sequence[int]) -> Latents:
        """The latents, in full precision."""
        free, *fixed = self._in_parts_that_fit(self._encode, images, labels, ids)
        return Latents(free, *fixed)

    def _encode(self, images: Tensor, labels: Tensor, ids: Sequence[int]) -> list[Tensor]:
        self.generator.row_seeds = [row_seed(self.options.seed, example_id) for example_id in ids]
        self.running = "generator"
        with torch.no_grad(), self._precision():
            free, fixed = self.generator.encode(images, labels)
        return [as_float32(free)] if fixed is None else [as_float32(free), as_float32(fixed)]

    def measure(self, images: Tensor, labels: Tensor, beside: Beside) -> dict[str, Tensor]:
        """The measures [B] of given images, in full precision."""
        work = partial(self._measure_given, list(beside))
        found = self._in_parts_that_fit(work, images, labels, *beside.values())
        return dict(zip(self.measures, found, strict=True))

    @torch.no_grad()
    def _measure_given(self, names: list[str], images: Tensor, labels: Tensor, *values: Tensor) -> list[Tensor]:
        logits = self._logits(images)
        check_labels(labels, logits.shape[1])
        beside = dict(zip(names, values, strict=True))
        measures, _ = self._measure(images, Originals(images, labels), logits, beside)
        return [measures[name] for name in self.measures]

    @torch.no_grad()
    def aims(self, images: Tensor, labels: Tensor, also: Tensor | None) -> Tensor:
        """The class [B] that each image is to be taken for, of what the classifier says of originals."""
        logits = self._logits(images)
        truth = truth_of(labels, logits.shape[1], also)
        runner_up = logits.masked_fill(truth, -torch.inf).argmax(1)
        if self.options.target == "least_likely":
            return logits.masked_fill(truth, torch.inf).argmin(1)
        if self.options.target == "runner_up":
            return runner_up
        check_labels(labels.new_tensor([self.options.target]), logits.shape[1])
        aim = torch.full_like(labels, int(self.options.target))
        return torch.where(truth.gather(1, aim.unsqueeze(1)).squeeze(1), runner_up, aim)

    @torch.no_grad()
    def classes(self, images: Tensor) -> int:
        """In how many classes the classifier answers: it is asked once."""
        if self._classes is None:
            self._classes = self._logits(images[:1]).shape[1]
        return self._classes

    def encode_again(self, state: Slots, slots: list[int]) -> None:
        """Puts the latents of their last accepted images into `slots`."""
        for rows, padded in self._in_groups(slots):
            latents = self.encode(state["image"][padded], state["label"][padded], state["id"][padded].tolist())
            for name, values in (("free", latents.free), ("fixed", latents.fixed)):
                if values is not None:
                    state[name][rows] = values[: len(rows)]

    def measure_exactly(self, state: Slots, slots: list[int]) -> None:
        """Classifies the stored images of `slots` in full precision, where the passes do not."""
        if not self.half_precision:
            return
        for rows, padded in self._in_groups(slots):
            beside = {name: values[padded] for name, values in state.beside.items()}
            work = partial(self._classify, list(beside))
            found = self._in_parts_that_fit(work, state["image"][padded], state["label"][padded], *beside.values())
            for name, values in zip(OF_LOGITS, found, strict=True):
                state[name][rows] = values[: len(rows)]
            state.correct_last_entry(rows)

    @torch.no_grad()
    def _classify(self, names: list[str], images: Tensor, labels: Tensor, *values: Tensor) -> list[Tensor]:
        beside = dict(zip(names, values, strict=True))
        return list(self._of_logits(self._logits(images), labels, beside).values())

    def _of_logits(self, logits: Tensor, labels: Tensor, beside: Beside) -> dict[str, Tensor]:
        found = logits.argmax(1), loss(logits, labels, beside.get("also")), self._climbed(logits, labels, beside)
        return dict(zip(OF_LOGITS, found, strict=True))

    def _climbed(self, logits: Tensor, labels: Tensor, beside: Beside) -> Tensor:
        classes = logits.shape[1]
        if "aim" in beside:
            return self.objective(logits, ~truth_of(beside["aim"], classes, None))
        return self.objective(logits, truth_of(labels, classes, beside.get("also")))

    def _logits(self, images: Tensor) -> Tensor:
        """What the classifier says of images [B, 3, H, W]: [B, K], as exact as the images are.

        It gets a copy: what is stored and judged is nobody's to write into.
        """
        self.running = "classifier"
        logits = self.classifier(images.clone())
        if len(logits) != len(images):
            raise UserError(f"classifier: returns {len(logits)} rows of logits for {len(images)} images")
        return as_float32(logits)

    def _in_groups(self, slots: list[int]) -> Iterator[tuple[list[int], list[int]]]:
        """`slots`, `together` at a time, and the same padded to that many."""
        for start in range(0, len(slots), self.together):
            rows = slots[start : start + self.together]
            yield rows, rows + [rows[-1]] * (self.together - len(rows))

    def seconds_of_a_pass(self, latents: Latents, originals: Originals, at_least: float) -> float | None:
        """How long a pass over the rows takes, timed for `at_least` so many seconds; None where they do not fit."""

        def timed(latents: Latents, labels: Tensor) -> float:
            self._judge(latents, labels, originals.images, labels, {}, self._forward)  # what is done but once
            passes, started = 0, time.perf_counter()
            while not passes or time.perf_counter() - started < at_least:
                self._judge(
                    latents, labels, originals.images, labels, {}, self._forward
                ).gradient.sum().item()  # waits for the device
                passes += 1
            return (time.perf_counter() - started) / passes

        return self._if_it_fits(timed, latents, originals.labels)

    def judge_if_it_fits(
        self, latents: Latents, originals: Originals, target: Tensor, beside: Beside
    ) -> PassOutput | None:
        """One pass over the slots, of which the oracle is to see `target`; None where memory is too small for all."""
        return self._if_it_fits(self._judge, latents, originals.labels, originals.images, target, beside, self.forward)

    def _judge(
        self,
        latents: Latents,
        labels: Tensor,
        originals: Tensor,
        target: Tensor,
        beside: Beside,
        forward: Callable[..., Any],
    ) -> PassOutput:
        decoded, images, logits, gradient = self._climb(latents, labels, beside, forward)
        if forward is self.forward and not self.is_compiled_checked:
            _check_compiled(gradient, self._climb(latents, labels, beside, self._forward)[-1])
            self.is_compiled_checked = True
        if not self.is_decoded_checked:
            check_decoded(decoded)
            self.is_decoded_checked = True
        measures, judgement = self._measure(images, Originals(originals, labels), logits, beside)
        fault = first_fault(decoded, measures["loss"], torch.cat([judgement.probabilities, judgement.score], 1))
        accepted, of_target = accepts(judgement, target, self.options, beside.get("also"))
        return PassOutput(images, measures, accepted, of_target, fault, gradient)

    def _climb(
        self, latents: Latents, labels: Tensor, beside: Beside, forward: Callable[..., Any]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What latents decode to, the images of that, their logits, and the objective's gradient to the latents."""
        with torch.set_grad_enabled(self.needs_gradient):
            free = latents.free.detach().requires_grad_(self.needs_gradient)
            decoded, images, logits, objective = forward(free, latents.fixed, labels, beside)
            gradient = torch.autograd.grad(objective.sum(), free)[0] if self.needs_gradient else torch.ones_like(free)
        return decoded.detach(), images.detach(), logits.detach(), gradient

    def ask(self, state: Slots, free: Tensor, slots: Tensor, *, labels_alone: bool = False) -> Tensor:
        """The objective [n] of the images that latents [n, …] decode to, those of the rows in `slots` [n].

        `labels_alone` says that only its sign matters: the classifier then sees the n images alone. Else it sees groups
        padded to one size, as the generator always does, so that a row's last bits do not depend on its neighbours.
        """
        found = []
        for group in torch.arange(len(slots), device=slots.device).split(ASKED_TOGETHER):
            padded = torch.cat([group, group[-1:].expand(ASKED_TOGETHER - len(group))])
            names = [name for name in ("label", *state.beside) if name in state.rows]
            columns = {name: state[name][slots[padded]] for name in names}
            fixed = [state["fixed"][slots[padded]]] if "fixed" in state.rows else []
            (images,) = self._in_parts_that_fit(self._decoded, free[padded], columns["label"], *fixed)
            asked_about = len(group) if labels_alone else ASKED_TOGETHER
            shown = [column[:asked_about] for column in columns.values()]
            (objective,) = self._in_parts_that_fit(partial(self._objective_of, names), images[:asked_about], *shown)
            found.append(objective[: len(group)])
        return torch.cat(found)

    @torch.no_grad()
    def _decoded(self, free: Tensor, labels: Tensor, fixed: Tensor | None = None) -> list[Tensor]:
        self.running = "generator"
        with self._precision():
            return [StraightThroughBytes.apply(as_float32(self.generator.decode(Latents(free, fixed))))]

    @torch.no_grad()
    def _objective_of(self, names: list[str], images: Tensor, *columns: Tensor) -> list[Tensor]:
        beside = dict(zip(names, columns, strict=True))
        with self._precision():
            logits = self._logits(images)
        return [self._climbed(logits, beside.pop("label"), beside)]

    def _forward(
        self, free: Tensor, fixed: Tensor | None, labels: Tensor, beside: Beside
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        self.running = "generator"
        with self._precision():
            decoded = as_float32(self.generator.decode(Latents(free, fixed)))
            images = StraightThroughBytes.apply(decoded)
            logits = self._logits(images)
        return decoded, images, logits, self._climbed(logits, labels, beside)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half_precision)

    def _measure(
        self, images: Tensor, originals: Originals, logits: Tensor, beside: Beside
    ) -> tuple[dict[str, Tensor], Judgement]:
        """The measures of images, and the judgement that they rest on."""
        self.running = "oracle"
        copies = Originals(originals.images.clone(), originals.labels.clone())
        said, judgement = judged(self.oracle, images.clone(), copies)
        if logits.shape[1] != (classes := judgement.probabilities.shape[1]):  # proved before, but anyone's code answers
            raise UserError(
                f"classifier: returns {logits.shape[1]} logits for an image, and there are {classes} labels"
            )
        return said | self._of_logits(logits, originals.labels, beside), judgement

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
            if isinstance(error, torch._dynamo.exc.TorchDynamoException | torch._dynamo.exc.FailOnRecompileLimitHit):
                raise _not_compiled(error) from error
            raise UserError(
                f"{self.running}: fails on a batch of {len(labels)} images: {type(error).__name__}: {one_line(error)}"
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


def _check_compiled(gradient: Tensor, plain: Tensor) -> None:
    """Raises UserError where the gradient of a compiled pass is not that of the same pass as it is written."""
    alike = nn.functional.cosine_similarity(gradient.flatten(), plain.flatten(), dim=0).item()
    if plain.any() and alike < _LEAST_ALIKE:
        raise UserError(
            f"{option('perturb.compile', 'compile')}: the compiled pass has another gradient than the plain one "
            f"(cosine {alike:.2f}), which is a fault of torch; leave it out"
        )


def _not_compiled(error: Exception) -> UserError:
    """What torch can't compile, and where that stands."""
    where = [f"{Path(frame.filename).name}, line {frame.lineno}" for frame in getattr(error, "real_stack", [])[-1:]]
    return UserError(
        f"{option('perturb.compile', 'compile')}: torch can't compile {where[0] if where else 'here'}; leave it out: "
        f"{one_line(error, 160)}"
    )


def judged(oracle: Oracle, images: Tensor, originals: Originals) -> tuple[dict[str, Tensor], Judgement]:
    """What an oracle says of images [B, 3, H, W], as the measures that rows have, and as it says it.

    The measures are `score` and `probability` of the labels, `oracle_label`, [B] each; of a panel the `member_…` too,
    [B, M]. Raises UserError where the answer is none.
    """
    judgement = checked_judgement(oracle.judge(images, originals), images)
    measures = {
        "score": _of(originals.labels, judgement.score),
        "probability": _of(originals.labels, judgement.probabilities),
        "oracle_label": judgement.decided,
    }
    members = [checked_judgement(judgement.members[name], images) for name in oracle.member_names]
    if members:
        measures["member_label"] = torch.stack([member.decided for member in members], 1)
        of_members = [member.probabilities for member in members], [member.score for member in members]
        for name, values in zip(("member_probability", "member_score"), of_members, strict=True):
            measures[name] = torch.stack([_of(originals.labels, of_member) for of_member in values], 1)
    return measures, judgement


def _of(labels: Tensor, values: Tensor) -> Tensor:
    """The value of each row's label: [B] of [B, K]."""
    return values.gather(1, labels.unsqueeze(1)).squeeze(1)


def _attack(options: PerturbOptions) -> Attack | None:
    """The attack on pixels that the latents start from."""
    if options.start == "pgd":
        return Attack.pgd(options.start_epsilon, _PGD_STEPS)
    return Attack.fgsm(options.start_epsilon) if options.start == "fgsm" else None


def row_seed(seed: int, example_id: int, purpose: str = "") -> int:
    """The seed of what is random of an example, another one for each purpose."""
    text = f"{seed}:{example_id}" + (f":{purpose}" if purpose else "")
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
