"""How good a generator is, beyond PSNR: perceptual distances, what its changes are made of, and what a pass costs."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fmrgen.engine.images import on_byte_grid
from fmrgen.engine.interfaces import Latents, Originals
from fmrgen.engine.models import row_seed
from fmrgen.errors import option
from fmrgen.recipe.build import Components
from fmrgen.records import Example, Perturbed

FEWEST_FOR_RFID = 2048  # images: with fewer than it has features, its covariances are not of full rank
_COARSE_WAVES = 4  # at most so many across an image: shapes
_FINE_PIXELS = 4  # waves shorter than this: texture
_TOGETHER = 16
_LONGEST_SILENCE = 10.0  # seconds for a host of weights to answer
_EXTRA = "needs torchmetrics and torch-fidelity: pip install 'fmrgen[quality]'"


def _not_here() -> str:
    return f"its weights are not on this machine; {option('download', 'download=True')} fetches them"


class Distance(NamedTuple):
    """A distance between originals and their reconstructions, or why there is none."""

    value: float | None
    why_not: str = ""

    def __str__(self) -> str:
        return f"{self.value:.3g}" if self.value is not None else f"left out: {self.why_not}"


class Spectrum(NamedTuple):
    """Of the squared change of images the shares in coarse waves (at most 4 across the image), in fine ones (shorter
    than 4 pixels), and in those between. Coarse changes are of shapes, fine ones of texture."""

    coarse: float
    between: float
    fine: float

    def __str__(self) -> str:
        return f"{self.coarse:.0%} coarse, {self.between:.0%} between, {self.fine:.0%} fine"


class Cost(NamedTuple):
    """Billions of floating-point operations of a pass of one image, forward and backward."""

    generator: float
    whole: float


@torch.no_grad()
def lpips(originals: Tensor, plain: Tensor, download: bool = False) -> Distance:
    """The mean LPIPS distance (Zhang et al. 2018, AlexNet) of images [N, 3, H, W] in [0, 1] to others.

    Its weights, 0.2 GB, are downloaded where `download` allows it.
    """
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
        from torchvision.models import AlexNet_Weights

        if not download and not _is_here(AlexNet_Weights.IMAGENET1K_V1.url):
            return Distance(None, _not_here())
        with _patience():
            measure = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).to(originals.device)
    except ModuleNotFoundError:
        return Distance(None, _EXTRA)
    except Exception:  # its weights come from torchvision's host
        return Distance(None, "its weights can't be downloaded here")
    for one, other in zip(originals.split(_TOGETHER), plain.split(_TOGETHER), strict=True):
        measure.update(_large_enough(one), _large_enough(other))
    return Distance(float(measure.compute()))


@torch.no_grad()
def rfid(originals: Tensor, plain: Tensor, download: bool = False) -> Distance:
    """The Fréchet distance (Heusel et al. 2017, Inception) of images [N, 3, H, W] in [0, 1] to others; `download` as
    for `lpips`.
    """
    if len(originals) < FEWEST_FOR_RFID:
        return Distance(None, f"needs {option(f'images {FEWEST_FOR_RFID}', f'images={FEWEST_FOR_RFID}')} or more")
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
        from torchmetrics.image.fid import FrechetInceptionDistance

        if not download and not _is_here(URL_INCEPTION_V3):
            return Distance(None, _not_here())
        with _patience():
            measure = FrechetInceptionDistance(feature=2048, normalize=True).to(originals.device)
    except ModuleNotFoundError:
        return Distance(None, _EXTRA)
    except Exception:  # its weights come from torch-fidelity's host
        return Distance(None, "its weights can't be downloaded here")
    for images, is_real in ((originals, True), (plain, False)):
        for batch in images.split(_TOGETHER):
            measure.update(batch, real=is_real)
    return Distance(float(measure.compute()))


def _is_here(url: str) -> bool:
    """Whether torch has downloaded the weights at an address before."""
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).is_file()


@contextmanager
def _patience() -> Iterator[None]:
    """Downloads of these libraries have no time-out: where nothing answers they would wait for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_LONGEST_SILENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _large_enough(images: Tensor) -> Tensor:
    """AlexNet takes images of 64 px and more."""
    if images.shape[-1] >= 64:
        return images
    return torch.nn.functional.interpolate(images, (64, 64), mode="bilinear").clamp(0, 1)


