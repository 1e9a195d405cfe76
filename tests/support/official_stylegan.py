"""Files as StyleGAN-XL's code saves them: objects whose classes come along as source code."""

import json
import pickle
import sys
from collections import OrderedDict
from types import ModuleType

import numpy as np
import torch
from places import TESTS
from safetensors.torch import load_file

GOLDEN = TESTS / "data/golden"
GEOMETRIES = json.loads((GOLDEN / "stylegan-xl-small.json").read_text())


class EasyDict(dict):
    """Stands for the official class of that name."""


def _reconstruct_persistent_obj(meta):
    raise AssertionError("a file was run")


class Persistent:
    """Pickles itself as the official decorator makes its classes do."""

    def __init__(self, class_name, state):
        self.class_name, self.state = class_name, state

    def __reduce__(self):
        source = "raise AssertionError('source code was run')"
        meta = EasyDict(type="class", version=6, module_src=source, class_name=self.class_name, state=self.state)
        return _reconstruct_persistent_obj, (meta,)


def save_official(path, name, state=None, geometry=None, **also):
    """Writes the network `name` of the golden vectors as an official file, with other tensors or geometry if given."""
    state = load_file(GOLDEN / f"stylegan-xl-small-{name}.state.safetensors") if state is None else state
    geometry = GEOMETRIES[name] if geometry is None else geometry
    modules = {
        "torch_utils": ModuleType("torch_utils"),
        "torch_utils.persistence": ModuleType("torch_utils.persistence"),
    }
    modules |= {"dnnlib": ModuleType("dnnlib"), "dnnlib.util": ModuleType("dnnlib.util")}
    for module, made in (("torch_utils.persistence", _reconstruct_persistent_obj), ("dnnlib.util", EasyDict)):
        setattr(modules[module], made.__name__, made)
        made.__module__ = module
    before = dict(sys.modules)
    sys.modules.update(modules)
    try:
        path.write_bytes(
            pickle.dumps({"G": None, "training_set_kwargs": EasyDict(), "G_ema": _network(state, geometry), **also})
        )
    finally:
        sys.modules.clear()
        sys.modules.update(before)


def _network(state, geometry):
    inner = geometry["input"]
    extra = {
        "": {"img_resolution": geometry["img_resolution"], "init": np.zeros(2)},
        "synthesis": {"layer_names": [*geometry["layers"]], "output_scale": geometry["output_scale"]},
        "synthesis.input": {
            "size": np.broadcast_to(np.asarray(inner["size"][0]), [2]),
            "sampling_rate": np.float64(inner["sampling_rate"]),
            "bandwidth": np.float64(inner["bandwidth"]),
        },
        **{f"synthesis.{name}": layer for name, layer in geometry["layers"].items()},
    }
    return _module(state, extra, "")


def _module(state, extra, place):
    own = {name.removeprefix(place): tensor for name, tensor in state.items() if name.startswith(place)}
    inner = dict.fromkeys(name.split(".")[0] for name in own if "." in name)
    held = {name: tensor for name, tensor in own.items() if "." not in name}
    weights = {name: torch.nn.Parameter(tensor) for name, tensor in held.items() if name in ("weight", "bias")}
    attributes = {
        "training": False,
        "_parameters": OrderedDict(weights),
        "_buffers": OrderedDict({name: tensor for name, tensor in held.items() if name not in weights}),
        "_modules": OrderedDict({name: _module(state, extra, f"{place}{name}.") for name in inner}),
        **extra.get(place.rstrip("."), {}),
    }
    return Persistent(place or "Generator", attributes)
