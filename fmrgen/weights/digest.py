"""Which weights a component has, whatever file they came from."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import nn

from fmrgen.engine.interfaces import Generator, Oracle
from fmrgen.errors import UserError

_NO_SETTINGS = ("_use_default_values", "row_seeds")  # diffusers' names of defaults, in any order; of the last batch
_FEWEST_NUMBERS = 64  # of a tensor: of fewer, two networks may have the same
_REGISTRIES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


def weights_sha256(component: object, prefix: str = "") -> str | None:
    """A digest of the weights in `component`: of all tensors and arrays that it holds, None where it has none.

    Their names count, and begin with `prefix`.
    """
    digest = hashlib.sha256()
    found = 0
    for name, tensor in sorted(_tensors(component, prefix), key=lambda entry: entry[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        found += 1
    return digest.hexdigest() if found else None


def shared_weights(component: object, other: object) -> float:
    """The share, from 0 to 1, of the numbers in `component`'s weights that lie in `other` too, in whole tensors.

    Names and files do not count, so a network is found in whatever is built around it. Tensors that many networks have
    (small ones, all alike, of whole numbers) are passed over.
    """
    own, others = (dict(_tensor_digests(one)) for one in (component, other))
    return sum(size for digest, size in own.items() if digest in others) / max(1, sum(own.values()))


def _tensor_digests(component: object) -> Iterator[tuple[str, int]]:
    """A digest of each tensor that tells networks apart, and how many numbers it has."""
    for _, tensor in _tensors(component, ""):
        if (
            tensor.is_floating_point()
            and tensor.numel() >= _FEWEST_NUMBERS
            and bool((tensor != tensor.flatten()[0]).any())
        ):
            values = tensor.detach().cpu().to(torch.float32).contiguous()
            yield hashlib.sha256(values.view(torch.uint8).numpy().tobytes()).hexdigest(), tensor.numel()


def settings_sha256(component: object) -> str:
    """A digest of what `component`, as it was built, holds besides weights: numbers, words, and those of its modules.

    It tells networks apart whose weights are the same, and whose configuration is not.
    """
    plain = sorted(f"{name} {value!r}" for name, value in _plain_values(component, ""))
    return hashlib.sha256("\n".join(plain).encode()).hexdigest()


def check_same_weights(what: str, component: object, before: str | None) -> None:
    """Raises UserError where the weights in `component`, called `what`, are not those of the digest `before`."""
    if weights_sha256(component) != before:
        raise UserError(
            f"{what}: its weights changed during the run, as in training mode; its forward must not change them (call "
            "eval(), and never train() in it; a generator or an oracle lists what it computes in `derived`)"
        )


def _plain_values(held: object, prefix: str, within: tuple[object, ...] = ()) -> Iterator[tuple[str, object]]:
    """The numbers, words and kinds of objects in a component, each under its way there."""
    if any(held is outer for outer in within):
        return
    within = (*within, held)
    if held is None or isinstance(held, bool | int | float | str | bytes | torch.dtype):
        yield prefix, held
        return
    yield prefix, type(held).__qualname__
    members: dict[Any, object] = {}
    if isinstance(held, list | tuple):
        members = dict(enumerate(held))
    elif isinstance(held, dict):
        members = held
    elif isinstance(held, nn.Module | Generator | Oracle):
        members = vars(held)
    elif isinstance(held, BaseModel):
        members = held.model_dump()
    for name, value in members.items():
        if name not in _NO_SETTINGS:
            yield from _plain_values(value, f"{prefix}.{name}", within)


def _tensors(held: object, prefix: str, within: tuple[object, ...] = ()) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in a component, in its attributes and in lists and mappings of these, each under its way there."""
    if any(held is outer for outer in within):
        return
    within = (*within, held)
    members: dict[Any, object] = {}
    if isinstance(held, torch.Tensor):
        yield prefix.removesuffix("."), held
    elif isinstance(held, np.ndarray) and held.dtype.kind in "biufc":
        yield prefix.removesuffix("."), torch.from_numpy(held)
    elif isinstance(held, nn.Module):
        registered = held.state_dict()
        yield from ((f"{prefix}{name}", tensor) for name, tensor in registered.items())
        if not registered:  # else its other tensors are caches, as many networks have them
            members = {name: value for name, value in vars(held).items() if name not in _REGISTRIES}
            members |= held._modules
    elif isinstance(held, Generator | Oracle):
        members = {name: value for name, value in vars(held).items() if name not in held.derived}
    elif isinstance(held, list | tuple):
        members = dict(enumerate(held))
    elif isinstance(held, dict):
        members = held
    for name, value in members.items():
        yield from _tensors(value, f"{prefix}{name}.", within)
