"""StyleGAN-XL (paper Table 3): an image's styles are found by optimisation, then perturbed."""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.errors import UserError, one_line
from fmrgen.generators.base import GeneratorConfig, check_class

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fmrgen.generators.networks.stylegan_xl import StyleGanXl


_LEAST_GAIN = 0.001  # the share by which the distance must fall for `patience` to start anew

_ADDRESS = "https://s3.eu-central-1.amazonaws.com/avg-projects/stylegan_xl/models/"
_PUBLISHED = ("cifar10.pkl", *(f"imagenet{size}.pkl" for size in (16, 32, 64, 128, 256, 512, 1024)))
_LICENCE = "github.com/autonomousvision/stylegan-xl, NVIDIA's for research alone"


class Config(GeneratorConfig):
    """`checkpoint` is a file of its authors (`imagenet256.pkl`, `cifar10.pkl`) or its address. Their licence asks for
    consent, so the shipped recipes do not name the address. It is read without running the code in it.

    Class-conditional networks are given the example's label, which must be one of theirs.
    """

    PLACES = ("checkpoint", "mask")

    kind: str = "stylegan_xl"
    checkpoint: str
    inversion_steps: int = Field(400, ge=1, le=100_000, description="most steps of Adam to find an image's styles")
    inversion_rate: float = Field(0.05, gt=0, description="Adam's first learning rate; falls to 0 as a cosine")
    patience: int = Field(50, ge=1, description="stop an image's inversion after this many steps without a 0.1 % gain")
    candidates: int = Field(8, ge=0, description="images of the class from which, or from its mean, the search starts")
    residual: bool = Field(True, description="add what the inversion loses, so that an unmoved image is exact")

    def check_places(self, section: str) -> None:
        if self.checkpoint in _PUBLISHED and not Path(self.checkpoint).is_file():
            raise UserError(
                f"{section}.checkpoint: no such file as {self.checkpoint}; if you accept its licence ({_LICENCE}), set "
                f"{section}.checkpoint={_ADDRESS}{self.checkpoint}"
            )
        super().check_places(section)

    def build(self, device: "torch.device | str" = "cpu") -> "StyleGan":
        import torch

        from fmrgen.generators.networks.stylegan_file import read_stylegan
        from fmrgen.generators.networks.stylegan_xl import StyleGanXl
        from fmrgen.weights.checkpoint import freeze

        subject = f"generator.checkpoint: {self.checkpoint}"
        geometry, state = read_stylegan(self.checkpoint, "generator.checkpoint")
        if geometry.image_size != self.image_size:
            raise UserError(
                f"generator.image_size: {self.checkpoint} generates images of {geometry.image_size} px; set that"
            )
        try:
            network = StyleGanXl(geometry, state, subject)
            freeze(network, device)
            with torch.no_grad():
                shape = network.synthesis(network.centres(torch.zeros(1, dtype=torch.int64, device=device))).shape
        except (KeyError, RuntimeError) as error:
            raise UserError(f"{subject}: its layers do not fit together: {one_line(error)}") from None
        if tuple(shape) != (1, 3, self.image_size, self.image_size):
            raise UserError(f"{subject}: its layers do not fit together: they make {list(shape)}")
        return StyleGan(network, self)


class StyleGan(Generator):
    """`free` is w of each layer (W+), [B, L, W]; `fixed`, with `residual`, what the inversion loses, [B, 3, H, W]."""

    encode_is_slow = True

    def __init__(self, network: "StyleGanXl", settings: Config) -> None:
        self.network = network
        self.settings = settings
        self.image_size = settings.image_size

    def encode(self, images: "Tensor", labels: "Tensor") -> Latents:
        check_class(labels, self.network.classes)
        target = images * 2 - 1
        return self._with_residual(target, self._invert(target, self._start(target, labels)))

    def encode_quickly(self, images: "Tensor", labels: "Tensor") -> Latents:
        check_class(labels, self.network.classes)
        return self._with_residual(images * 2 - 1, self.network.centres(labels).contiguous())

    def _with_residual(self, target: "Tensor", free: "Tensor") -> Latents:
        import torch

        if not self.settings.residual:
            return Latents(free)
        with torch.no_grad():
            return Latents(free, target - self.network.synthesis(free))

    def decode(self, latents: Latents) -> "Tensor":
        free, residual = latents
        image = self.network.synthesis(free)
        if residual is not None:
            image = image + residual
        return (image / 2 + 0.5).clamp(0, 1)

    def _start(self, target: "Tensor", labels: "Tensor") -> "Tensor":
        """Return styles from which to search, [B, L, W]: the class's mean, or a nearer one of some random images."""
        import torch

        nearest = self.network.centres(labels).contiguous()
        if not self.settings.candidates:
            return nearest
        distance = _distance(self.network.synthesis(nearest), target)
        shape = (len(labels), self.settings.candidates, self.network.mapping.z_width)
        candidates = self.noise(torch.empty(shape, dtype=target.dtype, device=target.device))
        for z in candidates.unbind(1):
            styles = self.network.styles(z, labels)
            candidate_distance = _distance(self.network.synthesis(styles), target)
            is_nearer = candidate_distance < distance
            nearest = torch.where(is_nearer.view(-1, 1, 1), styles, nearest)
            distance = candidate_distance.minimum(distance)
        return nearest

    def _invert(self, target: "Tensor", start: "Tensor") -> "Tensor":
        """Return the styles [B, L, W] whose images are nearest to `target`, found by Adam from `start`.

        Each row is searched by itself: when it runs out of patience, it keeps its best, whatever the others do.
        """
        import math

        import torch

        settings = self.settings
        styles = start.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([styles])
        best = start.clone()
        nearest = start.new_full((len(start),), math.inf)  # distance of `best`
        goal = nearest.clone()  # distance at the last gain that counts
        steps_since_gain = torch.zeros(len(start), dtype=torch.int64, device=start.device)
        for step in range(settings.inversion_steps):
            optimizer.param_groups[0]["lr"] = (
                settings.inversion_rate * (1 + math.cos(math.pi * step / settings.inversion_steps)) / 2
            )
            with torch.enable_grad():
                distance = _distance(self.network.synthesis(styles), target)
                (styles.grad,) = torch.autograd.grad(distance.sum(), styles)
            distance = distance.detach()
            searches = steps_since_gain < settings.patience
            is_nearer = searches & (distance < nearest)
            best = torch.where(is_nearer.view(-1, 1, 1), styles.detach(), best)
            nearest = torch.where(is_nearer, distance, nearest)
            has_gained = distance < goal * (1 - _LEAST_GAIN)
            goal = torch.where(has_gained, distance, goal)
            steps_since_gain = torch.where(searches & has_gained, 0, steps_since_gain + 1)
            if not bool((steps_since_gain < settings.patience).any()):
                break
            optimizer.step()
        return best


def _distance(images: "Tensor", target: "Tensor") -> "Tensor":
    """Return the mean squared difference of each row, [B]."""
    return (images - target).square().flatten(1).mean(1)
