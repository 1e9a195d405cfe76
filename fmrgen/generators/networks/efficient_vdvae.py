"""Efficient-VDVAE (Hazami, Mama and Thurairatnam 2022), rebuilt from the shapes of an official state dict.

Modules have the official names, so that its tensors load as they are. Only means are needed here, so the scale of the
widths of posterior and prior (`distribution_base`) is not read.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu, silu

from fmrgen.errors import UserError
from fmrgen.weights.checkpoint import load_exactly

State = Mapping[str, Tensor]
_SLOPE = 0.1  # of the leaky ReLU where sides change
PER_MIXTURE = 10  # numbers of a pixel and component: a weight, and for each colour a mean, a scale and a coefficient


def efficient_vdvae(state: State, subject: str) -> "EfficientVdvae":
    """Return the network of an official state dict, in float32 on the CPU.

    Raises UserError, starting with `subject`, if it is another network's, or of grayscale images.
    """
    try:
        network = EfficientVdvae(state)
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"{subject}: is not an Efficient-VDVAE: {error} is missing") from None
    load_exactly(network, {name: tensor.float() for name, tensor in state.items()}, subject)
    if network.output_conv_width % PER_MIXTURE or network.bottom_up.input_conv.in_channels != 3:
        raise UserError(f"{subject}: is an Efficient-VDVAE of grayscale images; use one for colour images")
    return network


class EfficientVdvae(nn.Module):
    """The autoencoder. Latents are a list of groups, from the coarsest on: z of a group is [B, C, side, side]."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.bottom_up = _BottomUp(state)
        self.top_down = _TopDown(state)
        self.output_conv_width = self.top_down.output_conv.out_channels
        self.image_size = self.top_down.side

    def posterior_means(self, images: Tensor) -> list[Tensor]:
        """Return z of each group: the mean of its posterior, given the means of all groups before it.

        `images` are [B, 3, H, W] in [-1, 1].
        """
        skips = self.bottom_up(images)
        groups: list[Tensor] = []

        def posterior_mean(block: BlockDown, y: Tensor, prior: Tensor, level: int) -> Tensor:
            groups.append(block.posterior(y, skips[level])[0])
            return groups[-1]

        self.top_down(len(images), posterior_mean)
        return groups

    def logits(self, groups: Sequence[Tensor]) -> Tensor:
        """Return the parameters of each pixel's mixture of M logistics, [B, M * 10, H, W], from z of each group."""
        remaining = iter(groups)

        def next_group(block: BlockDown, y: Tensor, prior: Tensor, level: int) -> Tensor:
            return next(remaining)

        logits: Tensor = self.top_down(len(groups[0]), next_group)
        return logits


def expected_image(logits: Tensor) -> Tensor:
    """Return the mean colour of each pixel under its mixture, [B, 3, H, W] in [-1, 1], from logits [B, M * 10, H, W].

    In each component, green depends on red, and blue on both. Each is clamped as in official samples.
    """
    mixtures = logits.shape[1] // PER_MIXTURE
    weight_logits, rest = logits.split([mixtures, (PER_MIXTURE - 1) * mixtures], 1)
    means, _, raw_coefficients = rest.unflatten(1, (3, 3, mixtures)).unbind(2)
    coefficients = raw_coefficients.tanh()
    red = means[:, 0].clamp(-1, 1)
    green = (means[:, 1] + coefficients[:, 0] * red).clamp(-1, 1)
    blue = (means[:, 2] + coefficients[:, 1] * red + coefficients[:, 2] * green).clamp(-1, 1)
    colours = torch.stack([red, green, blue], 1)  # [B, 3, M, H, W]
    return (colours * weight_logits.softmax(1).unsqueeze(1)).sum(2)


