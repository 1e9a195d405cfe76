"""StyleGAN-XL (Sauer, Schwarz and Geiger 2022): mapping and synthesis, from a description of the layers.

Written anew from the papers of StyleGAN3 and StyleGAN-XL. Modules bear the official names, so that official tensors
load as they are. Unlike there, no row has a part in another's scale.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, conv2d, conv_transpose2d, leaky_relu, pad
from torch.utils.checkpoint import checkpoint

from fmrgen.weights.checkpoint import load_exactly

_SLOPE, _GAIN = 0.2, math.sqrt(2)  # of the leaky ReLU, and what makes up for it


class LayerGeometry(NamedTuple):
    """What the tensors of a layer do not tell of it."""

    name: str
    up: int
    down: int
    padding: tuple[int, int, int, int]  # left, right, top, bottom, after enlarging
    clamp: float | None
    makes_rgb: bool


class Geometry(NamedTuple):
    """What the tensors of a network do not tell of it."""

    image_size: int
    input_size: int
    sampling_rate: float
    bandwidth: float
    output_scale: float
    layers: tuple[LayerGeometry, ...]


class StyleGanXl(nn.Module):
    """`mapping` from z and a class to w, `synthesis` from w of each layer to images in [-1, 1]."""

    def __init__(self, geometry: Geometry, state: Mapping[str, Tensor], what: str) -> None:
        super().__init__()
        self.geometry = geometry
        self.mapping = _Mapping(state)
        self.synthesis = _Synthesis(geometry, state)
        load_exactly(self, {name: tensor.float() for name, tensor in state.items()}, what)

    @property
    def classes(self) -> int | None:
        """How many classes it knows; None for an unconditional one."""
        return len(self.mapping.w_avg) if self.mapping.w_avg.ndim == 2 else None

    def centres(self, labels: Tensor) -> Tensor:
        """The mean w of each label's class, repeated for each layer: [B, L, W]."""
        averages = self.mapping.w_avg
        w = averages[labels] if self.classes else averages.expand(len(labels), -1)
        return w.unsqueeze(1).expand(-1, len(self.geometry.layers) + 1, -1)

    def styles(self, z: Tensor, labels: Tensor, truncation: float = 1.0) -> Tensor:
        """w of z [B, Z] under labels [B], for each layer: [B, L, W]; drawn towards the class's mean by `truncation`."""
        w = self.mapping(z, labels if self.classes else None).unsqueeze(1)
        return self.centres(labels).lerp(w, truncation)


class _Linear(nn.Module):
    """A linear layer whose weights are kept at another scale than they are used at."""

    def __init__(self, weight: Tensor, rate: float = 1.0, activates: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(weight.shape))
        self.bias = nn.Parameter(torch.empty(len(weight)))
        self.rate, self.activates = rate, activates

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * (self.rate / math.sqrt(self.weight.shape[1]))
        y = x @ weight.t() + self.bias * self.rate
        return leaky_relu(y, _SLOPE) * _GAIN if self.activates else y


class _Embedding(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(weight.shape))


class _Mapping(nn.Module):
    w_avg: Tensor

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("w_avg", torch.empty(state["mapping.w_avg"].shape))
        if "mapping.embed.weight" in state:
            self.embed = _Embedding(state["mapping.embed.weight"])
        if "mapping.embed_proj.weight" in state:
            self.embed_proj = _Linear(state["mapping.embed_proj.weight"], activates=True)
        self.fc0 = _Linear(state["mapping.fc0.weight"], rate=0.01, activates=True)
        self.fc1 = _Linear(state["mapping.fc1.weight"], rate=0.01, activates=True)
        self.z_width = self.fc0.weight.shape[1] // (2 if "mapping.embed_proj.weight" in state else 1)

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        x = _normalised(z)
        if labels is not None:
            x = torch.cat([x, _normalised(self.embed_proj(self.embed.weight[labels]))], 1)
        answer: Tensor = self.fc1(self.fc0(x))
        return answer


