"""Which weights a component has, whatever file they came from."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from fmrgen.engine.interfaces import Generator, Oracle
from fmrgen.errors import UserError

_FEWEST_NUMBERS = 64  # of a tensor: of fewer, two networks may have the same
_COMPARED = 8  # numbers of a tensor, before all of them are
_REGISTRIES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


def weights_sha256(component: object, prefix: str = "") -> str | None:
    """A digest of the weights in `component`: of all tensors and arrays that it holds, None where it has none.

    Their names count, and begin with `prefix`. Raises UserError where they are not loaded.
    """
    digest = hashlib.sha256()
    found = 0
    for name, tensor in sorted(weights_of(component, prefix), key=lambda entry: entry[0]):
        if tensor.is_meta:
            raise UserError(f"{name}: the weights are on the meta device, without values; load them first")
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        plain = tensor.detach().cpu()
        plain = (plain if plain.layout == torch.strided else plain.to_dense()).resolve_conj().resolve_neg()
        digest.update(plain.contiguous().flatten().view(torch.uint8).numpy().data)
        found += 1
    return digest.hexdigest() if found else None


def shared_weights(component: object, other: object) -> float:
    """Return the share, from 0 to 1, of the numbers in `component`'s weights that lie in `other` too, in whole tensors.

    Names and files do not count, so a network is found in whatever is built around it. Tensors that many networks have
    (small ones, all alike, of whole numbers) are passed over, and of equal ones one counts.
    """
    theirs = _different_tensors(other)
    total = 0
    shared = 0
    for key, tensors in _different_tensors(component).items():
        for tensor in tensors:
            total += tensor.numel()
            if _is_among(tensor, theirs.get(key, [])):
                shared += tensor.numel()
    return shared / max(1, total)


def _different_tensors(component: object) -> dict[tuple[float, ...], list[torch.Tensor]]:
    """Return the tensors that tell networks apart, flat, by what equal ones have in common: size and some numbers."""
    tensors: dict[tuple[float, ...], list[torch.Tensor]] = {}
    for _, tensor in weights_of(component):
        if not tensor.is_floating_point() or tensor.numel() < _FEWEST_NUMBERS:
            continue
        flat = tensor.detach().flatten()
        if not bool((flat != flat[0]).any()):
            continue
        places = torch.linspace(0, len(flat) - 1, _COMPARED, dtype=torch.float64).long()
        key = (len(flat), *flat[places.to(flat.device)].to(torch.float32).tolist())
        alike = tensors.setdefault(key, [])
        if not _is_among(flat, alike):
            alike.append(flat)
    return tensors


def _is_among(tensor: torch.Tensor, others: list[torch.Tensor]) -> bool:
    return any(torch.equal(tensor.float(), other.to(tensor.device).float()) for other in others)


def check_same_weights(what: str, component: object, before: str | None) -> None:
    """Raises UserError where the weights in `component`, called `what`, are not those of the digest `before`."""
    if weights_sha256(component) != before:
        raise UserError(
            f"{what}: its weights changed during the run, as in training mode; its forward must not change them (call "
            "eval(), and never train() in it; a generator or an oracle lists what it computes in `derived`)"
        )


def weights_of(held: object, prefix: str = "", within: tuple[object, ...] = ()) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights of a component by their names, which begin with `prefix`: the state of a torch module, the
    tensors in the attributes of anything else, and those in lists and mappings of these."""
    if any(held is outer for outer in within):
        return
    within = (*within, held)
    members: dict[Any, object] = {}
    if isinstance(held, torch.Tensor):
        yield prefix.removesuffix("."), held
    elif isinstance(held, np.ndarray) and held.dtype.kind in "biufc":
        yield prefix.removesuffix("."), torch.from_numpy(held)
    elif isinstance(held, nn.Module):
        registered = held.state_dict(keep_vars=True)
        for name, entry in registered.items():
            if isinstance(entry, torch.Tensor):
                yield f"{prefix}{name}", entry.dequantize() if entry.is_quantized else entry
            else:  # quantized layers keep theirs in a tuple
                yield from weights_of(entry, f"{prefix}{name}.", within)
        if not registered:  # else its other tensors are no weights, and count in `weights.identity`
            members = {name: value for name, value in vars(held).items() if name not in _REGISTRIES}
            members |= held._modules
    elif isinstance(held, Generator | Oracle):
        members = {name: value for name, value in vars(held).items() if name not in held.derived}
    elif isinstance(held, list | tuple):
        members = dict(enumerate(held))
    elif isinstance(held, dict):
        members = held
    for name, value in members.items():
        yield from weights_of(value, f"{prefix}{name}.", within)
