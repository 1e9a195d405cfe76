"""Digests and comparison of a component's weights, independent of the files that they came from."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import nn

from fmrgen.engine.interfaces import Generator, Oracle
from fmrgen.errors import UserError

# Attributes in which torch keeps the tensors and submodules of a module.
_REGISTRIES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


def weights_sha256(component: object) -> str | None:
    """Return a digest of all tensors and arrays in `component`, with their names, or None if it has none.

    Raises UserError if they are not loaded.
    """
    return weights_digests(component, [""])[0]


def weights_digests(component: object, prefixes: Sequence[str]) -> list[str | None]:
    """Return a digest as `weights_sha256` does for each prefix of the weights' names; they are read once."""
    digests = [hashlib.sha256() for _ in prefixes]
    tensors = sorted(weights_of(component), key=itemgetter(0))
    for name, tensor in tensors:
        if tensor.is_meta:
            raise UserError(f"{name}: the weights are on the meta device, without values; load them first")
        plain = tensor.detach().cpu()
        if plain.layout != torch.strided:
            plain = plain.to_dense()
        plain = plain.resolve_conj().resolve_neg()
        content = plain.contiguous().flatten().view(torch.uint8).numpy().data
        for prefix, digest in zip(prefixes, digests, strict=True):
            digest.update(f"{prefix}{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(content)
    if not tensors:
        return [None for _ in prefixes]
    return [digest.hexdigest() for digest in digests]


def shared_weights(component: object, other: object) -> float:
    """Return the share, from 0 to 1, of the numbers in `component`'s weights that `other` has too, in whole tensors.

    Names and files do not matter, so a network is recognised inside a larger one. Tensors that many networks have
    (small ones, constant ones, those of whole numbers) are ignored, and equal ones count once.
    """
    theirs = _different_tensors(other)
    total = shared = 0
    for key, tensors in _different_tensors(component).items():
        for tensor in tensors:
            total += tensor.numel()
            shared += tensor.numel() if _is_among(tensor, theirs.get(key, [])) else 0
    return shared / max(1, total)


def _different_tensors(component: object) -> dict[tuple[float, ...], list[torch.Tensor]]:
    """Return the flattened tensors that tell networks apart, by their size and some of their numbers."""
    tensors: dict[tuple[float, ...], list[torch.Tensor]] = {}
    for _, tensor in weights_of(component):
        if not tensor.is_floating_point() or tensor.numel() < 64:  # two networks may share a smaller one by chance
            continue
        flat = tensor.detach().flatten()
        places = torch.linspace(0, len(flat) - 1, 8, dtype=torch.float64).long().to(flat.device)
        compared = flat[places]
        if bool((compared == compared[0]).all()) and not bool((flat != flat[0]).any()):
            continue
        key = (len(flat), *compared.to(torch.float32).tolist())
        candidates = tensors.setdefault(key, [])  # equal tensors have the same key
        if not _is_among(flat, candidates):
            candidates.append(flat)
    return tensors


def _is_among(tensor: torch.Tensor, others: list[torch.Tensor]) -> bool:
    return any(torch.equal(tensor.float(), other.to(tensor.device).float()) for other in others)


def check_same_weights(name: str, component: object, before: str | None) -> None:
    """Raise UserError, starting with the component's `name`, if the digest of its weights is no longer `before`."""
    if weights_sha256(component) != before:
        raise UserError(
            f"{name}: its weights changed during the run, as in training mode; its forward must not change them (call "
            "eval(), and never train() in it; a generator or an oracle lists what it computes in `derived`)"
        )


def weights_of(held: object, prefix: str = "", within: tuple[object, ...] = ()) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights of a component, or of a value in it, with their names, which all begin with `prefix`.

    Weights are the state of a torch module, the tensors in the attributes of a generator or an oracle, and those in
    lists and mappings of these. `within` are the objects that contain it: an object that contains itself is not visited
    twice.
    """
    if any(held is outer for outer in within):
        return
    if isinstance(held, torch.Tensor):
        yield prefix.removesuffix("."), held
    elif isinstance(held, np.ndarray) and held.dtype.kind in "biufc":
        yield prefix.removesuffix("."), torch.from_numpy(held)
    else:
        for name, value in _members_of(held).items():
            yield from weights_of(value, f"{prefix}{name}.", (*within, held))


def _members_of(held: object) -> Mapping[Any, object]:
    """Return the values in a component that may be or contain weights, by their names."""
    if isinstance(held, nn.Module):
        registered = dict(held.state_dict(keep_vars=True))  # entries of quantized layers may be tuples
        for name, entry in registered.items():
            if isinstance(entry, torch.Tensor) and entry.is_quantized:
                registered[name] = entry.dequantize()
        if registered:  # its other tensors are no weights, and count in `weights.identity`
            return registered
        attributes = {name: value for name, value in vars(held).items() if name not in _REGISTRIES}
        return attributes | held._modules
    if isinstance(held, Generator | Oracle):
        return {name: value for name, value in vars(held).items() if name not in held.derived}
    if isinstance(held, list | tuple):
        return dict(enumerate(held))
    return held if isinstance(held, dict) else {}
