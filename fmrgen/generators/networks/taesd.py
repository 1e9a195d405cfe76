"""The networks of madebyollin/taesd, rebuilt from the names and shapes in their files."""

import re

from torch import Tensor, nn

from fmrgen.errors import UserError
from fmrgen.weights.checkpoint import load_exactly, read_checkpoint

DOWNSAMPLING = 8
_WIDTH, _SCALES, _BLOCKS = 64, 3, 3


def load_encoder(file: str) -> nn.Sequential:
    """From images [B, 3, H, W] in [0, 1] to latents [B, C, H/8, W/8]. Raises UserError for any other file."""
    state, what = read_checkpoint(file, "generator.encoder"), f"generator.encoder: {file}"
    layers: list[nn.Module] = [_conv(3, _WIDTH), Block(pool=False)]
    for scale in range(_SCALES):
        pool = _has_pools(state) and scale == _SCALES - 1
        layers += [_conv(_WIDTH, _WIDTH, stride=2, bias=False), *(Block(pool) for _ in range(_BLOCKS))]
    network = nn.Sequential(*layers, _conv(_WIDTH, _channels(state, what, last=True)))
    load_exactly(network, state, what)
    return network


def load_decoder(file: str) -> nn.Sequential:
    """From bounded latents [B, C, h, w] to images [B, 3, 8h, 8w]. Raises UserError for any other file."""
    state, what = read_checkpoint(file, "generator.decoder"), f"generator.decoder: {file}"
    # Their first layer has no weights: it bounds the latent, which the generator does.
    layers: list[nn.Module] = [nn.Identity(), _conv(_channels(state, what, last=False), _WIDTH), nn.ReLU()]
    for scale in range(_SCALES):
        pool = _has_pools(state) and scale == 0
        layers += [Block(pool) for _ in range(_BLOCKS)]
        layers += [nn.Upsample(scale_factor=2), _conv(_WIDTH, _WIDTH, bias=False)]
    network = nn.Sequential(*layers, Block(pool=False), _conv(_WIDTH, 3))
    load_exactly(network, state, what)
    return network


class Block(nn.Module):
    """Three convolutions beside the input; with a pool, what a wide group norm makes of the input is added first."""

    def __init__(self, pool: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(_WIDTH, _WIDTH), nn.ReLU(), _conv(_WIDTH, _WIDTH), nn.ReLU(), _conv(_WIDTH, _WIDTH)
        )
        wide = 4 * _WIDTH
        self.pool = (
            nn.Sequential(
                nn.Conv2d(_WIDTH, wide, 1, bias=False),
                nn.GroupNorm(4, wide),
                nn.ReLU(),
                nn.Conv2d(wide, _WIDTH, 1, bias=False),
            )
            if pool
            else None
        )

    def forward(self, values: Tensor) -> Tensor:
        if self.pool is not None:
            values = values + self.pool(values)
        together: Tensor = self.conv(values) + values
        return together.relu()


def _conv(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)


def _has_pools(state: dict[str, Tensor]) -> bool:
    """Whether the blocks at the latent's size have the pools that came with FLUX.2's."""
    return any(".pool." in name for name in state)


def _channels(state: dict[str, Tensor], what: str, last: bool) -> int:
    """Of the latent: the outputs of an encoder's last layer, the inputs of a decoder's first."""
    numbers = [int(found[1]) for name in state if (found := re.match(r"(\d+)\.weight$", name))]
    weight = state[f"{(max if last else min)(numbers)}.weight"] if numbers else None
    if weight is None or weight.ndim != 4:
        raise UserError(f"{what}: is not such a file of madebyollin/taesd; give its …_encoder or …_decoder")
    return weight.shape[0 if last else 1]
