"""Algorithm 1 as a stream: many images at once, each at its own step, every slot always at work.

It knows no files, recipe or command line, and can be used alone.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice

import torch
from torch import Tensor, nn

from fmrgen.engine.acceptance import targets
from fmrgen.engine.checks import check_classifier, check_example
from fmrgen.engine.ensemble import Ensemble, worst_of
from fmrgen.engine.images import on_byte_grid
from fmrgen.engine.interfaces import Generator, Latents, Oracle, Originals
from fmrgen.engine.models import Models, row_seed
from fmrgen.engine.objectives import also_of
from fmrgen.engine.options import PerturbOptions
from fmrgen.engine.slots import OPTIONAL, Rows, Slots, new_rows
from fmrgen.errors import UserError
from fmrgen.records import Example, Perturbed

# Returns latents, given images [B, 3, H, W], labels [B], a seed for each row, and a function that encodes them.
Encodings = Callable[[Tensor, Tensor, Sequence[int], Callable[[], Latents]], Latents]
OnStep = Callable[[int, int, int, Tensor], None]

_MOST_SLOTS_TRIED = 1024  # by `slots: auto`
_GAIN = 1.05  # more slots must be faster by this factor to be worth their memory
_TIMED_SECONDS = 0.5  # each number of slots is timed for at least so long


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
    on_step: OnStep | None = None,
) -> Iterator[Perturbed]:
    """Perturb every example as far as the oracle allows (paper §3.1, Algorithm 1); yield each one as it ends.

    `options.slots` images are in flight; a slot whose image ends takes the next example at once. One pass decodes all
    slots, rounds to 8 bits, judges and classifies those very images, and moves the latents one step up the gradient of
    the objective. A row's result does not depend on the other rows. A controlled example also takes random steps after
    its guided ones, at most as many, from the same encoding and in the same slot. With several attacks
    (`options.attacks`) an example takes the next one likewise, until one has fooled the classifier, and the worst
    accepted image is stored. If a GPU's memory runs out, the slots are halved and nothing is lost.

    Args:
        examples: images [3, H, W] in [0, 1] of the generator's size, with labels below K; drawn as slots become free.
        classifier: images [B, 3, H, W] in [0, 1] to logits [B, K]; in evaluation mode, on `device`.
        generator: on `device`.
        oracle: on `device`, its labels set.
        options: budget, step size and all other options of Algorithm 1.
        keep_latents: add the latents of the original and of the stored image to the rows.
        device: device of the models.
        expected: number of examples, if known; there are no more slots, and no larger batches, than that.
        encodings: returns the latents of originals, from a cache or by calling the function passed to it.
        on_pass: called after each pass with the number of slots that held an image.
        on_slots: called with the number of slots at the start, and again when memory has run out.
        on_step: called with each guided step that the oracle accepted, the plain reconstruction first: id of the
            example, number of the attack, step, and image [3, H, W], uint8.

    Yields:
        A row for each example, in the order in which they end.

    Raises:
        UserError: an image has the wrong size or scale, a label is not a class, or the classifier is in training mode;
            or a model fails on a batch, or returns another number of rows or another scale.
    """
    check_classifier(classifier)
    ensemble = Ensemble(options)
    models = Models(classifier, generator, oracle, options, torch.device(device), ensemble.needs_gradient)
    if expected is not None:
        models.together = min(models.together, max(1, expected))
    queue = _encoded(iter(examples), models, ensemble, keep_latents, encodings)
    if options.slots == "auto":
        first = next(queue, None)
        if first is None:
            return
        size = _fastest_slots(models, first, expected)
        queue = chain([first], queue)
    else:
        size = options.slots if expected is None else min(options.slots, max(1, expected))
    holds_all = expected is not None and expected <= size
    slots = Slots(size, not options.compile, len(ensemble), holds_all)  # a compiled pass has one shape
    on_slots(slots.size)
    while True:
        slots.refill(queue)
        active = slots.active
        if not active:
            return
        output = models.judge_if_it_fits(slots.latents, slots.originals, slots["target"], slots.optional)
        if output is None:
            slots.halve()
            on_slots(slots.size)
            continue
        ends, moving = slots.accept(output, options)
        if on_step is not None:
            for step in slots.recorded_steps(output.images):
                on_step(*step)
        query = partial(models.query, slots)
        direction = ensemble.direction(output.gradient, moving, slots.rows, query)
        slots.move(direction, moving, generator.project)
        if options.reencode:
            is_moving = moving.tolist()
            models.encode_again(slots, [slot for slot in slots.going_on(ends) if not is_moving[slot]])
        models.measure_exactly(slots, [slot for slot, reason in enumerate(ends) if reason is not None])
        on_pass(active)
        yield from map(worst_of, slots.pop_finished(ends, ensemble.columns_of))


def _encoded(
    examples: Iterator[Example],
    models: Models,
    ensemble: Ensemble,
    keep_latents: bool,
    encodings: Encodings | None,
) -> Iterator[Rows]:
    """Yield the examples as rows for slots, encoded `models.together` at a time; a short batch is padded."""
    options = ensemble.options
    while batch := list(islice(examples, models.together)):
        for example in batch:
            check_example(example, models.generator.image_size)
        padded = batch + [batch[-1]] * (models.together - len(batch))
        images = on_byte_grid(torch.stack([example.image for example in padded]).to(models.device))
        labels = torch.tensor([example.label for example in padded], device=models.device)
        ids = [example.id for example in padded]
        start_images = models.attacked(images, labels, ids)
        encode = partial(models.encode, start_images, labels, ids)
        if encodings is None:
            latents = encode()
        else:
            seeds = [row_seed(options.seed, example_id) for example_id in ids]
            latents = encodings(start_images, labels, seeds, encode)
        also_true = _also_true(padded, models, images)
        controlled = [example.controlled for example in padded]
        target_classes = models.target_classes(images, labels, also_true)
        columns = ensemble.new_columns(latents.free, ids, target_classes, controlled=any(controlled))
        if also_true is not None:
            columns["also_true"] = also_true
        optional = {name: columns[name] for name in OPTIONAL if name in columns}
        measures = models.measure(images, labels, optional)
        target = targets(labels, measures["oracle_label"], options)
        rows = new_rows(latents, images, ids, labels, target, measures, controlled, options.budget, keep_latents)
        rows |= columns
        yield {name: values[: len(batch)] for name, values in rows.items()}


def _also_true(batch: list[Example], models: Models, images: Tensor) -> Tensor | None:
    """Return the classes that are true of the examples besides their labels, bool [B, K]; None if none are listed.

    Raises UserError if some examples list accepted labels and others do not, or if all classes are true.
    """
    if models.lists_accepted is None:
        models.lists_accepted = batch[0].accepted is not None
    if any((example.accepted is not None) != models.lists_accepted for example in batch):
        raise UserError("examples: some have accepted labels and some have none; give each its own, (label,) at least")
    if not models.lists_accepted:
        return None
    classes = models.classes(images)
    others = []
    for example in batch:
        accepted = list(example.accepted or ())
        labels = [label for label in accepted if label != example.label]
        if len(labels) + 1 >= classes or not all(0 <= label < classes for label in labels):
            raise UserError(
                f"example {example.id}: its accepted labels are {accepted}; of the {classes} classes at least one "
                "must be false"
            )
        others.append(labels)
    also_true = also_of(others, classes)
    if also_true.any() and models.attack is not None:
        raise UserError("perturb.start: attacks support one label, and several are accepted; set start: none")
    return also_true.to(images.device)


def _fastest_slots(models: Models, rows: Rows, most: int | None) -> int:
    """Return the fewest slots that are about as fast, in images per second, as any number of slots up to `most`."""
    rates: list[float] = []  # images per second with 1, 2, 4, … slots
    slots = 1
    while slots <= _MOST_SLOTS_TRIED and (most is None or slots <= max(1, most)):
        copies = {}  # of the first row
        for name in {"free", "fixed", "original", "label"} & rows.keys():
            copies[name] = rows[name][:1].expand(slots, *rows[name].shape[1:]).contiguous()
        originals = Originals(copies["original"], copies["label"])
        latents = Latents(copies["free"], copies.get("fixed"))
        seconds = models.seconds_of_a_pass(latents, originals, _TIMED_SECONDS)
        if seconds is None:
            break
        rates.append(slots / seconds)
        if len(rates) > 2 and max(rates) <= _GAIN * max(rates[:-2]):  # twice more slots have not helped
            break
        slots *= 2
    is_fast_enough = [_GAIN * rate >= max(rates) for rate in rates]
    return 2 ** is_fast_enough.index(True)
