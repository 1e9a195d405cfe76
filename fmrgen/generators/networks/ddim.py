"""Deterministic DDIM moves between noise levels, and their inversion, without clipping: it would end gradients."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from diffusers import DDIMScheduler
from torch import Tensor

from fmrgen.errors import UserError
from fmrgen.weights.pretrained import from_pretrained

NoiseSchedule = Literal["linear", "cosine"]
Eps = Callable[[Tensor, int], Tensor]  # of x [B, 3, H, W] and the index of a time: the noise in it


def alphas_cumprod(schedule: NoiseSchedule, training_steps: int) -> np.ndarray:
    """The share of the signal that is left at each of the training steps, float64 [T], as guided-diffusion has it."""
    if schedule == "linear":
        scale = 1000 / training_steps
        betas = np.linspace(scale * 1e-4, scale * 0.02, training_steps)
    else:
        left = np.cos((np.arange(training_steps + 1) / training_steps + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - left[1:] / left[:-1], 0.999)
    return np.cumprod(1 - betas)


def alphas_of_pipeline(model: str, revision: str | None) -> np.ndarray:
    """The same of the scheduler of a diffusers pipeline, float64.

    Raises UserError for a pipeline whose network does not predict noise.
    """
    scheduler = from_pretrained(DDIMScheduler, model, "generator.model", revision, subfolder="scheduler")
    if (prediction_type := scheduler.config.prediction_type) != "epsilon":
        raise UserError(f"generator.model: {model} predicts {prediction_type}, only epsilon is supported")
    found: np.ndarray = scheduler.alphas_cumprod.double().numpy()
    return found


def move(x: Tensor, eps: Tensor, at: float, to: float) -> Tensor:
    """x from the noise level `at` to the level `to` (cumulative alphas; 1 is no noise), its noise being `eps`."""
    signal = (x - (1 - at) ** 0.5 * eps) / at**0.5
    return to**0.5 * signal + (1 - to) ** 0.5 * eps


def invert(x: Tensor, eps: Eps, index: int, at: float, to: float, refinements: int) -> Tensor:
    """The x at the noisier level `to`, of time `index`, from which a move of DDIM leads to `x` at the level `at`.

    What noise a network sees there is only known when it is found: it starts from what it sees in `x`, and each
    refinement asks anew.
    """
    found = move(x, eps(x, index), at, to)
    for _ in range(refinements):
        found = move(x, eps(found, index), at, to)
    return found
