"""The four components of a recipe, built and proved to fit each other."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from fmrgen.classifiers.base import answer_in_labels, left_out_note, outputs_of_one
from fmrgen.config import ComponentConfig
from fmrgen.engine.checks import check_decoded, checked_judgement
from fmrgen.engine.interfaces import Generator, Judgement, Latents, Oracle, Originals
from fmrgen.errors import UserError, one_line, option
from fmrgen.generators._mask import masked
from fmrgen.generators.base import encode_blank, mask_of
from fmrgen.labels import Labels
from fmrgen.recipe.sections import GeneratorOnly
from fmrgen.sources.base import Source, SourceConfig
from fmrgen.trust.recipes import untrusted_config

Role = TypeVar("Role")

_building = threading.RLock()  # libraries load weights through switches that all threads share
_PROBABILITIES = (
    "classifier: its outputs are probabilities, not logits: where it is sure, they are rounded to 0 and 1 and the "
    "gradient to nothing, which looks like robustness; remove its softmax, or return the logarithm of its outputs"
)
_HALF_A_LEVEL = 0.5 / 255  # of an 8-bit image
_NOTICED = 0.01  # of the range of answers: more than rounding differs between two places in a batch


class Components(NamedTuple):
    """What a recipe builds."""

    source: Source
    classifier: nn.Module
    generator: Generator
    oracle: Oracle

    def notes(self) -> list[str]:
        """Notes on them: a classifier, the tested one or an oracle's, that knows more classes than there
        are labels; a tested one that gives probabilities instead of logits."""
        members = dict(zip(self.oracle.member_names, getattr(self.oracle, "oracles", ()), strict=False))
        oracles = {"oracle": self.oracle} | {f"oracle {name}": member for name, member in members.items()}
        judges = {"classifier": self.classifier}
        judges |= {section: getattr(oracle, "classifier", None) for section, oracle in oracles.items()}
        notes = {section: left_out_note(judge, self.source.labels) for section, judge in judges.items()}
        listed = [f"{section}: {note}" for section, note in notes.items() if note is not None]
        return listed + ([_PROBABILITIES] if gives_probabilities(self.classifier, self.generator.image_size) else [])


def build_components(
    source_config: SourceConfig,
    classifier_config: ComponentConfig,
    generator_config: ComponentConfig,
    oracle_config: ComponentConfig,
    device: torch.device | str,
    needs_gradient: bool = True,
) -> Components:
    """Builds the four, the cheap ones first, and tries them on one blank image; whether a gradient of the classifier
    reaches the latent, where that is needed.

    Raises UserError where a component can't be built or does what the engine can't use.
    """
    source = build_source(source_config)
    if len(source.labels) < 2:
        raise UserError(f"source: {len(source.labels)} class is not enough; a job needs at least 2")
    if len(source) == 0:
        raise UserError("source: contains no examples; check source.split and source.classes")
    generator = build_component(generator_config, "generator", Generator, device)
    blank = blank_image(generator.image_size, device)
    if (mask := mask_of(generator_config)) is not None:
        with component_errors("generator", blank):
            generator = masked(generator, mask, blank)
    judges = build_classifier_and_oracle(classifier_config, oracle_config, source.labels, blank)
    components = Components(source, judges.classifier, generator, judges.oracle)
    with component_errors("generator", blank):
        _try_chain(components, blank, needs_gradient)
    return components


def build_source(config: SourceConfig) -> Source:
    """The source of a config, which loads its images as the config says. Raises UserError."""
    source = build_component(config, "source", Source)
    source.fit, source.on_error = config.fit, config.on_error
    return source


class ClassifierAndOracle(NamedTuple):
    """The two that look at images."""

    classifier: nn.Module
    oracle: Oracle


def build_recorded_generator(tree: Any, *, trust: bool, device: torch.device | str) -> Generator:
    """The generator of a section that a stranger may have written, which is built if it does no harm or is trusted; of
    a sparse one the whole. Raises UserError."""
    cure = f"if you trust it, use {option('trust', 'trust=True')}"
    config = untrusted_config(GeneratorOnly, {"generator": tree}, "the recipe", trust=trust, cure=cure)
    return build_component(config.generator, "generator", Generator, device)


def build_classifier_and_oracle(
    classifier_config: ComponentConfig, oracle_config: ComponentConfig, labels: Labels, blank: torch.Tensor
) -> ClassifierAndOracle:
    """Classifier and oracle on the device of the image `blank` [1, 3, H, W], proved to answer in `labels` on it."""
    classifier = build_component(classifier_config, "classifier", nn.Module, blank.device)
    with component_errors("classifier", blank):
        classifier = fit_to_labels(classifier, labels, blank, "classifier")
    oracle = build_component(oracle_config, "oracle", Oracle, blank.device)
    fit_oracle(oracle, labels, blank)
    return ClassifierAndOracle(classifier, oracle)


def names_of_outputs(classifier: nn.Module, image: torch.Tensor, what: str) -> list[str]:
    """What a classifier calls its classes; of one that does not say, their numbers, as many as it gives for `image`
    [1, 3, H, W]. Raises UserError, starting with `what`, where it fails on it."""
    if (known := getattr(classifier, "class_names", None)) is not None:
        return list(known)
    with component_errors(what, image), torch.no_grad():
        return [str(index) for index in range(outputs_of_one(classifier(image.clone()), what))]


def fit_oracle(oracle: Oracle, labels: Labels, blank: torch.Tensor) -> None:
    """Tells an oracle its labels, and proves on the image `blank` [1, 3, H, W] that it judges in them, each image by
    itself. Raises UserError."""

    def ask(images: torch.Tensor) -> Judgement:
        first_labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        return checked_judgement(oracle.judge(images, Originals(1 - images, first_labels)), images)

    with component_errors("oracle", blank):
        oracle.set_labels(labels)
        judgement = ask(blank.clone())
        for name in ("probabilities", "score"):
            if (shape := tuple(getattr(judgement, name).shape)) != (1, len(labels)):
                raise UserError(f"oracle: its {name} have shape {shape} for one image and {len(labels)} labels")
        _check_independence(lambda images: torch.cat(ask(images)[:2], 1), blank, "oracle")


def fit_to_labels(classifier: nn.Module, labels: Labels, image: torch.Tensor, what: str) -> nn.Module:
    """`classifier`, put in evaluation mode, made to answer in `labels` and proved to judge each image by itself.

    `image` [1, 3, H, W] is what it is tried on, `what` names it in the error. Raises UserError.
    """
    answering = answer_in_labels(classifier.eval(), labels, image.clone(), what).eval()
    _check_independence(answering, image, what)
    return answering


@torch.no_grad()
def gives_probabilities(classifier: nn.Module, image_size: int) -> bool:
    """Whether a classifier's outputs for images of noise are never negative and sum to one."""
    like = next(classifier.parameters(), torch.empty(0))
    noise = torch.rand((2, 3, image_size, image_size), generator=torch.Generator().manual_seed(0))
    with component_errors("classifier", noise):
        outputs = classifier(noise.to(like.device)).float()
    return bool((outputs >= 0).all()) and torch.allclose(outputs.sum(1), outputs.new_ones(2), rtol=0, atol=1e-3)


