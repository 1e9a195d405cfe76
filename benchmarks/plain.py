"""Algorithm 1 in batches that wait for their slowest image: the engine's yardstick.

Every step decodes twice: for the gradient at the last image, and for the new one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fmrgen.engine.acceptance import accepts, targets
from fmrgen.engine.images import as_float32, to_bytes
from fmrgen.engine.interfaces import Generator, Latents, Oracle, Originals
from fmrgen.engine.models import row_seed
from fmrgen.engine.objectives import OBJECTIVES, truth_of
from fmrgen.engine.options import PerturbOptions
from fmrgen.records import Example, StopReason


@dataclass
class Outcome:
    """What one image became: bytes [3, H, W], its guided steps, and why they ended."""

    image: Tensor
    iterations: int = 0
    stop_reason: StopReason = StopReason.BUDGET


def autocast(options: PerturbOptions, device: torch.device) -> torch.autocast:
    """The precision of generator and classifier."""
    return torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16")


def is_plain(options: PerturbOptions) -> bool:
    """Whether batches that wait can do what the options say: one attack of sign steps, without noise."""
    is_one = (options.attacks, options.start, options.start_noise) == ("one", "none", 0)
    return is_one and options.update == "sign" and not options.reencode


def plain_perturb(
    examples: Sequence[Example],
    classifier: nn.Module,
    generator: Generator,
    oracle: Oracle,
    options: PerturbOptions,
    batch_size: int,
    device: torch.device,
) -> Iterator[tuple[int, Outcome]]:
    """(id, outcome) of every example, by sign steps from carried latents: see `is_plain`."""
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        outcomes = _perturb_batch(batch, classifier, generator, oracle, options, device)
        yield from zip((example.id for example in batch), outcomes, strict=True)


def _perturb_batch(
    batch: Sequence[Example],
    classifier: nn.Module,
    generator: Generator,
    oracle: Oracle,
    options: PerturbOptions,
    device: torch.device,
) -> list[Outcome]:
    images = torch.stack([example.image for example in batch]).to(device)
    labels = torch.tensor([example.label for example in batch], device=device)
    outcomes = [Outcome(image) for image in to_bytes(images).cpu()]
    reduced = autocast(options, device)
    originals = Originals(images, labels)
    with torch.no_grad():
        generator.row_seeds = [row_seed(options.seed, example.id) for example in batch]
        with reduced:
            free, fixed = generator.encode(images, labels)
        target = targets(labels, oracle.judge(images, originals).decided, options)
    begun = free = as_float32(free)
    alive = [True] * len(batch)
    for step in range(1, options.budget + 1):
        free = free.detach().requires_grad_(True)
        with reduced:
            logits = classifier(_rounded(as_float32(generator.decode(Latents(free, fixed)))))
        truth = truth_of(labels, logits.shape[1], None)
        objective = OBJECTIVES[options.objective](as_float32(logits), truth)
        (gradient,) = torch.autograd.grad(objective.sum(), free)
        stuck = (gradient == 0).flatten(1).all(1).tolist()
        with torch.no_grad():
            free = generator.project(Latents(free + options.step * gradient.sign(), fixed), begun)
            with reduced:
                new = _rounded(as_float32(generator.decode(Latents(free, fixed))))
            accepted = accepts(oracle.judge(new, originals), target, options)[0].tolist()
            has_reached = [False] * len(batch)
            if options.keep == "first":
                with reduced:
                    logits = as_float32(classifier(new))
                lead = OBJECTIVES[options.objective](logits, truth)
                has_reached = ((logits.argmax(1) != labels) & (lead > 0)).tolist()
        stored = to_bytes(new).cpu()
        for row, outcome in enumerate(outcomes):
            if alive[row] and accepted[row] and not stuck[row]:
                outcome.image, outcome.iterations = stored[row], step
                if has_reached[row]:
                    alive[row] = False
                    outcome.stop_reason = StopReason.REACHED
            elif alive[row]:
                alive[row] = False
                refused = StopReason.ORACLE if outcome.iterations else StopReason.REJECTED
                outcome.stop_reason = StopReason.STUCK if stuck[row] else refused
        if not any(alive):
            break
    return outcomes


def _rounded(images: Tensor) -> Tensor:
    """On the 8-bit grid, with the gradient of what was not rounded."""
    return images + ((images * 255).round() / 255 - images).detach()
