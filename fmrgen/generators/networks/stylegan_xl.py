"""StyleGAN-XL (Sauer, Schwarz and Geiger 2022): mapping and synthesis, from a description of the layers.

Written anew from the papers of StyleGAN3 and StyleGAN-XL. Modules have the official names, so that official tensors
load as they are. Unlike in the official code, no row influences another's scale.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, conv2d, conv_transpose2d, leaky_relu, pad
from torch.utils.checkpoint import checkpoint

from fmrgen.weights.checkpoint import load_exactly

_SLOPE = 0.2  # of the leaky ReLU
_GAIN = math.sqrt(2)  # after it, which restores the variance
_MAPPING_RATE = 0.01  # learning rate of the mapping, relative to the other layers'; scales its weights
_EPSILON = 1e-8  # against division by zero


class LayerGeometry(NamedTuple):
    """The properties of a layer that its tensors do not tell."""

    name: str
    up: int  # factor by which sides grow before the nonlinearity
    down: int  # factor by which they shrink after it
    padding: tuple[int, int, int, int]  # left, right, top, bottom, after enlarging
    clamp: float | None  # bound of absolute values, None for no bound
    makes_rgb: bool  # whether it is the last layer, without nonlinearity


class Geometry(NamedTuple):
    """The properties of a network that its tensors do not tell."""

    image_size: int
    input_size: int  # side of the input's grid of waves
    sampling_rate: float  # of the input, in samples per unit of length
    bandwidth: float  # of the input: waves of higher frequencies fade out
    output_scale: float  # factor from the last layer's values to [-1, 1]
    layers: tuple[LayerGeometry, ...]


class StyleGanXl(nn.Module):
    """The network: `mapping` from z and a class to w, `synthesis` from w of each layer to images in [-1, 1]."""

    def __init__(self, geometry: Geometry, state: Mapping[str, Tensor], subject: str) -> None:
        """Build it with the weights of `state`. Raises UserError, starting with `subject`, where they do not fit."""
        super().__init__()
        self.geometry = geometry
        self.mapping = _Mapping(state)
        self.synthesis = _Synthesis(geometry, state)
        load_exactly(self, {name: tensor.float() for name, tensor in state.items()}, subject)

    @property
    def classes(self) -> int | None:
        """Return the number of its classes; None for an unconditional network."""
        averages = self.mapping.w_avg
        return len(averages) if averages.ndim == 2 else None  # else one mean for all images

    def centres(self, labels: Tensor) -> Tensor:
        """Return the mean w of each label's class, repeated for each layer: [B, L, W]."""
        averages = self.mapping.w_avg
        w = averages[labels] if self.classes else averages.expand(len(labels), -1)
        return w.unsqueeze(1).expand(-1, len(self.geometry.layers) + 1, -1)

    def styles(self, z: Tensor, labels: Tensor, truncation: float = 1.0) -> Tensor:
        """Return w for each layer, [B, L, W], of standard normal `z` [B, Z].

        `truncation` goes from 0, the class's mean, to 1, the w of z itself.
        """
        w = self.mapping(z, labels if self.classes else None).unsqueeze(1)
        return self.centres(labels).lerp(w, truncation)


class _Linear(nn.Module):
    """A linear layer whose weights are stored at one scale and used at another."""

    def __init__(self, weight: Tensor, rate: float = 1.0, activates: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(weight.shape))
        self.bias = nn.Parameter(torch.empty(len(weight)))
        self.rate, self.activates = rate, activates

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * (self.rate / math.sqrt(self.weight.shape[1]))
        y = x @ weight.t() + self.bias * self.rate
        if self.activates:
            y = leaky_relu(y, _SLOPE) * _GAIN
        return y


