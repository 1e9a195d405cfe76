"""Efficient-VDVAE (Hazami, Mama and Thurairatnam 2022), rebuilt from the shapes of an official state dict.

Modules bear the official names, so that its tensors load as they are. Only means are needed here: how wide posterior
and prior are (`distribution_base`) is not read.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu, silu

from fmrgen.errors import UserError
from fmrgen.weights.checkpoint import load_exactly

State = Mapping[str, Tensor]
_SLOPE = 0.1  # of the leaky ReLU where sides change


def efficient_vdvae(state: State, what: str) -> "EfficientVdvae":
    """The network of an official state dict.

    Args:
        state: tensors under their official names.
        what: the file, in errors.

    Returns:
        The network in float32, on the CPU.

    Raises:
        UserError: it is another network's, or knows one colour alone.
    """
    try:
        network = EfficientVdvae(state)
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"{what}: is not an Efficient-VDVAE: {error} is missing") from None
    load_exactly(network, {name: tensor.float() for name, tensor in state.items()}, what)
    if network.output_conv_width % 10 or network.bottom_up.input_conv.in_channels != 3:
        raise UserError(f"{what}: is an Efficient-VDVAE of grayscale images; use one for colour images")
    return network


class EfficientVdvae(nn.Module):
    """Latents are a list of groups, from the coarsest on: z of a group is [B, C, side, side]."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.bottom_up = _BottomUp(state)
        self.top_down = _TopDown(state)
        self.output_conv_width = self.top_down.output_conv.out_channels
        self.image_size = self.top_down.side

    def posterior_means(self, images: Tensor) -> list[Tensor]:
        """The mean of each group's posterior, all groups before it being at theirs.

        Args:
            images: [B, 3, H, W] in [-1, 1].

        Returns:
            z of each group.
        """
        skips = self.bottom_up(images)
        groups: list[Tensor] = []

        def posterior_mean(block: BlockDown, y: Tensor, prior: Tensor, level: int) -> Tensor:
            groups.append(block.posterior(y, skips[level])[0])
            return groups[-1]

        self.top_down(len(images), posterior_mean)
        return groups

    def logits(self, groups: Sequence[Tensor]) -> Tensor:
        """What the groups say of each pixel: the parameters of a mixture of logistics, [B, M * 10, H, W]."""
        remaining = iter(groups)
        answer: Tensor = self.top_down(len(groups[0]), lambda *_: next(remaining))
        return answer


def expected_image(logits: Tensor) -> Tensor:
    """The mean colour of each pixel under its mixture, [B, 3, H, W] in [-1, 1].

    Green leans on red and blue on both, in each component; each is kept in range as in official samples.
    """
    mixtures = logits.shape[1] // 10
    shares, rest = logits.split([mixtures, 9 * mixtures], 1)
    means, _, raw_leanings = rest.unflatten(1, (3, 3, mixtures)).unbind(2)
    leanings = raw_leanings.tanh()
    red = means[:, 0].clamp(-1, 1)
    green = (means[:, 1] + leanings[:, 0] * red).clamp(-1, 1)
    blue = (means[:, 2] + leanings[:, 1] * red + leanings[:, 2] * green).clamp(-1, 1)
    return (torch.stack([red, green, blue], 1) * shares.softmax(1).unsqueeze(1)).sum(2)