class _BottomUp(nn.Module):
    def __init__(self, state: State) -> None:
        super().__init__()
        self.input_conv = _conv(state, "bottom_up.input_conv")
        self.levels_up_downsample = nn.ModuleList(_numbered(state, "bottom_up.levels_up_downsample", _BlockUp))
        self.levels_up = nn.ModuleList()
        for level in range(len(self.levels_up_downsample)):
            self.levels_up.append(nn.ModuleList(_numbered(state, f"bottom_up.levels_up.{level}", _BlockUp)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of images that each level of the decoder gets, from the coarsest on."""
        x = self.input_conv(x)
        skips = []
        last_blocks = cast("Iterable[_BlockUp]", self.levels_up_downsample)
        for blocks, last in zip(self.levels_up, last_blocks, strict=True):
            for block in cast("Iterable[_BlockUp]", blocks):
                x = block.residual_block(x)
            x = last.residual_block(x)
            skips.append(last.skip_projection(x))
            x = last.pool(x)
        return skips[::-1]


class _TopDown(nn.Module):
    def __init__(self, state: State) -> None:
        super().__init__()
        self.trainable_h = nn.Parameter(torch.empty_like(state["top_down.trainable_h"], dtype=torch.float32))
        self.side = self.trainable_h.shape[-1]
        self.levels_down_upsample = nn.ModuleList()
        sides = []  # of each level
        for level in range(len(_indices(state, "top_down.levels_down_upsample"))):
            first = BlockDown(state, f"top_down.levels_down_upsample.{level}", self.side)
            self.levels_down_upsample.append(first)
            self.side = first.side
            sides.append(first.side)
        self.levels_down = nn.ModuleList()
        for level, side in enumerate(sides):
            block = partial(BlockDown, side=side)
            self.levels_down.append(nn.ModuleList(_numbered(state, f"top_down.levels_down.{level}", block)))
        self.output_conv = _conv(state, "top_down.output_conv")

    def forward(self, rows: int, choose: "Choose") -> Tensor:
        """Return the logits of `rows` images; `choose` gives the z of each block."""
        y = self.trainable_h.expand(rows, -1, -1, -1)
        firsts = cast("Iterable[BlockDown]", self.levels_down_upsample)
        for level, (first, others) in enumerate(zip(firsts, self.levels_down, strict=True)):
            for block in (first, *cast("Iterable[BlockDown]", others)):
                y = block.unpool(y)
                residual, prior = block.prior_net(y).chunk(2, dim=1)
                y = block(y + residual, choose(block, y, prior, level))
        logits: Tensor = self.output_conv(y)
        return logits


class _BlockUp(nn.Module):
    def __init__(self, state: State, place: str) -> None:
        super().__init__()
        self.residual_block = _cells(state, f"{place}.residual_block", residual=True)
        if f"{place}.skip_projection.weight" in state:
            self.skip_projection = _conv(state, f"{place}.skip_projection")
        self.pool: nn.Module = nn.Identity()
        if f"{place}.pool.ops.0.weight" in state:
            self.pool = _Pool(state, f"{place}.pool")


class BlockDown(nn.Module):
    def __init__(self, state: State, place: str, side: int) -> None:
        super().__init__()
        self.unpool: nn.Module = nn.Identity()
        self.side = side
        if f"{place}.unpool.scale_bias" in state:
            self.unpool = _Unpool(state, f"{place}.unpool")
            self.side = self.unpool.scale_bias.shape[-1]
        self.residual_block = _cells(state, f"{place}.residual_block", residual=True)
        self.posterior_net = _cells(state, f"{place}.posterior_net", residual=False)
        self.prior_net = _cells(state, f"{place}.prior_net", residual=False)
        # Each makes means and raw widths.
        self.prior_layer = nn.ModuleDict({"projection": _conv(state, f"{place}.prior_layer.projection")})
        self.posterior_layer = nn.ModuleDict({"projection": _conv(state, f"{place}.posterior_layer.projection")})
        self.z_projection = _conv(state, f"{place}.z_projection")

    def posterior(self, y: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and raw width of z, given the decoder's features `y` and the encoder's features `skip`."""
        features = self.posterior_net(torch.cat([y, skip], 1))
        mean, width = self.posterior_layer["projection"](features).chunk(2, dim=1)
        return mean, width

    def prior(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and raw width of z, given the decoder's features alone."""
        mean, width = self.prior_layer["projection"](features).chunk(2, dim=1)
        return mean, width

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        features: Tensor = self.residual_block(y + self.z_projection(z))
        return features


# From a block, the decoder's features before it, the prior's features and the block's level to the z of its group.
Choose = Callable[[BlockDown, Tensor, Tensor, int], Tensor]


class _Pool(nn.Module):
    def __init__(self, state: State, place: str) -> None:
        super().__init__()
        stride = state[f"{place}.ops.0.weight"].shape[-1]
        self.ops = nn.ModuleList([_conv(state, f"{place}.ops.0", stride)])

    def forward(self, x: Tensor) -> Tensor:
        return leaky_relu(self.ops[0](x), _SLOPE)


class _Unpool(nn.Module):
    def __init__(self, state: State, place: str) -> None:
        super().__init__()
        self.ops = nn.ModuleList([_conv(state, f"{place}.ops.0")])
        self.scale_bias = nn.Parameter(torch.empty_like(state[f"{place}.scale_bias"], dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        enlarged = interpolate(leaky_relu(self.ops[0](x), _SLOPE), self.scale_bias.shape[-2:], mode="nearest")
        return enlarged + self.scale_bias


class _Cell(nn.Module):
    """Convolutions, each after a SiLU. Their indices are odd because the official list counts the SiLUs, too."""

    def __init__(self, state: State, place: str, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        indices = _indices(state, f"{place}.convs")
        self.convs = nn.ModuleDict({str(index): _conv(state, f"{place}.convs.{index}") for index in indices})

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv in self.convs.values():
            y = conv(silu(y))
        if self.residual:
            y = x + y
        return y


def _cells(state: State, place: str, residual: bool) -> nn.Sequential:
    return nn.Sequential(*_numbered(state, place, partial(_Cell, residual=residual)))


def _numbered(state: State, place: str, make: Callable[[State, str], nn.Module]) -> list[nn.Module]:
    """Return a module for each of the numbers from 0 that follow `place` in the names."""
    return [make(state, f"{place}.{index}") for index in range(len(_indices(state, place)))]


def _conv(state: State, place: str, stride: int = 1) -> nn.Conv2d:
    """Return a convolution of the shape that the weights at `place` have; sides stay, or shrink by `stride`."""
    width, depth, *kernel = state[f"{place}.weight"].shape
    padding = "same" if stride == 1 else 0
    return nn.Conv2d(depth, width, (kernel[0], kernel[1]), stride, padding)


def _indices(state: State, place: str) -> list[int]:
    """Return the numbers that follow `place` in the names, sorted."""
    matches = map(re.compile(rf"{re.escape(place)}\.(\d+)\.").match, state)
    return sorted({int(match[1]) for match in matches if match})
