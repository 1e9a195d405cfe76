"""Algorithm 1 as the paper writes it, in batches that wait for their slowest image: the engine's yardstick.

In batches of one image it is the literal algorithm. Every step decodes twice: for the gradient at the last image, and
for the new one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fmrgen.engine.interfaces import Generator, Latents, Oracle
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


def plain_perturb(
    examples: Sequence[Example],
    classifier: nn.Module,
    generator: Generator,
    oracle: Oracle,
    options: PerturbOptions,
    batch_size: int,
    device: torch.device,
) -> Iterator[tuple[int, Outcome]]:
    """(id, outcome) of every example, by sign steps from carried latents."""
    assert options.update == "sign"
    assert not options.reencode
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
    outcomes = [Outcome(image) for image in _bytes(images)]
    reduced = autocast(options, device)
    with torch.no_grad():
        with reduced:
            free, fixed = generator.encode(images, labels)
        target = labels if options.oracle_rule == "label" else oracle.judge(images).probabilities.argmax(1)
    alive = [True] * len(batch)
    for step in range(1, options.budget + 1):
        free = free.detach().float().requires_grad_(True)
        with reduced:
            logits = classifier(_rounded(generator.decode(Latents(free, fixed)).float()))
        loss = cross_entropy(logits.float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, free)
        with torch.no_grad():
            free = free + options.step_size * gradient.sign()
            with reduced:
                new = _rounded(generator.decode(Latents(free, fixed)).float())
            accepted = (oracle.judge(new).probabilities.argmax(1) == target).tolist()
        stored = _bytes(new)
        for row, outcome in enumerate(outcomes):
            if alive[row] and accepted[row]:
                outcome.image, outcome.iterations = stored[row], step
            elif alive[row]:
                alive[row] = False
                outcome.stop_reason = StopReason.ORACLE if outcome.iterations else StopReason.REJECTED
        if not any(alive):
            break
    return outcomes


def _rounded(images: Tensor) -> Tensor:
    """On the 8-bit grid, with the gradient of what was not rounded."""
    return images + ((images * 255).round() / 255 - images).detach()


def _bytes(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8).cpu()
