"""Images as bytes and as tensors: the one way from each to the other."""

import numpy as np
import torch
from torch import Tensor


def to_batch(pixels: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """8-bit pixels as what classifiers, generators and oracles take.

    Args:
        pixels: uint8 [B, H, W, 3].
        device: where the tensor is to be.

    Returns:
        float32 [B, 3, H, W] in [0, 1], contiguous: in another memory format other kernels run, with other last bits.
    """
    pixels = pixels if pixels.flags.writeable else pixels.copy()  # torch warns of others
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).contiguous().float() / 255


def to_bytes(images: Tensor) -> Tensor:
    """Images in [0, 1] as uint8, of the same shape."""
    return (images * 255).round().to(torch.uint8)


def on_byte_grid(images: Tensor) -> Tensor:
    """The nearest images that 8 bits can store, still in [0, 1]."""
    return (images * 255).round_().clamp_(0, 255).div_(255)


def as_float32(values: Tensor) -> Tensor:
    """Values of half precision as float32, others as they are."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


class StraightThroughBytes(torch.autograd.Function):
    """Rounds [0, 1] to multiples of 1/255; the gradient passes as if it did not."""

    @staticmethod
    def forward(ctx: object, images: Tensor) -> Tensor:
        return on_byte_grid(images)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return gradients[0]
