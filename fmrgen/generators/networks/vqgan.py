"""VQGAN's network (Esser et al., 2021), under the names of taming-transformers."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Architecture:
    """The shape of a VQGAN."""

    ch: int  # channels of the first convolution
    widths: tuple[int, ...]  # channels of each level, the finest first; each level but the last halves the side
    attends: tuple[bool, ...]  # whether each level has attention
    num_res_blocks: int  # of a level in the encoder; the decoder has one more
    z_channels: int  # between encoder and codes
    embed_dim: int  # channels of a code
    n_embed: int  # codes in the codebook
    in_channels: int = 3
    out_channels: int = 3
    num_groups: int = 32

    @property
    def factor(self) -> int:
        """The side of an image divided by that of its latent."""
        return int(2 ** (len(self.widths) - 1))


class VqganNetwork(nn.Module):
    """Images [B, 3, H, W] in [-1, 1] to latents [B, embed_dim, H / factor, W / factor] and back."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        z_channels, embed_dim = architecture.z_channels, architecture.embed_dim
        self.architecture = architecture
        self.encoder = Encoder(architecture)
        self.decoder = Decoder(architecture)
        self.quantize = Codebook(architecture.n_embed, embed_dim)
        self.quant_conv = nn.Conv2d(z_channels, embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, z_channels, 1)

    def encode(self, images: Tensor) -> Tensor:
        """Return the latents before the codebook."""
        latents: Tensor = self.quant_conv(self.encoder(images))
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Return the images of latents as they are, quantized or not."""
        images: Tensor = self.decoder(self.post_quant_conv(latents))
        return images


class Codebook(nn.Module):
    """Replaces the vector at each place of a latent [B, C, H, W] by the nearest code."""

    def __init__(self, n_embed: int, embed_dim: int) -> None:
        super().__init__()
        # Its own initialization would import torch's compiler where weights are on the meta device.
        self.embedding = nn.Embedding(n_embed, embed_dim, _weight=torch.rand(n_embed, embed_dim))

    def forward(self, latents: Tensor) -> Tensor:
        """Return the nearest codes [B, C, H, W]; their gradient goes straight through to `latents`."""
        vectors = latents.permute(0, 2, 3, 1).contiguous()
        codes = self.embedding(self.numbers(vectors))
        # Convolutions of another layout would round differently.
        return (vectors + (codes - vectors).detach()).permute(0, 3, 1, 2).contiguous()

    def numbers(self, vectors: Tensor) -> Tensor:
        """Return the numbers [B, H, W] of the codes nearest to vectors [B, H, W, C]."""
        nearest = torch.cdist(vectors.flatten(0, 2), self.embedding.weight).argmin(1)
        return nearest.view(vectors.shape[:-1])


class Encoder(nn.Module):
    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        groups, widths = architecture.num_groups, architecture.widths
        self.conv_in = nn.Conv2d(architecture.in_channels, architecture.ch, 3, padding=1)
        self.down = nn.ModuleList()
        width = architecture.ch
        for level, next_width in enumerate(widths):
            is_last = level == len(widths) - 1
            downsample = nn.Identity() if is_last else Downsample(next_width)
            blocks = _blocks(width, next_width, architecture.num_res_blocks, architecture.attends[level], groups)
            self.down.append(nn.ModuleDict({**blocks, "downsample": downsample}))
            width = next_width
        self.mid = Middle(width, groups)
        self.norm_out = _norm(width, groups)
        self.conv_out = nn.Conv2d(width, architecture.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        level: Any
        for level in self.down:
            x = level["downsample"](_through(level, x))
        x = self.mid(x)
        output: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return output


class Decoder(nn.Module):
    """Its levels are numbered as the encoder's, and passed from the last, the coarsest, to the first."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        groups, widths = architecture.num_groups, architecture.widths
        width = widths[-1]
        self.conv_in = nn.Conv2d(architecture.z_channels, width, 3, padding=1)
        self.mid = Middle(width, groups)
        levels = []
        for level in reversed(range(len(widths))):
            blocks = _blocks(width, widths[level], architecture.num_res_blocks + 1, architecture.attends[level], groups)
            width = widths[level]
            levels.append(nn.ModuleDict({**blocks, "upsample": Upsample(width) if level > 0 else nn.Identity()}))
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = _norm(width, groups)
        self.conv_out = nn.Conv2d(width, architecture.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        level: Any
        for level in reversed(self.up):
            x = level["upsample"](_through(level, x))
        output: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return output


class Middle(nn.Module):
    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(width, width, groups)
        self.attn_1 = AttnBlock(width, groups)
        self.block_2 = ResnetBlock(width, width, groups)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return output


class ResnetBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1 = _norm(inputs, groups)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = _norm(outputs, groups)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        if hasattr(self, "nin_shortcut"):
            x = self.nin_shortcut(x)
        return x + h


class AttnBlock(nn.Module):
    """Attention of one head over all places."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = _norm(width, groups)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x.flatten(2)).transpose(1, 2)  # [B, HW, C]
        q, k, v = _linear(self.q, h), _linear(self.k, h), _linear(self.v, h)
        h = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return _linear(self.proj_out, h).transpose(1, 2).reshape(x.shape) + x


class Downsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return output


class Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return output


def _blocks(inputs: int, outputs: int, count: int, attends: bool, groups: int) -> dict[str, nn.Module]:
    """Return the residual blocks of a level, and the attention behind each if the level attends."""
    block = nn.ModuleList()
    attn = nn.ModuleList()
    for index in range(count):
        block.append(ResnetBlock(inputs if index == 0 else outputs, outputs, groups))
        attn.append(AttnBlock(outputs, groups) if attends else nn.Identity())
    return {"block": block, "attn": attn}


def _through(level: Any, x: Tensor) -> Tensor:
    for block, attn in zip(level["block"], level["attn"], strict=True):
        x = attn(block(x))
    return x


def _norm(width: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, width, eps=1e-6)


def _linear(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a 1×1 convolution to x [B, HW, C]: faster than on [B, C, H, W], and a linear layer in diffusers."""
    return F.linear(x, conv.weight[:, :, 0, 0], conv.bias)
