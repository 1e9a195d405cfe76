"""Loading weights from a file into a network, without running any code in the file."""

import pickle
import re
import tarfile
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fmrgen.errors import UserError, one_line
from fmrgen.weights.pretrained import local_file

Network = TypeVar("Network", bound=nn.Module)

_WRAPPERS = ("ema_model_state_dict", "state_dict", "net", "model_state_dict", "model")
# Prefixes of the network's own names, and the names that may stand outside it: a normalisation, an attack.
_INNER = (("1.", r"0\.(mean|std)"), ("model.", r"(mu|sigma|mean|std|normaliz\w*\..*|attacker\..*)"))


def load_checkpoint(network: nn.Module, reference: str) -> None:
    """Load a classifier's file that `read_checkpoint` reads; every tensor must fit. Raises UserError if it does not."""
    key = "classifier.checkpoint"
    load_exactly(network, read_checkpoint(reference, key), f"{key}: {reference}")


def read_checkpoint(reference: str, key: str) -> dict[str, Tensor]:
    """Return the tensors of a `.safetensors` file or a torch file of plain tensors, by their names.

    State dicts under `ema_model_state_dict` and other usual names, and names that all start with `module.`, are
    unwrapped. Raises UserError, which begins with the `key` of a recipe that names the file, if it is missing or
    unreadable, or contains code.
    """
    subject = f"{key}: {reference}"
    path = local_file(reference, key)
    check_no_program(path, subject)
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" not in str(error).lower():
            raise UserError(f"{subject}: not a readable checkpoint") from None
        raise UserError(
            f"{subject}: holds more than tensors, and nothing in it is run; save its state_dict alone"
        ) from None
    except Exception as error:  # a broken file can fail anywhere in the readers; none of them runs its code
        raise UserError(f"{subject}: not a readable checkpoint: {one_line(error)}") from None
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state:
        raise UserError(f"{subject}: holds no state dict of tensors")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(f"{subject}: holds no state dict of tensors")
    return _unwrapped(dict(state))


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the network's own names.

    These are without a `module.` that all names start with, and without the normalisation or attack around the
    network: networks with their normalisation are pairs (`0.mean`, `1.conv1.weight`), RobustBench's and Madry's have
    a `model.` next to `mu`, `normalize.…` or `attacker.…`.
    """
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    for prefix, outside in _INNER:
        inner = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        others = [name for name in state if not name.startswith(prefix)]
        if inner and others and all(re.fullmatch(outside, name) for name in others):
            return inner
    return state


def freeze(module: Network, device: torch.device | str | None = None) -> Network:
    """Return a module ready to be used: on its device, in evaluation mode, its weights without gradients.

    Args:
        module: any torch module; changed in place.
        device: where it is moved; by default it stays where it is.

    Returns:
        The same module.
    """
    if device is not None:
        module = module.to(device)
    return module.eval().requires_grad_(False)


def load_exactly(network: nn.Module, state: Mapping[str, Tensor], subject: str) -> None:
    """Load `state` into `network`. Raises UserError, starting with `subject`, if a name or shape is not the same."""
    expected = network.state_dict()
    # Files of old torch lack these counts, which matter only in training; torch does not require them either.
    counts = {name: tensor for name, tensor in expected.items() if name.endswith("num_batches_tracked")}
    state = {**counts, **state}
    missing = [name for name in expected if name not in state]
    wrong = [name for name, tensor in expected.items() if name in state and state[name].shape != tensor.shape]
    strange = [name for name in state if name not in expected]
    for names, problem in ((wrong, "has another shape"), (missing, "is missing"), (strange, "is unknown to the model")):
        if not names:
            continue
        example = names[0]
        if names is wrong:
            example += f" ({list(state[names[0]].shape)}, not {list(expected[names[0]].shape)})"
        if len(names) > 1:
            example += f" and {len(names) - 1} more"
        raise UserError(
            f"{subject}: not weights of this model: {example} {problem}; use the network that they belong to"
        )
    network.load_state_dict(state, assign=any(tensor.is_meta for tensor in expected.values()))


def check_no_program(path: Path | BinaryIO, subject: str) -> None:
    """Raise UserError, starting with `subject`, for files that torch would run or unpack.

    These are TorchScript, and its oldest format, a tar that can contain links and pipes.
    """
    names: list[str] = []
    try:
        is_tar = tarfile.is_tarfile(path)
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # a broken file can fail anywhere in the readers
        raise UserError(f"{subject}: not a readable checkpoint: {one_line(error)}") from None
    if any(name.endswith("/constants.pkl") for name in names):
        raise UserError(
            f"{subject}: is a TorchScript program, not weights; it was not run; export "
            "the network as ONNX, or save its state_dict"
        )
    if is_tar:
        raise UserError(f"{subject}: is a tar, and is not unpacked; save the state_dict anew with torch.save")
