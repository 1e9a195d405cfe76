"""The quality of a generator beyond PSNR: perceptual distances, the spectrum of its changes, and the cost of a pass."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fmrgen.engine.images import on_byte_grid
from fmrgen.engine.interfaces import Generator, Latents, Originals
from fmrgen.engine.models import row_seed
from fmrgen.errors import option
from fmrgen.recipe.build import Components, judgement_of
from fmrgen.records import Example, Perturbed

FEWEST_FOR_RFID = 2048  # images: with fewer than it has features, its covariances are not of full rank
_COARSE_WAVES = 4  # at most so many across an image: shapes
_FINE_PIXELS = 4  # waves shorter than this: texture
_BATCH_SIZE = 16
_LONGEST_SILENCE = 10.0  # seconds for a host of weights to answer
_LEAST_ERROR = 1e-10  # a mean square: that of equal images is 0, and its logarithm infinite
_SMALLEST_ALEXNET = 64  # px
_EXTRA = "needs torchmetrics and torch-fidelity: pip install 'fmrgen[quality]'"


def _weights_missing() -> str:
    return f"its weights are not on this machine; {option('download', 'download=True')} fetches them"


class Distance(NamedTuple):
    """A distance between originals and their reconstructions, or the reason why there is none."""

    value: float | None
    why_not: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return f"left out: {self.why_not}"
        return f"{self.value:.3g}"


class Spectrum(NamedTuple):
    """Shares of the squared change of images by wavelength.

    Coarse waves are at most 4 across the image, fine ones are shorter than 4 pixels. Coarse changes are of shapes, fine
    ones of texture.
    """

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
    """Return the mean LPIPS distance (Zhang et al. 2018, AlexNet) of images to their reconstructions.

    Args:
        originals: [N, 3, H, W] in [0, 1].
        plain: their reconstructions, likewise.
        download: whether to download the weights, 0.2 GB, if they are missing.
    """
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
        from torchvision.models import AlexNet_Weights

        if not download and not _is_downloaded(AlexNet_Weights.IMAGENET1K_V1.url):
            return Distance(None, _weights_missing())
        with _patience():
            measure = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).to(originals.device)
    except ModuleNotFoundError:
        return Distance(None, _EXTRA)
    except Exception:  # its weights come from torchvision's host
        return Distance(None, "its weights can't be downloaded here")
    for first, second in zip(originals.split(_BATCH_SIZE), plain.split(_BATCH_SIZE), strict=True):
        measure.update(_large_enough(first), _large_enough(second))
    return Distance(float(measure.compute()))


@torch.no_grad()
def rfid(originals: Tensor, plain: Tensor, download: bool = False) -> Distance:
    """Return the Fréchet distance (Heusel et al. 2017, Inception) of images to their reconstructions.

    Args:
        originals: [N, 3, H, W] in [0, 1].
        plain: their reconstructions, likewise.
        download: whether to download the weights if they are missing.
    """
    if len(originals) < FEWEST_FOR_RFID:
        return Distance(None, f"needs {option(f'images {FEWEST_FOR_RFID}', f'images={FEWEST_FOR_RFID}')} or more")
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
        from torchmetrics.image.fid import FrechetInceptionDistance

        if not download and not _is_downloaded(URL_INCEPTION_V3):
            return Distance(None, _weights_missing())
        with _patience():
            measure = FrechetInceptionDistance(feature=2048, normalize=True).to(originals.device)
    except ModuleNotFoundError:
        return Distance(None, _EXTRA)
    except Exception:  # its weights come from torch-fidelity's host
        return Distance(None, "its weights can't be downloaded here")
    for images, is_real in ((originals, True), (plain, False)):
        for batch in images.split(_BATCH_SIZE):
            measure.update(batch, real=is_real)
    return Distance(float(measure.compute()))


def _is_downloaded(url: str) -> bool:
    """Return whether torch has downloaded the weights at an address before."""
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).is_file()


@contextmanager
def _patience() -> Iterator[None]:
    """Set a time-out for downloads: these libraries have none, and would wait for minutes if nothing answers."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_LONGEST_SILENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _large_enough(images: Tensor) -> Tensor:
    """Return images of at least 64 px, as AlexNet needs them."""
    if images.shape[-1] >= _SMALLEST_ALEXNET:
        return images
    size = (_SMALLEST_ALEXNET, _SMALLEST_ALEXNET)
    return torch.nn.functional.interpolate(images, size, mode="bilinear").clamp(0, 1)