def spectrum(changes: Tensor) -> Spectrum | None:
    """Of changes of images, [N, 3, H, W]; None where nothing changed."""
    side = changes.shape[-1]
    power = torch.fft.fft2(changes.double()).abs().square().mean((0, 1))
    frequency = torch.fft.fftfreq(side, dtype=torch.float64, device=changes.device)  # waves per pixel
    radius = (frequency[:, None].square() + frequency.square()).sqrt()
    if not power.sum() > 0:
        return None
    coarse = float(power[radius * side <= _COARSE_WAVES].sum() / power.sum())
    fine = float(power[(radius > 1 / _FINE_PIXELS) & (radius * side > _COARSE_WAVES)].sum() / power.sum())
    return Spectrum(coarse, max(0.0, 1 - coarse - fine), fine)


@torch.enable_grad()
def cost_of_a_pass(components: Components, latents: Latents) -> Cost:
    """What a pass of the row `latents` takes: decode, classifier and oracle, and the gradient back to the latent."""
    from torch.utils.flop_counter import FlopCounterMode

    _, classifier, generator, oracle = components
    free = latents.free.detach().requires_grad_(True)
    with FlopCounterMode(display=False) as of_generator:
        decoded = generator.decode(Latents(free, latents.fixed))
        decoded.sum().backward()
    with FlopCounterMode(display=False) as of_all:
        decoded = generator.decode(Latents(free, latents.fixed))
        classifier(decoded).logsumexp(1).sum().backward()
        with torch.no_grad():
            image = decoded.detach()
            oracle.judge(image, Originals(image, torch.zeros(len(image), dtype=torch.int64, device=image.device)))
    return Cost(of_generator.get_total_flops() / 1e9, of_all.get_total_flops() / 1e9)


@dataclass(frozen=True)
class Plain:
    """Of originals and of their plain reconstructions: what classifier and oracle get right, and the like."""

    psnr: float
    classifier: tuple[float, float]
    oracle: tuple[float, float]
    oracle_probability: float
    latent_size: int
    latent_scale: float
    originals: torch.Tensor  # [N, 3, H, W] in [0, 1], on the 8-bit grid
    images: torch.Tensor  # their reconstructions
    cost: Cost

    @classmethod
    @torch.no_grad()
    def of(
        cls, components: Components, examples: list[Example], rows: list[Perturbed], seed: int, device: torch.device
    ) -> "Plain":
        """`rows` tell what was said of both; what they do not tell is found from the examples."""
        _, _, generator, oracle = components
        labels = torch.tensor([example.label for example in examples], device=device)
        originals = on_byte_grid(torch.stack([example.image for example in examples]).to(device))
        free, plain, probabilities = [], [], []
        for batch in torch.arange(len(examples)).split(_TOGETHER):
            generator.row_seeds = [row_seed(seed, examples[row].id) for row in batch.tolist()]
            latents = generator.encode(originals[batch], labels[batch])
            free.append(latents.free.float())
            plain.append(on_byte_grid(generator.decode(Latents(*latents)).float()))
            judged = Originals(originals[batch].clone(), labels[batch])
            probabilities.append(oracle.judge(judged.images.clone(), judged).probabilities)
        moved, images = torch.cat(free), torch.cat(plain)
        first = Latents(latents.free[:1], None if latents.fixed is None else latents.fixed[:1])
        error = (originals - images).flatten(1).square().mean(1).clamp(min=1e-10)
        return cls(
            psnr=float((-10 * error.log10()).mean()),
            classifier=(_right(rows, "original_prediction"), _right(rows, "reconstruction_prediction")),
            oracle=(_right(rows, "original_oracle_label"), _right(rows, "reconstruction_oracle_label")),
            oracle_probability=float(torch.cat(probabilities).gather(1, labels.unsqueeze(1)).mean()),
            latent_size=moved[0].numel(),
            latent_scale=float(moved.square().mean().sqrt()),
            originals=originals,
            images=images,
            cost=cost_of_a_pass(components, first),
        )

    def spectrum_of_changes(self, examples: list[Example], rows: list[Perturbed]) -> Spectrum | None:
        """Of what was changed in the valid rows of these examples; None where that is nothing."""
        place = {example.id: number for number, example in enumerate(examples)}
        moved = [row for row in rows if row.valid]
        if not moved:
            return None
        images = torch.stack([row.image for row in moved]).to(self.images.device) / 255
        return spectrum(images - self.images[[place[row.id] for row in moved]])


def _right(rows: list[Perturbed], answer: str) -> float:
    return sum(row.accepts(getattr(row, answer)) for row in rows) / len(rows)
