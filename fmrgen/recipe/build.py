"""Building the four components of a recipe, and checking that they fit each other."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from fmrgen.classifiers.base import in_labels, left_out_note, outputs_of_one
from fmrgen.config import ComponentConfig
from fmrgen.engine.checks import check_decoded, checked_judgement
from fmrgen.engine.images import as_float32
from fmrgen.engine.interfaces import Generator, Judgement, Latents, Oracle, Originals
from fmrgen.engine.models import judged
from fmrgen.errors import UserError, missing_package, one_line
from fmrgen.generators._mask import masked
from fmrgen.generators.base import encode_blank, mask_of
from fmrgen.labels import Labels
from fmrgen.sources.base import Source, SourceConfig

Role = TypeVar("Role")

_building = threading.RLock()  # libraries load weights through switches that all threads share
_PROBABILITIES = (
    "classifier: its outputs are probabilities, not logits: where it is sure, they are rounded to 0 and 1 and the "
    "gradient to nothing, which looks like robustness; remove its softmax, or return the logarithm of its outputs"
)


class Components(NamedTuple):
    """The components that a recipe builds, on one device.

    Attributes:
        source: of the original images and their labels.
        classifier: images [B, 3, H, W] in [0, 1] to logits [B, K] over the labels of the source; in evaluation mode.
        generator: whose latents are moved.
        oracle: that judges images over the same labels.
    """

    source: Source
    classifier: nn.Module
    generator: Generator
    oracle: Oracle

    def notes(self) -> list[str]:
        """Return notes on the components.

        They are about classifiers, the tested one or an oracle's, that know more classes than there are labels, and
        about a tested classifier that returns probabilities instead of logits.
        """
        judges: dict[str, Any] = {"classifier": self.classifier, "oracle": getattr(self.oracle, "classifier", None)}
        members = getattr(self.oracle, "oracles", ())
        for name, member in zip(self.oracle.member_names, members, strict=False):
            judges[f"oracle {name}"] = getattr(member, "classifier", None)
        left_out = {section: left_out_note(judge, self.source.labels) for section, judge in judges.items()}
        notes = [f"{section}: {note}" for section, note in left_out.items() if note is not None]
        if gives_probabilities(self.classifier, self.generator.image_size):
            notes.append(_PROBABILITIES)
        return notes


def build_components(
    source_config: SourceConfig,
    classifier_config: ComponentConfig,
    generator_config: ComponentConfig,
    oracle_config: ComponentConfig,
    device: torch.device | str,
    needs_gradient: bool = True,
) -> Components:
    """Build the four components, the cheap ones first, and try them on one blank image.

    `needs_gradient` says whether a gradient of the classifier must reach the latent. Raises UserError if a component
    can't be built, or behaves in a way that the engine can't use.
    """
    source = build_source(source_config)
    if len(source.labels) < 2:
        raise UserError(f"source: {len(source.labels)} class is not enough; a job needs at least 2")
    if len(source) == 0:
        raise UserError("source: contains no examples; check source.split and source.classes")
    generator = build_generator(generator_config, device)
    blank = blank_image(generator.image_size, device)
    labels, size = source.labels, generator.image_size
    classifier = build_classifier(classifier_config, labels, size, device)
    oracle = build_oracle(oracle_config, labels, size, device)
    components = Components(source, classifier, generator, oracle)
    with component_errors("generator", blank):
        _try_chain(components, blank, needs_gradient)
    return components


def build_source(config: SourceConfig) -> Source:
    """Return the source of a config, which loads its images as the config says. Raises UserError."""
    source = build_component(config, "source", Source)
    source.fit, source.on_error = config.fit, config.on_error
    return source


class ClassifierAndOracle(NamedTuple):
    """The two components that look at images."""

    classifier: nn.Module
    oracle: Oracle


def build_generator(config: ComponentConfig, device: torch.device | str) -> Generator:
    """Return the generator of a config, with the mask that it names if it names one. Raises UserError."""
    generator = build_component(config, "generator", Generator, device)
    mask = mask_of(config)
    if mask is None:
        return generator
    blank = blank_image(generator.image_size, device)
    with component_errors("generator", blank):
        return masked(generator, mask, blank)


def build_classifier(
    config: ComponentConfig, labels: Labels, image_size: int, device: torch.device | str, section: str = "classifier"
) -> nn.Module:
    """Return a classifier in evaluation mode, checked on a blank image to answer in the source's `labels`.

    `image_size` is the side of the images in pixels. Raises UserError, starting with `section`, if it can't be built,
    or does not answer in `labels`.
    """
    classifier = build_component(config, section, nn.Module, device)
    blank = blank_image(image_size, device)
    with component_errors(section, blank):
        return fit_to_labels(classifier, labels, blank, section)


def build_oracle(
    config: ComponentConfig, labels: Labels, image_size: int, device: torch.device | str, section: str = "oracle"
) -> Oracle:
    """Return an oracle, checked on a blank image to judge in the source's `labels`.

    `image_size` is the side of the images in pixels. Raises UserError, starting with `section`, if it can't be built,
    or does not judge in `labels`.
    """
    oracle = build_component(config, section, Oracle, device)
    fit_oracle(oracle, labels, blank_image(image_size, device))
    return oracle


def names_of_outputs(classifier: nn.Module, image: torch.Tensor, section: str) -> list[str]:
    """Return a classifier's names of its classes, or their numbers if it has no names.

    The outputs are counted on `image` [1, 3, H, W]. Raises UserError, starting with `section`, if it fails on the
    image.
    """
    class_names = getattr(classifier, "class_names", None)
    if class_names is not None:
        return list(class_names)
    with component_errors(section, image), torch.no_grad():
        outputs = outputs_of_one(classifier(image.clone()), section)
    return [str(index) for index in range(outputs)]


def fit_oracle(oracle: Oracle, labels: Labels, blank: torch.Tensor) -> None:
    """Set an oracle's labels, and check that it judges in them, each image by itself.

    It is tried on the image `blank` [1, 3, H, W]. Raises UserError if it fails on the image, or its judgement has
    another shape or depends on other images.
    """

    def ask(images: torch.Tensor) -> Judgement:
        first_labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        return checked_judgement(oracle.judge(images, Originals(1 - images, first_labels)), images)

    with component_errors("oracle", blank):
        oracle.set_labels(labels)
        judgement = ask(blank.clone())
        for name in ("probabilities", "score"):
            shape = tuple(getattr(judgement, name).shape)
            if shape != (1, len(labels)):
                raise UserError(f"oracle: its {name} have shape {shape} for one image and {len(labels)} labels")
        _check_independence(lambda images: torch.cat(ask(images)[:2], 1), blank, "oracle")


def fit_to_labels(classifier: nn.Module, labels: Labels, image: torch.Tensor, section: str) -> nn.Module:
    """Return `classifier` in evaluation mode, answering in `labels`, and checked to judge each image by itself.

    It is put in evaluation mode in place, and tried on `image` [1, 3, H, W]. Raises UserError, starting with `section`,
    if it can't answer in the labels, or its output for an image depends on others.
    """
    network = in_labels(classifier.eval(), labels, image.clone(), section).eval()
    _check_independence(network, image, section)
    return network


@torch.no_grad()
def gives_probabilities(classifier: nn.Module, image_size: int) -> bool:
    """Return whether a classifier's outputs for images of noise are never negative and sum to one."""
    like = next(classifier.parameters(), torch.empty(0))
    noise = torch.rand((2, 3, image_size, image_size), generator=torch.Generator().manual_seed(0))
    with component_errors("classifier", noise):
        outputs = classifier(noise.to(like.device)).float()
    return bool((outputs >= 0).all()) and torch.allclose(outputs.sum(1), outputs.new_ones(2), rtol=0, atol=1e-3)