@torch.no_grad()
def _check_independence(ask: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor, what: str) -> None:
    """Raises UserError where the answer [K] for an image depends on those beside it, on chance, or on earlier ones.

    A split is made in batches of its own making: such answers would be true of no image. `image` [1, 3, H, W] and one
    of noise are asked of in two orders, in dark and in bright company, twice.
    """
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    batches = torch.cat([image, noise / 4, noise]), torch.cat([noise, 1 - noise / 4, image])
    first, second, *again = (ask(batch.clone()) for batch in (*batches, *batches))
    if not len(first) == len(second) == len(batches[0]):
        raise UserError(f"{what}: returns {len(first)} rows for {len(batches[0])} images")
    finite = torch.cat([first, second]).nan_to_num(0, 0, 0)
    noticed = _NOTICED * float(finite.max() - finite.min()) + 1e-6

    def differ(one: torch.Tensor, other: torch.Tensor) -> bool:
        return not torch.allclose(one, other, rtol=0, atol=noticed, equal_nan=True)

    if any(map(differ, (first, second), again)):
        raise UserError(
            f"{what}: gives different answers for the same images; disable whatever is random or keeps state "
            "(eval(), no dropout)"
        )
    if differ(first[[0, 2]], second[[2, 0]]):
        raise UserError(
            f"{what}: its answer for an image depends on the others in the batch; batch norm needs running "
            "statistics and eval(), and nothing may be computed across the batch"
        )