def spectrum(changes: Tensor) -> Spectrum | None:
    """Return the spectrum of changes of images, [N, 3, H, W]; None if nothing changed."""
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
    """Return the cost of a pass of the row `latents`.

    A pass is to decode, to ask classifier and oracle, and the gradient back to the latent.
    """
    from torch.utils.flop_counter import FlopCounterMode

    _, classifier, generator, oracle = components
    free = latents.free.detach().requires_grad_(True)
    with FlopCounterMode(display=False) as generator_flops:
        decoded = generator.decode(Latents(free, latents.fixed))
        decoded.sum().backward()
    with FlopCounterMode(display=False) as whole_flops:
        decoded = generator.decode(Latents(free, latents.fixed))
        classifier(decoded).logsumexp(1).sum().backward()
        with torch.no_grad():
            image = decoded.detach()
            oracle.judge(image, Originals(image, torch.zeros(len(image), dtype=torch.int64, device=image.device)))
    return Cost(generator_flops.get_total_flops() / 1e9, whole_flops.get_total_flops() / 1e9)


@torch.no_grad()
def reconstructed(
    generator: Generator, originals: Tensor, labels: Tensor, examples: Sequence[Example], seed: int
) -> tuple[Tensor, Latents, Tensor]:
    """Return what may move of the latents [N, …], the latents of one row, and plain reconstructions [N, 3, H, W].

    Args:
        generator: that encodes and decodes.
        originals: [N, 3, H, W] in [0, 1].
        labels: [N].
        examples: the same, for their ids.
        seed: of what is random.
    """
    free, plain = [], []
    for batch in torch.arange(len(originals)).split(_BATCH_SIZE):
        generator.row_seeds = [row_seed(seed, examples[row].id) for row in batch.tolist()]
        latents = generator.encode(originals[batch], labels[batch])
        free.append(latents.free.float())
        plain.append(on_byte_grid(generator.decode(Latents(*latents)).float()))
    one_row = Latents(latents.free[:1], None if latents.fixed is None else latents.fixed[:1])
    return torch.cat(free), one_row, torch.cat(plain)


def mean_psnr(originals: Tensor, images: Tensor) -> float:
    """Return the mean peak signal to noise ratio, in dB, of images [N, 3, H, W] in [0, 1]; of equal ones it is 100."""
    error = (originals - images).flatten(1).square().mean(1).clamp(min=_LEAST_ERROR)
    return float((-10 * error.log10()).mean())


@dataclass(frozen=True)
class Plain:
    """Figures of originals and of their plain reconstructions.

    Attributes:
        psnr: of the reconstructions, mean in dB.
        classifier, oracle: accuracy on originals and on reconstructions, from 0 to 1.
        oracle_probability: the oracle's mean probability of the label on originals.
        latent_size, latent_scale: how many dimensions may move, and their root mean square.
        originals: [N, 3, H, W] in [0, 1], on the 8-bit grid.
        images: their reconstructions.
        cost: of a pass of one image.
    """

    psnr: float
    classifier: tuple[float, float]
    oracle: tuple[float, float]
    oracle_probability: float
    latent_size: int
    latent_scale: float
    originals: torch.Tensor
    images: torch.Tensor
    cost: Cost

    @classmethod
    @torch.no_grad()
    def of(
        cls, components: Components, examples: list[Example], rows: list[Perturbed], seed: int, device: torch.device
    ) -> "Plain":
        """Compute the figures; predictions come from the rows.

        Args:
            components: of the recipe.
            examples: the originals.
            rows: of these examples.
            seed: of the recipe.
            device: to work on.
        """
        _, _, generator, oracle = components
        labels = torch.tensor([example.label for example in examples], device=device)
        originals = on_byte_grid(torch.stack([example.image for example in examples]).to(device))
        moving, one_row, images = reconstructed(generator, originals, labels, examples, seed)
        probabilities = []
        for batch in torch.arange(len(examples)).split(_BATCH_SIZE):
            _, judgement = judgement_of(oracle, originals[batch], Originals(originals[batch], labels[batch]))
            probabilities.append(judgement.probabilities)
        return cls(
            psnr=mean_psnr(originals, images),
            classifier=(_accuracy(rows, "original_prediction"), _accuracy(rows, "reconstruction_prediction")),
            oracle=(_accuracy(rows, "original_oracle_label"), _accuracy(rows, "reconstruction_oracle_label")),
            oracle_probability=float(torch.cat(probabilities).gather(1, labels.unsqueeze(1)).mean()),
            latent_size=moving[0].numel(),
            latent_scale=float(moving.square().mean().sqrt()),
            originals=originals,
            images=images,
            cost=cost_of_a_pass(components, one_row),
        )

    def spectrum_of_changes(self, examples: list[Example], rows: list[Perturbed]) -> Spectrum | None:
        """Return the spectrum of changes in the valid rows of these examples; None if nothing changed."""
        places = {example.id: place for place, example in enumerate(examples)}
        valid_places, valid_images = [], []
        for row in rows:
            if row.valid:
                valid_places.append(places[row.id])
                valid_images.append(row.image)
        if not valid_images:
            return None
        images = torch.stack(valid_images).to(self.images.device) / 255
        return spectrum(images - self.images[valid_places])


def _accuracy(rows: list[Perturbed], column: str) -> float:
    return sum(row.accepts(getattr(row, column)) for row in rows) / len(rows)