class _Synthesis(nn.Module):
    def __init__(self, geometry: Geometry, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.scale = geometry.output_scale
        self.input = _Input(geometry, state)
        self.names = [layer.name for layer in geometry.layers]
        for layer in geometry.layers:
            self.add_module(layer.name, _Layer(layer, state))

    def forward(self, w: Tensor) -> Tensor:
        """Images [B, 3, H, W] of w [B, L, W]. Of each layer only what goes into it is kept for the gradient."""
        x = self.input(w[:, 0])
        for index, name in enumerate(self.names, start=1):
            layer = cast(nn.Module, getattr(self, name))
            x = checkpoint(layer, x, w[:, index], use_reentrant=False) if w.requires_grad else layer(x, w[:, index])
        return x * self.scale


class _Input(nn.Module):
    """Waves of fixed frequencies, turned and moved as w says."""

    freqs: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, geometry: Geometry, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.size, self.rate, self.bandwidth = geometry.input_size, geometry.sampling_rate, geometry.bandwidth
        self.weight = nn.Parameter(torch.empty(state["synthesis.input.weight"].shape))
        self.affine = _Linear(state["synthesis.input.affine.weight"])
        for name in ("freqs", "phases", "transform"):
            self.register_buffer(name, torch.empty(state[f"synthesis.input.{name}"].shape))

    def forward(self, w: Tensor) -> Tensor:
        turn = self.affine(w)
        cos, sin, x, y = (turn / turn[:, :2].norm(dim=1, keepdim=True)).unbind(1)
        one, zero = torch.ones_like(cos), torch.zeros_like(cos)
        rotated = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], 1).view(-1, 3, 3)
        moved = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], 1).view(-1, 3, 3)
        transform = rotated @ moved @ self.transform
        phases = self.phases + (self.freqs @ transform[:, :2, 2:]).squeeze(2)
        freqs = self.freqs @ transform[:, :2, :2]  # [B, C, 2]
        beyond = (freqs.norm(dim=2) - self.bandwidth) / (self.rate / 2 - self.bandwidth)
        amplitudes = (1 - beyond).clamp(0, 1)
        reach = 0.5 * self.size / self.rate
        identity = reach * torch.eye(2, 3, dtype=w.dtype, device=w.device).unsqueeze(0)
        places = affine_grid(identity, [1, 1, self.size, self.size], align_corners=False)  # [1, H, W, 2]
        waves = torch.einsum("hwk,bck->bhwc", places[0], freqs) + phases[:, None, None]
        waves = (waves * (2 * math.pi)).sin() * amplitudes[:, None, None]
        mixed = waves @ (self.weight / math.sqrt(len(self.weight))).t()
        return mixed.permute(0, 3, 1, 2).contiguous()


class _Layer(nn.Module):
    """A convolution whose weights w modulates, and a leaky ReLU at a higher sampling rate."""

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
            found = state.get(f"{place}.{name}")
            self.register_buffer(name, None if found is None else torch.empty(found.shape))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = self._convolved(x, self.affine(w)) + self.bias.view(-1, 1, 1)
        shape = self.geometry
        x = _enlarged(x, self.up_filter, shape.up, shape.padding)
        if not shape.makes_rgb:
            x = leaky_relu(x, _SLOPE) * _GAIN
        x = x if shape.clamp is None else x.clamp(-shape.clamp, shape.clamp)
        return _reduced(x, self.down_filter, shape.down)

    def _convolved(self, x: Tensor, style: Tensor) -> Tensor:
        """Styles scale what goes in, and what they would change of the strength is taken back from what comes out."""
        weight: Tensor = self.weight
        if self.geometry.makes_rgb:
            style = style / math.sqrt(weight[0].numel())
            gain = None
        else:
            weight = weight * weight.square().mean((1, 2, 3), keepdim=True).rsqrt()
            style = style * style.square().mean(1, keepdim=True).rsqrt()
            gain = (style.square() @ weight.square().sum((2, 3)).t() + 1e-8).rsqrt()
        scale = style * self.magnitude_ema.rsqrt()
        x = conv2d(x * scale[:, :, None, None], weight, padding=weight.shape[-1] - 1)
        return x if gain is None else x * gain[:, :, None, None]


def _normalised(x: Tensor) -> Tensor:
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def _passes(taps: Tensor) -> list[Tensor]:
    """The kernels [h, w] by which a filter is applied one after the other: two where it is separable."""
    return [taps] if taps.ndim == 2 else [taps.unsqueeze(1), taps.unsqueeze(0)]


def _enlarged(x: Tensor, taps: Tensor | None, up: int, padding: tuple[int, int, int, int]) -> Tensor:
    """x with `up` - 1 zeros between its pixels, padded, then filtered, at its old strength."""
    if taps is None:
        return pad(x, padding)
    channels = x.shape[1]
    for kernel in _passes(taps):
        stride = tuple(up if side > 1 else 1 for side in kernel.shape)
        weight = (kernel * math.prod(stride)).expand(channels, 1, -1, -1)
        x = conv_transpose2d(x, weight, stride=stride, groups=channels)
    # What was computed is longer by the filter at each end, and lacks the zeros after the last pixel.
    before, after = len(taps) - 1, len(taps) - up
    left, right, top, bottom = padding
    return pad(x, (left - before, right - after, top - before, bottom - after))


def _reduced(x: Tensor, taps: Tensor | None, down: int) -> Tensor:
    """Every `down`-th pixel of x, filtered."""
    if taps is None:
        return x
    channels = x.shape[1]
    for kernel in _passes(taps):
        stride = tuple(down if side > 1 else 1 for side in kernel.shape)
        x = conv2d(x, kernel.flip((0, 1)).expand(channels, 1, -1, -1), stride=stride, groups=channels)
    return x