@torch.no_grad()
def _check_independence(ask: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor, section: str) -> None:
    """Raise UserError if the output [K] for an image depends on others in the batch, on chance, or on earlier images.

    The engine puts images in batches in its own way, so such outputs would belong to no image. The component is asked
    about `image` [1, 3, H, W] and an image of noise in two orders, with a dark or a bright image between them, twice.
    """
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    with_dark = torch.cat([image, noise / 4, noise])
    with_bright = torch.cat([noise, 1 - noise / 4, image])
    first, second = ask(with_dark.clone()), ask(with_bright.clone())
    first_again, second_again = ask(with_dark.clone()), ask(with_bright.clone())
    if not len(first) == len(second) == len(with_dark):
        raise UserError(f"{section}: returns {len(first)} rows for {len(with_dark)} images")
    finite = torch.cat([first, second]).nan_to_num(0, 0, 0)
    # A hundredth of the range of outputs: more than rounding differs between two places in a batch.
    noticed = 0.01 * float(finite.max() - finite.min()) + 1e-6

    def differ(outputs: torch.Tensor, others: torch.Tensor) -> bool:
        return not torch.allclose(outputs, others, rtol=0, atol=noticed, equal_nan=True)

    if differ(first, first_again) or differ(second, second_again):
        raise UserError(
            f"{section}: gives different outputs for the same images; disable whatever is random or keeps state "
            "(eval(), no dropout)"
        )
    if differ(first[[0, 2]], second[[2, 0]]):
        raise UserError(
            f"{section}: its output for an image depends on the others in the batch; batch norm needs running "
            "statistics and eval(), and nothing may be computed across the batch"
        )


