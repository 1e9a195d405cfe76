"""The networks of madebyollin/taesd, rebuilt from the names and shapes in their files."""

import re

from torch import Tensor, nn

from fmrgen.errors import UserError
from fmrgen.weights.checkpoint import load_exactly, read_checkpoint

DOWNSAMPLING = 8
_WIDTH = 64  # channels between the blocks
_SCALES = 3  # each halves or doubles the side
_BLOCKS = 3  # at each scale
_POOL_WIDTH = 4 * _WIDTH  # channels inside a pool
_POOL_GROUPS = 4  # of a pool's norm


def load_encoder(file: str) -> nn.Sequential:
    """Return the network from images [B, 3, H, W] in [0, 1] to latents [B, C, H/8, W/8].

    Raises UserError for any other file.
    """
    state = read_checkpoint(file, "generator.encoder")
    subject = f"generator.encoder: {file}"
    layers: list[nn.Module] = [_conv(3, _WIDTH), Block(pool=False)]
    for scale in range(_SCALES):
        layers.append(_conv(_WIDTH, _WIDTH, stride=2, bias=False))
        layers += _blocks(pool=_has_pools(state) and scale == _SCALES - 1)
    layers.append(_conv(_WIDTH, _channels(state, -1, 0, subject)))
    network = nn.Sequential(*layers)
    load_exactly(network, state, subject)
    return network


def load_decoder(file: str) -> nn.Sequential:
    """Return the network from bounded latents [B, C, h, w] to images [B, 3, 8h, 8w].

    Raises UserError for any other file.
    """
    state = read_checkpoint(file, "generator.decoder")
    subject = f"generator.decoder: {file}"
    channels = _channels(state, 0, 1, subject)
    # The original first layer has no weights: it bounds the latent, which the generator does here.
    layers: list[nn.Module] = [nn.Identity(), _conv(channels, _WIDTH), nn.ReLU()]
    for scale in range(_SCALES):
        layers += _blocks(pool=_has_pools(state) and scale == 0)
        layers += [nn.Upsample(scale_factor=2), _conv(_WIDTH, _WIDTH, bias=False)]
    network = nn.Sequential(*layers, Block(pool=False), _conv(_WIDTH, 3))
    load_exactly(network, state, subject)
    return network


class Block(nn.Module):
    """Three convolutions with a skip connection. With a pool, the output of a wide group norm is added first."""

    def __init__(self, pool: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(_WIDTH, _WIDTH), nn.ReLU(), _conv(_WIDTH, _WIDTH), nn.ReLU(), _conv(_WIDTH, _WIDTH)
        )
        self.pool: nn.Sequential | None = None
        if pool:
            self.pool = nn.Sequential(
                nn.Conv2d(_WIDTH, _POOL_WIDTH, 1, bias=False),
                nn.GroupNorm(_POOL_GROUPS, _POOL_WIDTH),
                nn.ReLU(),
                nn.Conv2d(_POOL_WIDTH, _WIDTH, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        y: Tensor = self.conv(x) + x
        return y.relu()


def _blocks(pool: bool) -> list[Block]:
    return [Block(pool) for _ in range(_BLOCKS)]


def _conv(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)


def _has_pools(state: dict[str, Tensor]) -> bool:
    """Return whether the blocks at the latent's size have pools, as FLUX.2's do."""
    return any(".pool." in name for name in state)


def _channels(state: dict[str, Tensor], place: int, dimension: int, subject: str) -> int:
    """Return the size of a convolution, by its place among the plain layers: along 0 of its outputs, 1 of its inputs.

    Raises UserError if there is no plain layer, or this one is no convolution.
    """
    names = [name for name in state if re.fullmatch(r"\d+\.weight", name)]
    weights = [state[name] for name in sorted(names, key=lambda name: int(name.removesuffix(".weight")))]
    if not weights or weights[place].ndim != 4:
        raise UserError(f"{subject}: is not such a file of madebyollin/taesd; give its …_encoder or …_decoder")
    return weights[place].shape[dimension]
