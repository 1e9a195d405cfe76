"""Algorithm 1 as a stream: many images at once, each at its own step, every slot always at work.

Knows no files, no recipe and no command line; it can be lifted out and used alone.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice

import torch
from torch import Tensor, nn

from fmrgen.engine.acceptance import targets
from fmrgen.engine.checks import check_classifier, check_example
from fmrgen.engine.images import on_byte_grid
from fmrgen.engine.interfaces import Generator, Latents, Oracle, Originals
from fmrgen.engine.models import Models, row_seed
from fmrgen.engine.objectives import also_of
from fmrgen.engine.options import PerturbOptions
from fmrgen.engine.slots import Beside, Rows, Slots, new_rows
from fmrgen.engine.updates import UPDATES, Random, Update, normal
from fmrgen.errors import UserError
from fmrgen.records import Example, Perturbed

# From images [B, 3, H, W], labels [B], a seed for each row and what encodes them to their latents.
Encodings = Callable[[Tensor, Tensor, Sequence[int], Callable[[], Latents]], Latents]

_SLOTS_TRIED = tuple(2**power for power in range(11))  # by `slots="auto"`
_GAIN = 1.05  # by which more slots must be faster to be worth their memory
_TIMED_SECONDS = 0.5  # at least so long is each number of slots timed


def perturb(
    examples: Iterable[Example],
    classifier: nn.Module,
    generator: Generator,
    oracle: Oracle,
    options: PerturbOptions,
    *,
    keep_latents: bool = False,
    device: torch.device | str = "cpu",
    expected: int | None = None,
    encodings: Encodings | None = None,
    on_pass: Callable[[int], None] = lambda active: None,
    on_slots: Callable[[int], None] = lambda slots: None,
) -> Iterator[Perturbed]:
    """Perturbs every example as far as the oracle allows (paper §3.1, Algorithm 1); yields each one as it ends.

    `options.slots` images are in flight; a slot whose image ends takes the next example at once. One pass decodes all
    slots, rounds to 8 bits, judges and classifies those very images, and moves the latents one step up the gradient of
    the objective. A row's result depends on neither its neighbours nor their number. Of a controlled example the row is
    made twice, in one slot: the steps that follow its own, at most as many, go in a random direction. Where a GPU's
    memory runs out, the slots are halved and nothing is lost.

    Args:
        examples: images [3, H, W] in [0, 1] of the generator's size, with labels below K; drawn as slots become free.
        classifier: images [B, 3, H, W] in [0, 1] to logits [B, K]; in evaluation mode, on `device`.
        generator: on `device`.
        oracle: on `device`, its labels set.
        options: budget, step and the like.
        keep_latents: puts the latents of the original and of the stored image into the rows.
        device: where the models are.
        expected: how many examples will come, where that is known; `slots: auto` tries no more.
        encodings: asked for the latents of originals, and given what makes them where it has none.
        on_pass: called after each pass with the number of slots that held an image.
        on_slots: called with the number of slots, at the start and when memory has run out.

    Yields:
        A row for each example, in the order in which they end.

    Raises:
        UserError: an image is of another size or scale, a label no class, the classifier in training mode; a model
            fails on a batch, answers for another number of images, or decodes to another scale.
    """
    check_classifier(classifier)
    rule = UPDATES[options.update](options)
    models = Models(classifier, generator, oracle, options, torch.device(device), rule.needs_gradient)
    queue = _encoded(iter(examples), models, rule, options, keep_latents, encodings)
    if options.slots == "auto":
        if (first := next(queue, None)) is None:
            return
        size = _fastest_slots(models, first, expected)
        queue = chain([first], queue)
    else:
        size = options.slots
    slots = Slots(size, shrinks=not options.compile)  # a compiled pass has one shape
    on_slots(slots.size)
    while True:
        slots.refill(queue)
        if not (active := slots.active):
            return
        output = models.judge_if_it_fits(slots.latents, slots.originals, slots["target"], slots.beside)
        if output is None:
            slots.halve()
            on_slots(slots.size)
            continue
        ends, moving = slots.accept(output, options)
        ask = partial(models.ask, slots, labels_alone=rule.labels_alone)
        direction = rule.direction(output.gradient, moving, slots.rows, ask)
        slots.move(direction, options.step_size, moving, generator.project)
        if options.reencode:
            moves = moving.tolist()
            models.encode_again(slots, [slot for slot in slots.going_on(ends) if not moves[slot]])
        models.measure_exactly(slots, [slot for slot, reason in enumerate(ends) if reason is not None])
        on_pass(active)
        yield from slots.pop_finished(ends)


def _encoded(
    examples: Iterator[Example],
    models: Models,
    rule: Update,
    options: PerturbOptions,
    keep_latents: bool,
    encodings: Encodings | None,
) -> Iterator[Rows]:
    """Examples as rows ready for slots, encoded `models.together` at a time; a short batch is padded."""
    while batch := list(islice(examples, models.together)):
        for example in batch:
            check_example(example, models.generator.image_size)
        padded = batch + [batch[-1]] * (models.together - len(batch))
        images = on_byte_grid(torch.stack([example.image for example in padded]).to(models.device))
        labels = torch.tensor([example.label for example in padded], device=models.device)
        ids = [example.id for example in padded]
        begun = models.attacked(images, labels, ids)
        make = partial(models.encode, begun, labels, ids)
        seeds = [row_seed(options.seed, example_id) for example_id in ids]
        latents = make() if encodings is None else encodings(begun, labels, seeds, make)
        beside: Beside = {}
        if (also := _also_true(padded, models, images)) is not None:
            beside["also"] = also
        if options.objective == "targeted":
            beside["aim"] = models.aims(images, labels, also)
        measures = models.measure(images, labels, beside)
        target = targets(labels, measures["oracle_label"], options)
        controlled = [example.controlled for example in padded]
        rows = new_rows(latents, images, ids, labels, target, measures, controlled, options.budget, keep_latents)
        rows |= beside
        update_seeds = [row_seed(options.seed, example_id, "update") for example_id in ids]
        rows |= rule.memory(latents.free, update_seeds)
        if any(controlled):
            rows |= Random(options).memory(latents.free, update_seeds)
        if options.start_noise:
            start_seeds = [row_seed(options.seed, example_id, "start") for example_id in ids]
            noise = torch.stack([normal(latents.free.shape[1:], seed) for seed in start_seeds]).to(latents.free)
            rows["start_noise"] = options.start_noise * noise
        yield {name: values[: len(batch)] for name, values in rows.items()}


def _also_true(batch: list[Example], models: Models, images: Tensor) -> Tensor | None:
    """Which classes are true of the examples besides their labels, bool [B, K]; None where none could be.

    Raises UserError where some examples say so and others do not, or where all classes are true.
    """
    accepted = [example.accepted for example in batch]
    if models.several is None:
        models.several = accepted[0] is not None
    if any((labels is not None) != models.several for labels in accepted):
        raise UserError("examples: some have accepted labels and some have none; give each its own, (label,) at least")
    if not models.several:
        return None
    classes = models.classes(images)
    others = [[label for label in example.accepted or () if label != example.label] for example in batch]
    for example, of_row in zip(batch, others, strict=True):
        if len(of_row) + 1 >= classes or not all(0 <= label < classes for label in of_row):
            what = f"example {example.id}: its accepted labels are {list(example.accepted or ())}"
            raise UserError(f"{what}; of the {classes} classes at least one must be false")
    also = also_of(others, classes)
    if also.any() and models.attack is not None:
        raise UserError("perturb.start: an attack leads away from one label, and several are accepted; set start: none")
    return also.to(images.device)


def _fastest_slots(models: Models, rows: Rows, most: int | None) -> int:
    """The fewest slots that make about as many image-passes per second as any number of them."""
    tried: list[float] = []  # rates of 1, 2, 4, … slots
    for slots in _SLOTS_TRIED:
        if most is not None and slots > max(1, most):
            break
        fixed = _repeated(rows["fixed"], slots) if "fixed" in rows else None
        latents = Latents(_repeated(rows["free"], slots), fixed)
        originals = Originals(_repeated(rows["original"], slots), _repeated(rows["label"], slots))
        seconds = models.seconds_of_a_pass(latents, originals, _TIMED_SECONDS)
        if seconds is None:
            break
        tried.append(slots / seconds)
        if len(tried) > 2 and max(tried) <= _GAIN * max(tried[:-2]):
            break
    return next(slots for slots, rate in zip(_SLOTS_TRIED, tried, strict=False) if _GAIN * rate >= max(tried))


def _repeated(values: Tensor, slots: int) -> Tensor:
    """The first row of `values`, so many times."""
    return values[:1].expand(slots, *values.shape[1:]).contiguous()