def blank_image(size: int, device: torch.device | str) -> torch.Tensor:
    """Return a grey image [1, 3, size, size]. Raises UserError if it does not fit in memory."""
    try:
        return torch.full((1, 3, size, size), 0.5, device=device)
    except RuntimeError:
        raise UserError(
            f"generator.image_size: an image of {size} px does not fit in memory; choose a smaller one"
        ) from None


def build_component(config: ComponentConfig, section: str, role: type[Role], *device: torch.device | str) -> Role:
    """Return the component that `config` builds, on a device unless it is a source.

    Raises UserError, starting with `section`, if it can't be built, or is no `role`.
    """
    try:
        with _building:
            component = config.build(*device)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # this may be any user's code
        if missing := missing_package(error):
            raise UserError(f"{section}: {config.kind} {missing}") from None
        raise UserError(
            f"{section}: {config.kind} can't be built: {type(error).__name__}: {one_line(error)}"
        ) from error
    if not isinstance(component, role):
        raise UserError(f"{section}: {config.kind} builds a {type(component).__name__}, not a {role.__name__}")
    return component


@contextmanager
def component_errors(section: str, image: torch.Tensor) -> Iterator[None]:
    """Turn any exception of a component on its first image into a UserError; it may be any user's code."""
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
        cure = ""
        if "shape" in str(error) or "size" in str(error):
            cure = "; if it takes images of another size, say which in its section, as {kind: module, …, size: 32}"
        raise UserError(
            f"{section}: fails on an image of {size} px: {type(error).__name__}: {one_line(error)}{cure}"
        ) from error


@torch.no_grad()
def logits_of(classifier: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return a classifier's logits, float32 or more, [B, K], for images [B, 3, H, W] in [0, 1].

    Raises UserError if it fails on the images.
    """
    with component_errors("classifier", images):
        return as_float32(classifier(images.clone()))  # it may write into what it gets


@torch.no_grad()
def judgement_of(
    oracle: Oracle, images: torch.Tensor, originals: Originals, section: str = "oracle"
) -> tuple[dict[str, torch.Tensor], Judgement]:
    """Return an oracle's judgement of images, as the measures of their rows and as the oracle gives it.

    The images are [B, 3, H, W] in [0, 1] on the 8-bit grid; the oracle may be a panel. Raises UserError, starting with
    `section`, if it fails on the images, or its output is not a judgement.
    """
    with component_errors(section, images):
        return judged(oracle, images.clone(), Originals(originals.images.clone(), originals.labels))


@torch.no_grad()
def _check_rows_apart(generator: Generator, latents: Latents) -> None:
    """Raise UserError if the image decoded from latents [1, …] depends on others in the batch, or on chance.

    A row would then change with the number of slots, and `verify`, which judges stored images alone, could not tell.
    """
    noise = torch.randn(latents.free.shape, generator=torch.Generator().manual_seed(0)).to(latents.free)
    fixed = None if latents.fixed is None else torch.cat([latents.fixed, latents.fixed])
    images = []
    for neighbour in (latents.free + noise, latents.free - noise):
        generator.row_seeds = [0, 0]
        try:
            images.append(generator.decode(Latents(torch.cat([latents.free, neighbour]), fixed))[0])
        except torch.OutOfMemoryError:  # a device for one image at a time
            return
        finally:
            generator.row_seeds = ()
    if not torch.allclose(images[0], images[1], rtol=0, atol=0.5 / 255):  # half a level of an 8-bit image
        raise UserError(
            "generator: what it decodes from a latent depends on the others in the batch, or on chance; nothing may be "
            "computed across the batch, and random numbers must come from self.noise"
        )


def _try_chain(components: Components, blank: torch.Tensor, needs_gradient: bool) -> None:
    """Raise UserError if the image `blank` [1, 3, H, W] does not survive encoding, decoding and classification."""
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
                "classifier: gives no gradients; set perturb.update=nes, which estimates them from its outputs"
            )
        raise UserError(
            "generator: no gradient reaches the latent through decode and classifier; neither may detach it"
        )