def blank_image(size: int, device: torch.device | str) -> torch.Tensor:
    """A grey image [1, 3, size, size]. Raises UserError where memory is too small for one."""
    try:
        return torch.full((1, 3, size, size), 0.5, device=device)
    except RuntimeError:
        raise UserError(
            f"generator.image_size: an image of {size} px does not fit in memory; choose a smaller one"
        ) from None


def build_component(config: ComponentConfig, section: str, role: type[Role], *device: torch.device | str) -> Role:
    """The component that `config` builds, a `role`. Raises UserError, starting with `section`, for all else."""
    try:
        with _building:
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
def component_errors(section: str, image: torch.Tensor) -> Iterator[None]:
    """Makes whatever a component throws at its first image an error of that section; anyone's code may stand there."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        size = image.shape[-1]
        if re.search(r"to have 1 channels?, but got 3", str(error)):
            raise UserError(
                f"{section}: takes images of one channel and is given RGB; let its forward begin with "
                "images.mean(1, keepdim=True), or take a network of three channels (timm: in_chans=3)"
            ) from error
        raise UserError(
            f"{section}: fails on an image of {size} px: {type(error).__name__}: {one_line(error)}"
        ) from error


@torch.no_grad()
def _check_rows_apart(generator: Generator, latents: Latents) -> None:
    """Raises UserError where what is decoded from the latents [1, …] depends on those beside them, or on chance: a row
    would then be another with other slots, and `verify`, which judges stored images alone, could not tell."""
    noise = torch.randn(latents.free.shape, generator=torch.Generator().manual_seed(0)).to(latents.free)
    fixed = None if latents.fixed is None else torch.cat([latents.fixed, latents.fixed])
    found = []
    for company in (latents.free + noise, latents.free - noise):
        generator.row_seeds = [0, 0]
        try:
            found.append(generator.decode(Latents(torch.cat([latents.free, company]), fixed))[0])
        except torch.OutOfMemoryError:  # a device for one image at a time
            return
        finally:
            generator.row_seeds = ()
    if not torch.allclose(found[0], found[1], rtol=0, atol=_HALF_A_LEVEL):
        raise UserError(
            "generator: what it decodes from a latent depends on the others in the batch, or on chance; nothing may be "
            "computed across the batch, and random numbers must come from self.noise"
        )


def _try_chain(components: Components, blank: torch.Tensor, needs_gradient: bool) -> None:
    generator = components.generator
    latents = encode_blank(generator, blank)
    free = latents.free.detach().requires_grad_(True)
    image = generator.decode(Latents(free, latents.fixed))
    if image.shape != blank.shape:
        raise UserError(f"generator: decodes {tuple(blank.shape)} to {tuple(image.shape)}; check generator.image_size")
    check_decoded(image)
    _check_rows_apart(generator, latents)
    if not needs_gradient:
        return
    loss = components.classifier(image.clone()).logsumexp(1).sum()
    if not loss.requires_grad or torch.autograd.grad(loss, free, allow_unused=True)[0] is None:
        if not components.classifier(image.detach().requires_grad_(True).clone()).requires_grad:
            raise UserError(
                "classifier: gives no gradients; set perturb.update=nes, which estimates them from its answers, or "
                "give it a relative's: {kind: surrogate, classifier: …, surrogate: …} with perturb.update=prior"
            )
        raise UserError(
            "generator: no gradient reaches the latent through decode and classifier; neither may detach it"
        )
