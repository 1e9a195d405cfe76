"""A device that is not the CPU, on any machine: its tensors are kept by the CPU, and may not be mixed with the CPU's own.

Operations on them are done by the CPU's kernels, so results are the CPU's to the bit; what goes to and fro is counted.
"""

from collections import Counter
from contextlib import contextmanager

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}


class Backend(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]


backend_registration._setup_privateuseone_for_python_backend("elsewhere", backend_module=Backend())
ELSEWHERE = torch.device("elsewhere:0")
traffic = Counter()  # "to", "from": tensors that crossed; "float64": operations on such


class There(torch.Tensor):
    """A tensor of the device; `held` is where its values are."""

    @staticmethod
    def __new__(cls, held):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=ELSEWHERE,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def tolist(self):
        traffic["from"] += 1
        return self.held.tolist()


def _run(func, args, kwargs):
    given, _ = tree_flatten((args, kwargs))
    there = [value for value in given if isinstance(value, There)]
    here = [value for value in given if isinstance(value, torch.Tensor) and not isinstance(value, There)]
    device = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
    if there and func not in COPIES and any(value.dim() for value in here):
        raise RuntimeError(f"{func}: tensors of two devices")
    leaves = bool(there) and (device == "cpu" or func is aten._local_scalar_dense.default)
    leaves |= func is aten.copy_.default and bool(there) and not isinstance(args[0], There)
    comes = bool(here) and not there and device == "elsewhere"
    comes |= func is aten.copy_.default and isinstance(args[0], There) and not isinstance(args[1], There)
    traffic["from"] += leaves
    traffic["to"] += comes
    traffic["float64"] += any(value.dtype == torch.float64 for value in there)
    held = tree_map(_held, (args, kwargs))
    found = func(*held[0], **held[1])
    if func._schema.is_mutable and isinstance(found, torch.Tensor):
        for value in given:  # written in place: the very tensor
            if _held(value) is found:
                return value
    if func is aten._local_scalar_dense.default or not (comes or (there and not leaves) or device == "elsewhere"):
        return found
    return tree_map(lambda value: There(value) if isinstance(value, torch.Tensor) else value, found)


def _held(value):
    if isinstance(value, There):
        return value.held
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == "elsewhere" else value


class _Everything(TorchDispatchMode):
    """Makes tensors there, too, where nothing is given but the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


@contextmanager
def elsewhere():
    """Around what uses the device."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    traffic.clear()
    try:
        with _Everything():
            yield ELSEWHERE
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


_library = torch.library.Library("aten", "IMPL")  # what torch's own kernels ask for, below any mode


def _empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
    return There(torch.empty_strided(size, stride, dtype=dtype))


def _empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
    return There(torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format))


def _copy_from(source, target, non_blocking=False):
    traffic["from"] += isinstance(source, There) and not isinstance(target, There)
    traffic["to"] += isinstance(target, There) and not isinstance(source, There)
    _held(target).copy_(_held(source))
    return target


_library.impl("empty_strided", _empty_strided, "PrivateUse1")
_library.impl("empty.memory_format", _empty, "PrivateUse1")
_library.impl("_copy_from", _copy_from, "PrivateUse1")