class _Mapping(nn.Module):
    w_avg: Tensor

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("w_avg", torch.empty(state["mapping.w_avg"].shape))
        if "mapping.embed.weight" in state:
            self.embed = nn.ParameterDict({"weight": torch.empty(state["mapping.embed.weight"].shape)})
        inputs = 1
        if "mapping.embed_proj.weight" in state:
            self.embed_proj = _Linear(state["mapping.embed_proj.weight"], activates=True)
            inputs = 2  # z, and an embedding of the class as wide as z
        self.fc0 = _Linear(state["mapping.fc0.weight"], rate=_MAPPING_RATE, activates=True)
        self.fc1 = _Linear(state["mapping.fc1.weight"], rate=_MAPPING_RATE, activates=True)
        self.z_width = self.fc0.weight.shape[1] // inputs

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        x = _normalised(z)
        if labels is not None:
            x = torch.cat([x, _normalised(self.embed_proj(self.embed["weight"][labels]))], 1)
        w: Tensor = self.fc1(self.fc0(x))
        return w


class _Synthesis(nn.Module):
    def __init__(self, geometry: Geometry, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.scale = geometry.output_scale
        self.input = _Input(geometry, state)
        self.names = [layer.name for layer in geometry.layers]
        for layer in geometry.layers:
            self.add_module(layer.name, _Layer(layer, state))

    def forward(self, w: Tensor) -> Tensor:
        """Return images [B, 3, H, W] of w [B, L, W]. For the gradient, only each layer's input is stored."""
        x = self.input(w[:, 0])
        for index, name in enumerate(self.names, start=1):
            layer = cast(nn.Module, getattr(self, name))
            layer_w = w[:, index]
            x = checkpoint(layer, x, layer_w, use_reentrant=False) if w.requires_grad else layer(x, layer_w)
        return x * self.scale


class _Input(nn.Module):
    """Waves of fixed frequencies, rotated and shifted by w."""

    freqs: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, geometry: Geometry, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.size = geometry.input_size
        self.rate = geometry.sampling_rate
        self.bandwidth = geometry.bandwidth
        self.weight = nn.Parameter(torch.empty(state["synthesis.input.weight"].shape))
        self.affine = _Linear(state["synthesis.input.affine.weight"])
        for name in ("freqs", "phases", "transform"):
            self.register_buffer(name, torch.empty(state[f"synthesis.input.{name}"].shape))

    def forward(self, w: Tensor) -> Tensor:
        motion = self.affine(w)
        cos, sin, x, y = (motion / motion[:, :2].norm(dim=1, keepdim=True)).unbind(1)
        ones, zeros = torch.ones_like(cos), torch.zeros_like(cos)
        rotation = torch.stack([cos, -sin, zeros, sin, cos, zeros, zeros, zeros, ones], 1).view(-1, 3, 3)
        shift = torch.stack([ones, zeros, -x, zeros, ones, -y, zeros, zeros, ones], 1).view(-1, 3, 3)
        transform = rotation @ shift @ self.transform
        phases = self.phases + (self.freqs @ transform[:, :2, 2:]).squeeze(2)  # [B, C]
        freqs = self.freqs @ transform[:, :2, :2]  # [B, C, 2]
        # Waves fade out between the bandwidth and the highest frequency that the grid can hold, against aliasing.
        excess = (freqs.norm(dim=2) - self.bandwidth) / (self.rate / 2 - self.bandwidth)
        amplitudes = (1 - excess).clamp(0, 1)
        half_side = 0.5 * self.size / self.rate
        identity = half_side * torch.eye(2, 3, dtype=w.dtype, device=w.device).unsqueeze(0)
        positions = affine_grid(identity, [1, 1, self.size, self.size], align_corners=False)  # [1, H, W, 2]
        waves = torch.einsum("hwk,bck->bhwc", positions[0], freqs) + phases[:, None, None]
        waves = (waves * (2 * math.pi)).sin() * amplitudes[:, None, None]
        mixed = waves @ (self.weight / math.sqrt(len(self.weight))).t()
        return mixed.permute(0, 3, 1, 2).contiguous()


class _Layer(nn.Module):
    """A convolution whose weights are modulated by w, and a leaky ReLU at a higher sampling rate."""

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(self, geometry: LayerGeometry, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.geometry = geometry
        place = f"synthesis.{geometry.name}"
        self.affine = _Linear(state[f"{place}.affine.weight"])
        self.weight = nn.Parameter(torch.empty(state[f"{place}.weight"].shape))
        self.bias = nn.Parameter(torch.empty(len(self.weight)))
        self.register_buffer("magnitude_ema", torch.empty(()))
        for name in ("up_filter", "down_filter"):
            taps = state.get(f"{place}.{name}")
            self.register_buffer(name, None if taps is None else torch.empty(taps.shape))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = self._convolved(x, self.affine(w)) + self.bias.view(-1, 1, 1)
        geometry = self.geometry
        x = _enlarged(x, self.up_filter, geometry.up, geometry.padding)
        if not geometry.makes_rgb:
            x = leaky_relu(x, _SLOPE) * _GAIN
        if geometry.clamp is not None:
            x = x.clamp(-geometry.clamp, geometry.clamp)
        return _reduced(x, self.down_filter, geometry.down)

    def _convolved(self, x: Tensor, style: Tensor) -> Tensor:
        """Return x convolved. Its channels are scaled by `style`, and the outputs back to their old strength."""
        weight: Tensor = self.weight
        if self.geometry.makes_rgb:
            style = style / math.sqrt(weight[0].numel())
            gain = None
        else:
            weight = weight * weight.square().mean((1, 2, 3), keepdim=True).rsqrt()
            style = style * style.square().mean(1, keepdim=True).rsqrt()
            gain = (style.square() @ weight.square().sum((2, 3)).t() + _EPSILON).rsqrt()
        scale = style * self.magnitude_ema.rsqrt()
        x = conv2d(x * scale[:, :, None, None], weight, padding=weight.shape[-1] - 1)
        if gain is not None:
            x = x * gain[:, :, None, None]
        return x


def _normalised(x: Tensor) -> Tensor:
    return x * (x.square().mean(1, keepdim=True) + _EPSILON).rsqrt()


def _kernels(taps: Tensor) -> list[Tensor]:
    """Return the kernels [h, w] by which a filter is applied one after the other: two if it is separable."""
    if taps.ndim == 2:
        return [taps]
    return [taps.unsqueeze(1), taps.unsqueeze(0)]


def _stride(kernel: Tensor, factor: int) -> tuple[int, int]:
    """Return a stride of `factor` along the sides over which a kernel extends."""
    height, width = kernel.shape
    return factor if height > 1 else 1, factor if width > 1 else 1


def _enlarged(x: Tensor, taps: Tensor | None, up: int, padding: tuple[int, int, int, int]) -> Tensor:
    """Return x with `up` - 1 zeros between its pixels, padded, then filtered, at its old strength."""
    if taps is None:
        return pad(x, padding)
    channels = x.shape[1]
    for kernel in _kernels(taps):
        stride = _stride(kernel, up)
        weight = (kernel * math.prod(stride)).expand(channels, 1, -1, -1)
        x = conv_transpose2d(x, weight, stride=stride, groups=channels)
    # The convolution adds a filter's length at each end, and lacks the zeros after the last pixel.
    before, after = len(taps) - 1, len(taps) - up
    left, right, top, bottom = padding
    return pad(x, (left - before, right - after, top - before, bottom - after))


def _reduced(x: Tensor, taps: Tensor | None, down: int) -> Tensor:
    """Return every `down`-th pixel of x, filtered."""
    if taps is None:
        return x
    channels = x.shape[1]
    for kernel in _kernels(taps):
        weight = kernel.flip((0, 1)).expand(channels, 1, -1, -1)
        x = conv2d(x, weight, stride=_stride(kernel, down), groups=channels)
    return x
