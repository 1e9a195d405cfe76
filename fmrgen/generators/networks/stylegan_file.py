"""Official files of StyleGAN-XL: pickles of objects with the source code of their classes. None of it is run.

A pickle is a list of calls. Only the few that make tensors, arrays and dictionaries are carried out, by functions of
this module. Whatever else the pickle names becomes an inert record of its arguments.
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

_FORMATS = {"i4": "i", "i8": "q", "f4": "f", "f8": "d"}  # numpy's names of types of numbers, and struct's


def read_stylegan(reference: str, key: str) -> tuple[Geometry, dict[str, Tensor]]:
    """Return the averaged generator (`G_ema`) of an official file: its geometry, and its tensors by official names.

    `reference` is the path of a `.pkl` file, or where it is on the Hub. Raises UserError, starting with `key`, if the
    file is missing, broken or another network's.
    """
    subject = f"{key}: {reference}"
    path = local_file(reference, key)
    try:
        with path.open("rb") as file:
            content = _Reader(file).load()
    except Exception as error:  # a broken file can fail anywhere in the reader, which runs nothing of it
        raise UserError(f"{subject}: not a readable pickle: {one_line(error)}") from None
    try:
        network = content["G_ema"]
        synthesis = network.parts["synthesis"]
        geometry = _geometry(network.parts, synthesis.parts)
        state = dict(_tensors(network, ""))
    except (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError, struct.error) as error:
        raise UserError(f"{subject}: is not a file of StyleGAN-XL: {one_line(error)}") from None
    return geometry, state


def _geometry(network: Mapping[str, Any], synthesis: Mapping[str, Any]) -> Geometry:
    """Return the geometry of a network, from its attributes and those of its synthesis."""
    layers = [_layer_geometry(name, synthesis[name].parts) for name in map(str, synthesis["layer_names"])]
    first = synthesis["input"].parts
    return Geometry(
        int(network["img_resolution"]),
        int(first["size"][0]),
        float(first["sampling_rate"]),
        float(first["bandwidth"]),
        float(synthesis["output_scale"]),
        tuple(layers),
    )


def _layer_geometry(name: str, layer: Mapping[str, Any]) -> LayerGeometry:
    padding = layer["padding"]
    return LayerGeometry(
        name,
        int(layer["up_factor"]),
        int(layer["down_factor"]),
        (int(padding[0]), int(padding[1]), int(padding[2]), int(padding[3])),
        None if layer["conv_clamp"] is None else float(layer["conv_clamp"]),
        bool(layer["is_torgb"]),
    )


def _tensors(module: "_Record", place: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers of a module and its submodules, by the names that torch would give them."""
    attributes = module.parts
    for name, tensor in {**attributes["_parameters"], **attributes["_buffers"]}.items():
        if isinstance(tensor, Tensor):
            yield f"{place}{name}", tensor
    for name, inner in attributes["_modules"].items():
        if inner is not None:
            yield from _tensors(inner, f"{place}{name}.")


class _Record:
    """A stand-in for an object: it stores arguments and state, and never acts on them."""

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
        """Drop a value that the pickle appends to the object."""

    def extend(self, values: Any) -> None:
        """Drop values that the pickle appends to the object."""

    @property
    def parts(self) -> dict[str, Any]:
        """Return the attributes of the object; submodules count as attributes, as in torch."""
        state = self.state
        if not isinstance(state, Mapping):
            raise ValueError("it holds no network")
        return {**state, **(state.get("_modules") or {})}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        maker = _MAKERS.get((module, name))
        if maker is None:
            return type("_Inert", (_Record,), {})
        if isinstance(maker, type):
            return maker

        def make(*arguments: Any) -> Any:  # a pickle can write into the attributes of what it has named
            return maker(*arguments)

        return make

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to data outside the file")


def _persistent(meta: Mapping[str, Any]) -> _Record:
    """Return a record with the state of an object whose class is stored as source code; the class is left out."""
    record = _Record()
    record.state = meta["state"]
    return record


def _storage(content: bytes) -> Any:
    """Return the storage of a tensor, from the file of torch inside the pickle."""
    check_no_program(io.BytesIO(content), "a tensor of it")
    return torch.load(io.BytesIO(content), "cpu", weights_only=True)


class _Array(_Record):
    """An array of numpy, read as numbers."""

    def __getitem__(self, index: int) -> float:
        _, _, number_type, _, content = self.state
        return _unpacked(number_type, content)[index]


def _unpacked(number_type: _Record, content: Any) -> tuple[float, ...]:
    """Return the numbers in little-endian bytes."""
    letter = _FORMATS[str(number_type.arguments[0]).lstrip("<")]
    count = len(content) // struct.calcsize(letter)
    return struct.unpack(f"<{count}{letter}", content)


def _scalar(number_type: _Record, content: bytes) -> float:
    return _unpacked(number_type, content)[0]


# By module and name, all that a pickle may call.
_MAKERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("dnnlib.util", "EasyDict"): dict,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("numpy", "dtype"): _Record,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(),
}
