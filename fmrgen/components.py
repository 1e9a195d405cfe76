"""The four components of a recipe, built and proved to fit each other."""

import hashlib
from typing import NamedTuple

import torch
from torch import nn

from fmrgen.classifiers.base import answer_in_labels
from fmrgen.errors import UserError
from fmrgen.generators.base import Generator, Latents
from fmrgen.oracles.base import Oracle
from fmrgen.sections import ComponentConfig
from fmrgen.sources.base import Source


class Components(NamedTuple):
    """What a recipe builds."""

    source: Source
    classifier: nn.Module
    generator: Generator
    oracle: Oracle


def build_components(
    source_config: ComponentConfig,
    classifier_config: ComponentConfig,
    generator_config: ComponentConfig,
    oracle_config: ComponentConfig,
    device: torch.device | str,
) -> Components:
    """Builds the four, the cheap ones first, and tries them on one blank image.

    Raises UserError where a component can't be built or does what the engine can't use.
    """
    source = source_config.build()
    if len(source.labels) < 2:
        raise UserError(f"source: {len(source.labels)} class leaves nothing to tell apart; a job needs at least 2")
    if len(source) == 0:
        raise UserError("source: no examples in it; check source.split and source.classes")
    generator = generator_config.build(device)
    size = generator.image_size
    blank = torch.full((1, 3, size, size), 0.5, device=device)
    classifier = answer_in_labels(classifier_config.build(device), source.labels, blank, "classifier")
    oracle = oracle_config.build(device)
    oracle.set_labels(source.labels)
    components = Components(source, classifier, generator, oracle)
    _try_out(components, blank)
    return components


def _try_out(components: Components, blank: torch.Tensor) -> None:
    source, classifier, generator, oracle = components
    label = torch.zeros(1, dtype=torch.int64, device=blank.device)
    judgement = oracle.judge(blank)
    for name, values in judgement._asdict().items():
        if tuple(values.shape) != (1, len(source.labels)):
            raise UserError(
                f"oracle: its {name} have shape {tuple(values.shape)} for one image and {len(source.labels)} labels"
            )
    generator.row_seeds = [0]
    with torch.no_grad():
        latents = generator.encode(blank, label)
    generator.row_seeds = ()
    free = latents.free.detach().requires_grad_(True)
    image = generator.decode(Latents(free, latents.fixed))
    if image.shape != blank.shape:
        raise UserError(f"generator: decodes {tuple(blank.shape)} to {tuple(image.shape)}; check generator.image_size")
    loss = classifier(image).logsumexp(1).sum()
    if not loss.requires_grad or torch.autograd.grad(loss, free, allow_unused=True)[0] is None:
        raise UserError(
            "generator: no gradient reaches the latent through decode and classifier; neither may detach it"
        )


def weights_sha256(component: object) -> str | None:
    """A digest of every weight in `component`, None where it has none; independent of the file they came from."""
    digest = hashlib.sha256()
    found = 0
    for name, tensor in sorted(_weights(component, "")):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        found += 1
    return digest.hexdigest() if found else None


def _weights(component: object, prefix: str) -> list[tuple[str, torch.Tensor]]:
    if isinstance(component, nn.Module):
        return [(f"{prefix}{name}", tensor) for name, tensor in component.state_dict().items()]
    if isinstance(component, list | tuple):
        members = {str(i): member for i, member in enumerate(component)}
    else:
        members = dict(vars(component)) if hasattr(component, "__dict__") and not isinstance(component, type) else {}
    parts = {n: m for n, m in members.items() if isinstance(m, nn.Module | list | tuple) or _is_component(m)}
    return [entry for name, member in parts.items() for entry in _weights(member, f"{prefix}{name}.")]


def _is_component(value: object) -> bool:
    return isinstance(value, Generator | Oracle)