class _BottomUp(nn.Module):
    def __init__(self, state: State) -> None:
        super().__init__()
        self.input_conv = _conv(state, "bottom_up.input_conv")
        places = [
            f"bottom_up.levels_up_downsample.{level}"
            for level in range(_count(state, "bottom_up.levels_up_downsample"))
        ]
        self.levels_up_downsample = nn.ModuleList(_BlockUp(state, place) for place in places)
        self.levels_up = nn.ModuleList(
            nn.ModuleList(_BlockUp(state, f"{place}.{block}") for block in range(_count(state, place)))
            for place in (f"bottom_up.levels_up.{level}" for level in range(len(places)))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """The features of the images that each level of the decoder gets, from the coarsest on."""
        x = self.input_conv(x)
        skips = []
        for blocks, last in zip(self.levels_up, cast("Iterable[_BlockUp]", self.levels_up_downsample), strict=True):
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
        places = [
            f"top_down.levels_down_upsample.{level}" for level in range(_count(state, "top_down.levels_down_upsample"))
        ]
        for place in places:
            self.levels_down_upsample.append(BlockDown(state, place, self.side))
            self.side = cast("BlockDown", self.levels_down_upsample[-1]).side
        self.levels_down = nn.ModuleList(
            nn.ModuleList(BlockDown(state, f"{place}.{block}", above.side) for block in range(_count(state, place)))
            for place, above in (
                (f"top_down.levels_down.{level}", cast("BlockDown", block))
                for level, block in enumerate(self.levels_down_upsample)
            )
        )
        self.output_conv = _conv(state, "top_down.output_conv")

    def forward(self, rows: int, choose: "Choose") -> Tensor:
        """The logits of so many `rows`; `choose` gives the z of each block."""
        y = self.trainable_h.expand(rows, -1, -1, -1)
        firsts = cast("Iterable[BlockDown]", self.levels_down_upsample)
        for level, (first, others) in enumerate(zip(firsts, self.levels_down, strict=True)):
            for block in (first, *cast("Iterable[BlockDown]", others)):
                y = block.unpool(y)
                residual, prior = block.prior_net(y).chunk(2, dim=1)
                y = block(y + residual, choose(block, y, prior, level))
        answer: Tensor = self.output_conv(y)
        return answer


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
        self.prior_layer = _Gaussian(state, f"{place}.prior_layer")
        self.posterior_layer = _Gaussian(state, f"{place}.posterior_layer")
        self.z_projection = _conv(state, f"{place}.z_projection")

    def posterior(self, y: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and raw width of z, given what the way down knows up to here and what the way up tells."""
        answer: tuple[Tensor, Tensor] = self.posterior_layer(self.posterior_net(torch.cat([y, skip], 1)))
        return answer

    def prior(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The same, given the way down alone."""
        answer: tuple[Tensor, Tensor] = self.prior_layer(features)
        return answer

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        answer: Tensor = self.residual_block(y + self.z_projection(z))
        return answer


# From a block, what is known up to it, the prior's features and its level: the z of its group.
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


class _Gaussian(nn.Module):
    def __init__(self, state: State, place: str) -> None:
        super().__init__()
        self.projection = _conv(state, f"{place}.projection")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Means and raw widths."""
        answer: tuple[Tensor, ...] = self.projection(x).chunk(2, dim=1)
        return answer


class _Cell(nn.Module):
    """Convolutions, each after a SiLU. They stand at odd places, for the official list counts the SiLUs too."""

    def __init__(self, state: State, place: str, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.convs = nn.ModuleDict(
            {str(index): _conv(state, f"{place}.convs.{index}") for index in _indices(state, f"{place}.convs")}
        )

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv in self.convs.values():
            y = conv(silu(y))
        return x + y if self.residual else y


def _cells(state: State, place: str, residual: bool) -> nn.Sequential:
    return nn.Sequential(*(_Cell(state, f"{place}.{index}", residual) for index in range(_count(state, place))))


def _conv(state: State, place: str, stride: int = 1) -> nn.Conv2d:
    """A convolution of the shape that the weights at `place` have; its sides stay, or shrink by `stride`."""
    width, depth, *kernel = state[f"{place}.weight"].shape
    return nn.Conv2d(depth, width, (kernel[0], kernel[1]), stride, "same" if stride == 1 else 0)


def _indices(state: State, place: str) -> list[int]:
    """The numbers that stand after `place` in the names."""
    found = {int(match[1]) for name in state if (match := re.match(rf"{re.escape(place)}\.(\d+)\.", name))}
    return sorted(found)


def _count(state: State, place: str) -> int:
    return len(_indices(state, place))
