"""The four components of a recipe, built and proved to fit each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from fmrgen.classifiers.base import answer_in_labels
from fmrgen.errors import UserError, one_line
from fmrgen.generators._mask import masked
from fmrgen.generators.base import Generator, Latents, encode_blank, mask_of
from fmrgen.labels import Labels
from fmrgen.oracles.base import Oracle
from fmrgen.sections import ComponentConfig
from fmrgen.sources.base import Source, SourceConfig


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
    if not isinstance(source_config, SourceConfig):
        raise UserError(f"source: {source_config.kind} does not derive from fmrgen.SourceConfig")
    source = built(source_config, "source", Source)
    if len(source.labels) < 2:
        raise UserError(f"source: {len(source.labels)} class leaves nothing to tell apart; a job needs at least 2")
    if len(source) == 0:
        raise UserError("source: no examples in it; check source.split and source.classes")
    generator = built(generator_config, "generator", Generator, device)
    blank = blank_image(generator.image_size, device)
    if (mask := mask_of(generator_config)) is not None:
        with told_of("generator", blank):
            generator = masked(generator, mask, blank)
    judges = build_judges(classifier_config, oracle_config, source.labels, blank)
    components = Components(source, judges.classifier, generator, judges.oracle)
    with told_of("generator", blank):
        _try_gradient(components, blank)
    return components


class Judges(NamedTuple):
    """The two that look at images."""

    classifier: nn.Module
    oracle: Oracle


def build_judges(
    classifier_config: ComponentConfig, oracle_config: ComponentConfig, labels: Labels, blank: torch.Tensor
) -> Judges:
    """Classifier and oracle on the device of the image `blank` [1, 3, H, W], proved to answer in `labels` on it."""
    classifier = built(classifier_config, "classifier", nn.Module, blank.device)
    with told_of("classifier", blank):
        classifier = answer_in_labels(classifier, labels, blank, "classifier")
    oracle = built(oracle_config, "oracle", Oracle, blank.device)
    with told_of("oracle", blank):
        oracle.set_labels(labels)
        judgement = oracle.judge(blank)
        for name, values in judgement._asdict().items():
            if tuple(values.shape) != (1, len(labels)):
                found = f"{tuple(values.shape)} for one image and {len(labels)} labels"
                raise UserError(f"oracle: its {name} have shape {found}")
    return Judges(classifier, oracle)


def blank_image(size: int, device: torch.device | str) -> torch.Tensor:
    """A grey image [1, 3, size, size]. Raises UserError where memory is too small for one."""
    try:
        return torch.full((1, 3, size, size), 0.5, device=device)
    except RuntimeError:
        raise UserError(f"generator.image_size: no memory holds an image of {size} px; choose a smaller one") from None


def built(config: ComponentConfig, section: str, role: type, *device: torch.device | str) -> Any:
    """The component that `config` builds, a `role`. Raises UserError, starting with `section`, for all else."""
    try:
        component = config.build(*device)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # anyone's code may stand there
        raise UserError(
            f"{section}: {config.kind} can't be built: {type(error).__name__}: {one_line(error)}"
        ) from error
    if not isinstance(component, role):
        raise UserError(f"{section}: {config.kind} builds a {type(component).__name__}, not a {role.__name__}")
    return component


@contextmanager
def told_of(section: str, image: torch.Tensor) -> Iterator[None]:
    """Makes whatever a component throws at its first image an error of that section; anyone's code may stand there."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        size = image.shape[-1]
        raise UserError(
            f"{section}: fails on an image of {size} px: {type(error).__name__}: {one_line(error)}"
        ) from error


def _try_gradient(components: Components, blank: torch.Tensor) -> None:
    generator = components.generator
    latents = encode_blank(generator, blank)
    free = latents.free.detach().requires_grad_(True)
    image = generator.decode(Latents(free, latents.fixed))
    if image.shape != blank.shape:
        raise UserError(f"generator: decodes {tuple(blank.shape)} to {tuple(image.shape)}; check generator.image_size")
    loss = components.classifier(image).logsumexp(1).sum()
    if not loss.requires_grad or torch.autograd.grad(loss, free, allow_unused=True)[0] is None:
        raise UserError(
            "generator: no gradient reaches the latent through decode and classifier; neither may detach it"
        )
