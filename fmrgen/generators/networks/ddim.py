"""Deterministic DDIM moves between noise levels, and their inversion. Nothing is clipped: that would end gradients."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from diffusers import DDIMScheduler
from torch import Tensor

from fmrgen.errors import UserError
from fmrgen.weights.pretrained import from_pretrained

NoiseSchedule = Literal["linear", "cosine"]
Eps = Callable[[Tensor, int], Tensor]  # from x [B, 3, H, W] and the index of a time to the noise in x

# The schedules of guided-diffusion: linear betas from Ho et al. 2020, the cosine from Nichol and Dhariwal 2021.
_FIRST_BETA, _LAST_BETA = 1e-4, 0.02  # for 1,000 training steps
_COSINE_OFFSET = 0.008  # keeps the first betas from being too small
_MAX_BETA = 0.999  # keeps the last betas below 1


def alphas_cumprod(schedule: NoiseSchedule, training_steps: int) -> np.ndarray:
    """Return the share of the signal that is left at each training step, float64 [T], as guided-diffusion has it."""
    if schedule == "linear":
        scale = 1000 / training_steps
        betas = np.linspace(scale * _FIRST_BETA, scale * _LAST_BETA, training_steps)
    else:
        times = np.arange(training_steps + 1) / training_steps
        alpha_bars = np.cos((times + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * np.pi / 2) ** 2
        betas = np.minimum(1 - alpha_bars[1:] / alpha_bars[:-1], _MAX_BETA)
    return np.cumprod(1 - betas)


def alphas_of_pipeline(model: str, revision: str | None) -> np.ndarray:
    """Return the cumulative alphas of the scheduler of a diffusers pipeline, float64 [T].

    Raises UserError for a pipeline whose network does not predict noise.
    """
    scheduler = from_pretrained(DDIMScheduler, model, "generator.model", revision, subfolder="scheduler")
    prediction_type = scheduler.config.prediction_type
    if prediction_type != "epsilon":
        raise UserError(f"generator.model: {model} predicts {prediction_type}, only epsilon is supported")
    alphas: np.ndarray = scheduler.alphas_cumprod.double().numpy()
    return alphas


def move(x: Tensor, eps: Tensor, at: float, to: float) -> Tensor:
    """Return x moved from the cumulative alpha `at` (1 is no noise) to another, `to`; `eps` is the noise in it."""
    signal = (x - (1 - at) ** 0.5 * eps) / at**0.5
    return to**0.5 * signal + (1 - to) ** 0.5 * eps


def invert(x: Tensor, eps: Eps, index: int, at: float, to: float, refinements: int) -> Tensor:
    """Return the noisier x from which a move of DDIM leads back to `x`.

    The network's noise at the noisier x is only known once that x is. So the search starts with the noise that the
    network sees in `x`, and each refinement takes the noise in the last estimate instead (a fixed-point iteration).

    `at` is the cumulative alpha of `x`, `to` that of the returned x, which is lower; `index` is of the time of `to`.
    """
    noisier = move(x, eps(x, index), at, to)
    for _ in range(refinements):
        noisier = move(x, eps(noisier, index), at, to)
    return noisier
