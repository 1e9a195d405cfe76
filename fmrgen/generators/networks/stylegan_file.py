"""Official files of StyleGAN-XL: pickles of objects with the source code of their classes. None of it is run.

A pickle is a list of calls. Of what it may call only the few things that make tensors, arrays and dictionaries are
made, here; whatever else it names becomes an inert record of what it was given.
"""

import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fmrgen.errors import UserError, one_line
from fmrgen.generators.networks.stylegan_xl import Geometry, LayerGeometry
from fmrgen.weights.checkpoint import check_no_program
from fmrgen.weights.pretrained import local_file

_NUMBERS = {"i4": "i", "i8": "q", "f4": "f", "f8": "d"}  # numpy's names of what a number can be, and struct's


def read_stylegan(reference: str, key: str) -> tuple[Geometry, dict[str, Tensor]]:
    """The averaged generator (`G_ema`) of an official file.

    Args:
        reference: path of a `.pkl` file, or where it is on the Hub.
        key: of the recipe that names the file, for errors.

    Returns:
        What its tensors do not tell of its layers, and its tensors under their official names.

    Raises:
        UserError: the file is missing, broken or another network's.
    """
    what = f"{key}: {reference}"
    path = local_file(reference, key)
    try:
        with path.open("rb") as file:
            content = _Reader(file).load()
    except Exception as error:  # a broken file can fail anywhere in the reader, which runs nothing of it
        raise UserError(f"{what}: not a readable pickle: {one_line(error)}") from None
    try:
        network = content["G_ema"]
        synthesis = network.parts["synthesis"]
        geometry = _geometry(network.parts, synthesis.parts)
        state = dict(_tensors(network, ""))
    except (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError, struct.error) as error:
        raise UserError(f"{what}: is not a file of StyleGAN-XL: {one_line(error)}") from None
    return geometry, state


def _geometry(network: Mapping[str, Any], synthesis: Mapping[str, Any]) -> Geometry:
    names = [str(name) for name in synthesis["layer_names"]]
    layers = [synthesis[name].parts for name in names]
    first = synthesis["input"].parts
    return Geometry(
        int(network["img_resolution"]),
        int(first["size"][0]),
        float(first["sampling_rate"]),
        float(first["bandwidth"]),
        float(synthesis["output_scale"]),
        tuple(
            LayerGeometry(
                name,
                int(layer["up_factor"]),
                int(layer["down_factor"]),
                (
                    int(layer["padding"][0]),
                    int(layer["padding"][1]),
                    int(layer["padding"][2]),
                    int(layer["padding"][3]),
                ),
                None if layer["conv_clamp"] is None else float(layer["conv_clamp"]),
                bool(layer["is_torgb"]),
            )
            for name, layer in zip(names, layers, strict=True)
        ),
    )


def _tensors(module: "_Record", place: str) -> Iterator[tuple[str, Tensor]]:
    """The parameters and buffers of a module and those in it, by the names that torch would give them."""
    own = module.parts
    for name, tensor in {**own["_parameters"], **own["_buffers"]}.items():
        if isinstance(tensor, Tensor):
            yield f"{place}{name}", tensor
    for name, inner in own["_modules"].items():
        if inner is not None:
            yield from _tensors(inner, f"{place}{name}.")


class _Record:
    """Stands for an object: keeps its arguments and state, and never acts on them."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *arguments: Any, **options: Any) -> "_Record":
        return _Record(*arguments)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.state = {**(self.state or {}), key: value}

    def append(self, value: Any) -> None:
        """What a list would do; the value is let go."""

    def extend(self, values: Any) -> None:
        """What a list would do; the values are let go."""

    @property
    def parts(self) -> dict[str, Any]:
        """The attributes of an object, and the modules of a network as such."""
        state = self.state
        if not isinstance(state, Mapping):
            raise ValueError("it holds no network")
        return {**state, **(state.get("_modules") or {})}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        made = _MADE.get((module, name))
        if made is None:
            return type("_Inert", (_Record,), {})
        # A function is passed on wrapped: a pickle can write into the attributes of what it has named.
        return made if isinstance(made, type) else lambda *arguments: made(*arguments)

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to data outside the file")


def _persistent(meta: Mapping[str, Any]) -> _Record:
    """An object of a class that is kept as source code: what it held, without its class."""
    record = _Record()
    record.state = meta["state"]
    return record


def _storage(content: bytes) -> Any:
    """The numbers of a tensor, which are a file of torch inside of the pickle."""
    check_no_program(io.BytesIO(content), "a tensor of it")
    return torch.load(io.BytesIO(content), "cpu", weights_only=True)


def _parameter(tensor: Tensor, *_: Any) -> Tensor:
    return tensor


class _NumpyType(_Record):
    """A type of numpy, by its name alone."""


class _Array(_Record):
    """An array of numpy, read as numbers."""

    def __getitem__(self, index: int) -> float:
        _, _, kind, _, content = self.state
        return _unpacked(kind, content)[index]


def _unpacked(kind: _Record, content: Any) -> tuple[float, ...]:
    letter = _NUMBERS[str(kind.arguments[0]).lstrip("<")]
    return struct.unpack(f"<{len(content) // struct.calcsize(letter)}{letter}", content)


def _scalar(kind: _Record, content: bytes) -> float:
    return _unpacked(kind, content)[0]


def _array(*_: Any) -> _Array:
    return _Array()


_MADE: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("dnnlib.util", "EasyDict"): dict,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("numpy", "dtype"): _NumpyType,
    **{
        (f"numpy.{core}.multiarray", name): made
        for core in ("core", "_core")
        for name, made in (("scalar", _scalar), ("_reconstruct", _array))
    },
}
