"""Which weights a component has, whatever file they came from."""

import hashlib

import torch
from torch import nn

from fmrgen.engine.interfaces import Generator, Oracle
from fmrgen.errors import UserError


def weights_sha256(component: object) -> str | None:
    """A digest of the weights of the modules in `component`, None where it has none."""
    digest = hashlib.sha256()
    found = 0
    for name, tensor in sorted(_weights(component, "")):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        found += 1
    return digest.hexdigest() if found else None


def check_same_weights(what: str, component: object, before: str | None) -> None:
    """Raises UserError where the weights in `component`, called `what`, are not those of the digest `before`."""
    if weights_sha256(component) != before:
        raise UserError(
            f"{what}: its weights changed during the run, as in training mode; its forward must "
            "leave them alone (call eval(), and no train() in it)"
        )


def _weights(component: object, prefix: str) -> list[tuple[str, torch.Tensor]]:
    if isinstance(component, nn.Module):
        return [(f"{prefix}{name}", tensor) for name, tensor in component.state_dict().items()]
    members: dict[str, object] = {}
    if isinstance(component, list | tuple):
        members = {str(i): member for i, member in enumerate(component)}
    elif isinstance(component, Generator | Oracle):
        members = vars(component)
    return [entry for name, member in members.items() for entry in _weights(member, f"{prefix}{name}.")]
