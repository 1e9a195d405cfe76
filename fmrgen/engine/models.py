"""The three models at work on a batch: one pass over it, and the measures of its images."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fmrgen.engine.acceptance import accepts
from fmrgen.engine.attacks import Attack
from fmrgen.engine.checks import check_decoded, check_labels, checked_judgement
from fmrgen.engine.images import StraightThroughBytes, as_float32
from fmrgen.engine.interfaces import Generator, Judgement, Latents, Oracle, Originals
from fmrgen.engine.objectives import OBJECTIVES, loss, margin, truth_of
from fmrgen.engine.options import PerturbOptions, Target, objectives_of
from fmrgen.engine.slots import OPTIONAL, OptionalColumns, PassOutput, Rows, Slots, first_fault
from fmrgen.errors import UserError, one_line, option

_AFTER_RUNNER_UP = {"third": 1, "fourth": 2}  # targets, by their place among the false classes
_PGD_STEPS = 10  # of an attack that latents start from
Result = TypeVar("Result")
ENCODED_TOGETHER = 16  # images that are encoded at a time, at most
_LEAST_COSINE = 0.9  # between a compiled pass's gradient and the plain one's: rounding and bf16 leave more
ASKED_TOGETHER = 32  # images that a question decodes at a time, whatever the number of slots: see `Models`
_LONGEST_TORCH_ERROR = 160  # characters


class Models:
    """Classifier, generator and oracle, as the engine uses them.

    `together` images are encoded, and measured, at a time; always that many, for kernels differ in the last bits
    between batch sizes, and a row must not.
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
        # Whether examples list the labels that are accepted: None until the first one shows it for all.
        self.lists_accepted: bool | None = None
        self.objectives = objectives_of(options)
        self.half_precision = options.precision == "bf16"
        self.running = "generator"  # the model to name if something is thrown
        self.is_decoded_checked = False  # once: the check waits for the device
        self.together = ENCODED_TOGETHER
        if options.slots != "auto":
            self.together = min(options.slots, ENCODED_TOGETHER)
        self.is_compiled_checked = not options.compile
        self.forward = self._compiled() if options.compile else self._forward

    def _compiled(self) -> Callable[..., Any]:
        torch.compiler.reset()  # torch compiles one function for at most eight models
        settings: Any = {"mode": "reduce-overhead"}  # with CUDA graphs
        if self.device.type == "cpu":  # where convolutions in another layout lose the gradient (torch 2.13)
            settings = {"options": {"layout_optimization": False}}
        compiled: Callable[..., Any] = torch.compile(self._forward, fullgraph=True, dynamic=False, **settings)
        return compiled

    def attacked(self, images: Tensor, labels: Tensor, ids: Sequence[int]) -> Tensor:
        """Return the images to encode: the originals, after the attack on their pixels if the options ask for one.

        `images` are [B, 3, H, W] in [0, 1]; the ids of the examples seed the attack.
        """
        if self.attack is None:
            return images
        return self._in_parts_that_fit(self._attack_rows, images, labels, ids)["images"]

    def _attack_rows(self, images: Tensor, labels: Tensor, ids: Sequence[int]) -> Rows:
        assert self.attack is not None
        self.running = "classifier"
        seeds = [row_seed(self.options.seed, example_id, "attack") for example_id in ids]
        attacked = self.attack(lambda batch: as_float32(self.classifier(batch)), images, labels, row_seeds=seeds)
        return {"images": attacked}

    def encode(self, images: Tensor, labels: Tensor, ids: Sequence[int]) -> Latents:
        """Return the latents of images [B, 3, H, W] in [0, 1], in full precision. The ids seed the generator."""
        return Latents(**self._in_parts_that_fit(self._encode, images, labels, ids))

    def _encode(self, images: Tensor, labels: Tensor, ids: Sequence[int]) -> Rows:
        self.generator.row_seeds = [row_seed(self.options.seed, example_id) for example_id in ids]
        self.running = "generator"
        with torch.no_grad(), self._precision():
            latents = self.generator.encode(images, labels)
        return {name: as_float32(values) for name, values in latents._asdict().items() if values is not None}

    def measure(self, images: Tensor, labels: Tensor, optional: OptionalColumns) -> Rows:
        """Return the measures [B] of images [B, 3, H, W] in [0, 1] on the 8-bit grid, in full precision."""
        return self._in_parts_that_fit(self._measure_originals, images, labels, optional)

    @torch.no_grad()
    def _measure_originals(self, images: Tensor, labels: Tensor, optional: OptionalColumns) -> Rows:
        logits = self._logits(images)
        check_labels(labels, logits.shape[1])
        measures, _ = self._measure(images, Originals(images, labels), logits, optional)
        return measures

    @torch.no_grad()
    def target_classes(self, images: Tensor, labels: Tensor, also_true: Tensor | None) -> Tensor | None:
        """Return the class that each run leads each image to, [B, runs]; None if no run is targeted.

        `images` are the originals, [B, 3, H, W]: the target may depend on the classifier's prediction for them. Classes
        in `also_true`, bool [B, K], are true besides the labels, and therefore no target.
        """
        if "targeted" not in self.objectives:
            return None
        logits = self._logits(images)
        truth = truth_of(labels, logits.shape[1], also_true)
        targets = [self._target_class(run.target, logits, truth) for run in self.options.runs]
        return torch.stack(targets, 1)

    def _target_class(self, target: Target, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the class [B] that `target` stands for, given logits of the originals and their true classes."""
        falling = logits.masked_fill(truth, -torch.inf).sort(dim=1, descending=True, stable=True).indices
        runner_up = falling[:, 0]
        if target == "runner_up":
            return runner_up
        if target == "least_likely":
            return logits.masked_fill(truth, torch.inf).argmin(1)
        if isinstance(target, str):
            last = (~truth).sum(1) - 1
            place = last.clamp(max=_AFTER_RUNNER_UP[target])
            return falling.gather(1, place.unsqueeze(1)).squeeze(1)
        check_labels(runner_up.new_tensor([target]), logits.shape[1])
        chosen = torch.full_like(runner_up, target)
        return torch.where(truth[:, target], runner_up, chosen)

    @torch.no_grad()
    def classes(self, images: Tensor) -> int:
        """Return the number of the classifier's classes, which is asked once, with the first of `images`."""
        if self._classes is None:
            self._classes = self._logits(images[:1]).shape[1]
        return self._classes

    def encode_again(self, state: Slots, slots: list[int]) -> None:
        """Replace the latents in `slots` by those of their last accepted images."""
        for rows, padded in self._in_groups(slots):
            latents = self.encode(state["image"][padded], state["label"][padded], state["id"][padded].tolist())
            state["free"][rows] = latents.free[: len(rows)]
            if latents.fixed is not None:
                state["fixed"][rows] = latents.fixed[: len(rows)]

    def measure_exactly(self, state: Slots, slots: list[int]) -> None:
        """Classify the stored images of `slots` in full precision, if the passes do not."""
        if not self.half_precision:
            return
        for rows, padded in self._in_groups(slots):
            optional = {name: values[padded] for name, values in state.optional.items()}
            images, labels = state["image"][padded], state["label"][padded]
            measures = self._in_parts_that_fit(self._classify, images, labels, optional)
            for name, values in measures.items():
                state[name][rows] = values[: len(rows)]
            state.correct_stored_entry(rows)

    @torch.no_grad()
    def _classify(self, images: Tensor, labels: Tensor, optional: OptionalColumns) -> Rows:
        return self._measure_logits(self._logits(images), labels, optional)

    def _measure_logits(self, logits: Tensor, labels: Tensor, optional: OptionalColumns) -> Rows:
        """Return the measures `OF_LOGITS` of images."""
        return {
            "prediction": logits.argmax(1),
            "loss": loss(logits, labels, optional.get("also_true")),
            "objective": self._objective_of_logits(logits, labels, optional),
            "margin": margin(logits, truth_of(labels, logits.shape[1], optional.get("also_true"))),
        }

    def _objective_of_logits(self, logits: Tensor, labels: Tensor, optional: OptionalColumns) -> Tensor:
        """Return what steps climb, [B], by the objective of each row's attack.

        That is the lead over the true classes, or that of the target class.
        """
        values = []
        for objective in self.objectives:
            if objective == "targeted" and "target_class" in optional:
                losing = ~truth_of(optional["target_class"], logits.shape[1], None)
            else:
                losing = truth_of(labels, logits.shape[1], optional.get("also_true"))
            values.append(OBJECTIVES[objective](logits, losing))
        if "objective_number" not in optional:
            return values[0]
        return torch.stack(values, 1).gather(1, optional["objective_number"].unsqueeze(1)).squeeze(1)

    def _logits(self, images: Tensor) -> Tensor:
        """Return the classifier's logits [B, K] of images [B, 3, H, W], in float32 or finer.

        The classifier gets a copy, so that it cannot write into what is stored and judged.
        """
        self.running = "classifier"
        logits = self.classifier(images.clone())
        if len(logits) != len(images):
            raise UserError(f"classifier: returns {len(logits)} rows of logits for {len(images)} images")
        return as_float32(logits)

    def _in_groups(self, slots: list[int]) -> Iterator[tuple[list[int], list[int]]]:
        """Yield `slots`, `together` at a time, each with the same padded to that many."""
        for start in range(0, len(slots), self.together):
            rows = slots[start : start + self.together]
            yield rows, rows + [rows[-1]] * (self.together - len(rows))

    def seconds_of_a_pass(self, latents: Latents, originals: Originals, at_least: float) -> float | None:
        """Return the seconds of a pass over the rows, timed for `at_least` seconds; None if memory is too small."""

        def timed() -> float:
            one_pass = partial(self._judge, latents, originals, originals.labels, {}, self._forward)
            one_pass()  # warm-up
            passes, started = 0, time.perf_counter()
            while not passes or time.perf_counter() - started < at_least:
                one_pass().gradient.sum().item()  # waits for the device
                passes += 1
            return (time.perf_counter() - started) / passes

        return self._if_it_fits(len(originals.labels), timed)

    def judge_if_it_fits(
        self, latents: Latents, originals: Originals, target: Tensor, optional: OptionalColumns
    ) -> PassOutput | None:
        """Return the output of one pass over the slots; None if memory is too small for all of them.

        `target` [S] is the label that the oracle must see in each image.
        """
        work = partial(self._judge, latents, originals, target, optional, self.forward)
        return self._if_it_fits(len(originals.labels), work)

    def _judge(
        self,
        latents: Latents,
        originals: Originals,
        target: Tensor,
        optional: OptionalColumns,
        forward: Callable[..., Any],
    ) -> PassOutput:
        decoded, images, logits, gradient = self._climb(latents, originals.labels, optional, forward)
        if forward is self.forward and not self.is_compiled_checked:
            _check_compiled(gradient, self._climb(latents, originals.labels, optional, self._forward)[-1])
            self.is_compiled_checked = True
        if not self.is_decoded_checked:
            check_decoded(decoded)
            self.is_decoded_checked = True
        measures, judgement = self._measure(images, originals, logits, optional)
        fault = first_fault(decoded, measures["loss"], torch.cat([judgement.probabilities, judgement.score], 1))
        accepted, target_probability = accepts(judgement, target, self.options, optional.get("also_true"))
        return PassOutput(images, measures, accepted, target_probability, fault, gradient)

    def _climb(
        self, latents: Latents, labels: Tensor, optional: OptionalColumns, forward: Callable[..., Any]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what latents decode to, its 8-bit images, their logits, and the objective's gradient to the latents.

        The gradient is all ones if the update rule needs none.
        """
        with torch.set_grad_enabled(self.needs_gradient):
            free = latents.free.detach().requires_grad_(self.needs_gradient)
            decoded, images, logits, objective = forward(free, latents.fixed, labels, optional)
            if self.needs_gradient:
                (gradient,) = torch.autograd.grad(objective.sum(), free)
            else:
                gradient = torch.ones_like(free)
        return decoded.detach(), images.detach(), logits.detach(), gradient

    def query(self, state: Slots, free: Tensor, slots: Tensor) -> Tensor:
        """Return the objective [n] of the images that latents `free` [n, …] decode to.

        The models see groups padded to one size, so that a row's last bits do not depend on its neighbours.

        The labels, optional columns and fixed latents are those of `slots` [n], the slot of each.
        """
        objectives = []
        for group in torch.arange(len(slots), device=slots.device).split(ASKED_TOGETHER):
            padded = torch.cat([group, group[-1:].expand(ASKED_TOGETHER - len(group))])
            names = {"label", "fixed", *OPTIONAL} & state.rows.keys()
            columns = {name: state[name][slots[padded]] for name in names}
            objective = self._in_parts_that_fit(self._objective_of_latents, free[padded], columns)["objective"]
            objectives.append(objective[: len(group)])
        return torch.cat(objectives)

    @torch.no_grad()
    def _objective_of_latents(self, free: Tensor, columns: Rows) -> Rows:
        *_, objective = self._forward(free, columns.get("fixed"), columns["label"], columns)
        return {"objective": objective}

    def _forward(
        self, free: Tensor, fixed: Tensor | None, labels: Tensor, optional: OptionalColumns
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        self.running = "generator"
        with self._precision():
            decoded = as_float32(self.generator.decode(Latents(free, fixed)))
            images = StraightThroughBytes.apply(decoded)
            logits = self._logits(images)
        return decoded, images, logits, self._objective_of_logits(logits, labels, optional)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half_precision)

    def _measure(
        self, images: Tensor, originals: Originals, logits: Tensor, optional: OptionalColumns
    ) -> tuple[Rows, Judgement]:
        """Return the measures of images, and the judgement that they rest on."""
        self.running = "oracle"
        copies = Originals(originals.images.clone(), originals.labels.clone())
        oracle_measures, judgement = judged(self.oracle, images.clone(), copies)
        classes = judgement.probabilities.shape[1]
        if logits.shape[1] != classes:  # checked before, but a classifier may be any code
            raise UserError(
                f"classifier: returns {logits.shape[1]} logits for an image, and there are {classes} labels"
            )
        return oracle_measures | self._measure_logits(logits, originals.labels, optional), judgement

    def _if_it_fits(self, rows: int, work: Callable[[], Result]) -> Result | None:
        """Return what `work` on so many rows returns; None if a GPU's memory is too small for it, unless it is one row.

        Raises UserError, which names the model at work, for any other exception: a model may be any code.
        """
        try:
            return work()
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error, torch._dynamo.exc.TorchDynamoException | torch._dynamo.exc.FailOnRecompileLimitHit):
                raise _not_compiled(error) from error
            raise UserError(
                f"{self.running}: fails on a batch of {rows} images: {type(error).__name__}: {one_line(error)}"
            ) from error
        if torch.cuda.is_available():  # by now the traceback, which held the tensors, is gone
            torch.cuda.empty_cache()
        return None

    def _in_parts_that_fit(self, work: Callable[..., Rows], *columns: Any) -> Rows:
        """Return the columns that `work` makes of `columns`, in halves, and halves of them, if memory is too small."""
        count = len(columns[0])
        results = self._if_it_fits(count, partial(work, *columns))
        if results is not None:
            return results
        first = self._in_parts_that_fit(work, *[_part(column, slice(count // 2)) for column in columns])
        second = self._in_parts_that_fit(work, *[_part(column, slice(count // 2, None)) for column in columns])
        return {name: torch.cat([values, second[name]]) for name, values in first.items()}


def _part(column: Any, part: slice) -> Any:
    """Return some rows of a column, or of several by their names."""
    return {name: values[part] for name, values in column.items()} if isinstance(column, dict) else column[part]


def _check_compiled(gradient: Tensor, plain: Tensor) -> None:
    """Raise UserError if the gradient of a compiled pass is not that of the same pass without compilation."""
    cosine = nn.functional.cosine_similarity(gradient.flatten(), plain.flatten(), dim=0).item()
    if plain.any() and cosine < _LEAST_COSINE:
        raise UserError(
            f"{option('perturb.compile', 'compile')}: the compiled pass has another gradient than the plain one "
            f"(cosine {cosine:.2f}), which is a fault of torch; leave it out"
        )


def _not_compiled(error: Exception) -> UserError:
    """Return the error that names the line which torch can't compile."""
    place = "here"
    stack = getattr(error, "real_stack", [])
    if stack:
        place = f"{Path(stack[-1].filename).name}, line {stack[-1].lineno}"
    return UserError(
        f"{option('perturb.compile', 'compile')}: torch can't compile {place}; leave it out: "
        f"{one_line(error, _LONGEST_TORCH_ERROR)}"
    )


def judged(oracle: Oracle, images: Tensor, originals: Originals) -> tuple[dict[str, Tensor], Judgement]:
    """Return an oracle's judgement of images, as the measures of their rows and as the oracle gives it.

    The measures are `score` and `probability` of the labels and `oracle_label`, [B] each; those of a panel's members
    are `member_…`, [B, M]. Raises UserError if the answer is not a judgement.

    `images` are [B, 3, H, W] in [0, 1] on the 8-bit grid.
    """
    labels = originals.labels
    judgement = checked_judgement(oracle.judge(images, originals), images)
    measures = {
        "score": _at_label(judgement.score, labels),
        "probability": _at_label(judgement.probabilities, labels),
        "oracle_label": judgement.decided,
    }
    if oracle.member_names:
        members = [checked_judgement(judgement.members[name], images) for name in oracle.member_names]
        probabilities = [_at_label(member.probabilities, labels) for member in members]
        scores = [_at_label(member.score, labels) for member in members]
        measures["member_label"] = torch.stack([member.decided for member in members], 1)
        measures["member_probability"] = torch.stack(probabilities, 1)
        measures["member_score"] = torch.stack(scores, 1)
    return measures, judgement


def _at_label(values: Tensor, labels: Tensor) -> Tensor:
    """Return the value of each row's label: [B] of [B, K]."""
    return values.gather(1, labels.unsqueeze(1)).squeeze(1)


def _attack(options: PerturbOptions) -> Attack | None:
    """Return the attack on pixels that latents start from, if any."""
    if options.start == "pgd":
        return Attack.pgd(options.start_epsilon, _PGD_STEPS)
    if options.start == "fgsm":
        return Attack.fgsm(options.start_epsilon)
    return None


def row_seed(seed: int, example_id: int, purpose: str = "") -> int:
    """Return the seed of an example's randomness, a different one for each purpose, such as "attack"."""
    text = f"{seed}:{example_id}"
    if purpose:
        text += f":{purpose}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
