"""Weights from a file into a network, without running anything that the file says."""

import pickle
import re
import tarfile
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fmrgen.errors import UserError, one_line
from fmrgen.weights.pretrained import local_file

_WRAPPERS = ("ema_model_state_dict", "state_dict", "net", "model_state_dict", "model")


def load_checkpoint(network: nn.Module, reference: str, key: str = "classifier.checkpoint") -> None:
    """Loads a file of `read_checkpoint` into `network`; every tensor must fit. Raises UserError, which begins with the
    `key` of a recipe that names the file."""
    load_exactly(network, read_checkpoint(reference, key), f"{key}: {reference}")


def read_checkpoint(reference: str, key: str) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or a torch file of plain tensors, by their names.

    State dicts under `ema_model_state_dict` and other usual names, and names that all start with `module.`, are
    unwrapped. Raises UserError, which begins with the `key` of a recipe that names the file, for one that is missing,
    unreadable, or holds code.
    """
    what = f"{key}: {reference}"
    path = local_file(reference, key)
    check_no_program(path, what)
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" not in str(error).lower():
            raise UserError(f"{what}: not a readable checkpoint") from None
        raise UserError(
            f"{what}: holds more than tensors, and nothing in it is run; save its state_dict alone"
        ) from None
    except Exception as error:  # a broken file can fail anywhere in the readers; none of them runs what it says
        raise UserError(f"{what}: not a readable checkpoint: {one_line(error)}") from None
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state:
        raise UserError(f"{what}: holds no state dict of tensors")
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise UserError(f"{what}: holds no state dict of tensors")
    return _unwrapped(dict(state))


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's own names: without `module.` before all of them, and out of what normalises for it or attacks it.

    Nets with their normalisation are pairs (`0.mean`, `1.conv1.weight`), RobustBench's and Madry's have a `model.`
    beside `mu`, `normalize.…` or `attacker.…`.
    """
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    for inner, beside in (("1.", r"0\.(mean|std)"), ("model.", r"(mu|sigma|mean|std|normaliz\w*\..*|attacker\..*)")):
        others = [key for key in state if not key.startswith(inner)]
        if others and len(others) < len(state) and all(re.fullmatch(beside, key) for key in others):
            return {key.removeprefix(inner): value for key, value in state.items() if key.startswith(inner)}
    return state


def freeze(module: nn.Module, device: torch.device | str | None = None) -> nn.Module:
    """A module ready to be used: on its device, in evaluation mode, its weights out of the gradient.

    Args:
        module: any torch module; changed in place.
        device: where it is to be; by default it stays where it is.

    Returns:
        The same module.
    """
    return (module if device is None else module.to(device)).eval().requires_grad_(False)


def load_exactly(network: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Loads `state` into `network`; raises UserError, starting with `what`, unless keys and shapes are all the same."""
    own = network.state_dict()
    # Files of old torch lack these counts, which matter in training alone; torch passes over it as well.
    state = {**{key: own[key] for key in own if key.endswith("num_batches_tracked")}, **state}
    wrong = [key for key in own if key in state and state[key].shape != own[key].shape]
    missing, strange = [key for key in own if key not in state], [key for key in state if key not in own]
    for keys, problem in ((wrong, "has another shape"), (missing, "is missing"), (strange, "is unknown to the model")):
        if keys:
            shapes = f" ({list(state[keys[0]].shape)}, not {list(own[keys[0]].shape)})" if keys is wrong else ""
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise UserError(f"{what}: not weights of this model: {keys[0]}{shapes}{more} {problem}")
    network.load_state_dict(state)


def check_no_program(path: Path | BinaryIO, what: str) -> None:
    """Raises UserError, starting with `what`, for files that torch would run or unpack: TorchScript, and its oldest
    format, a tar that can hold links and pipes.
    """
    names: list[str] = []
    try:
        is_tar = tarfile.is_tarfile(path)
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # a broken file can fail anywhere in the readers
        raise UserError(f"{what}: not a readable checkpoint: {one_line(error)}") from None
    if any(name.endswith("/constants.pkl") for name in names):
        raise UserError(f"{what}: is a TorchScript program, not weights; it was not run")
    if is_tar:
        raise UserError(f"{what}: is a tar, and is not unpacked; save the state_dict anew with torch.save")
