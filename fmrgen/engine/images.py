"""Images as bytes and as tensors: every conversion between the two goes through here."""

import numpy as np
import torch
from torch import Tensor


def to_batch(pixels: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Return 8-bit pixels [B, H, W, 3] as the tensor that classifiers, generators and oracles take.

    It is float32 [B, 3, H, W] in [0, 1], contiguous: in another memory format other kernels run, with other last bits.
    """
    if not pixels.flags.writeable:
        pixels = pixels.copy()  # torch warns of read-only arrays
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).contiguous().float() / 255


def to_bytes(images: Tensor) -> Tensor:
    """Return images in [0, 1] as uint8, of the same shape."""
    return (images * 255).round().to(torch.uint8)


def on_byte_grid(images: Tensor) -> Tensor:
    """Return the nearest images that 8 bits can store, still in [0, 1]."""
    return (images * 255).round_().clamp_(0, 255).div_(255)


def as_float32(values: Tensor) -> Tensor:
    """Return values of half precision as float32, others unchanged."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


class StraightThroughBytes(torch.autograd.Function):
    """Rounding of [0, 1] to multiples of 1/255 that passes the gradient as if it did not round."""

    @staticmethod
    def forward(ctx: object, images: Tensor) -> Tensor:
        return on_byte_grid(images)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return gradients[0]
