"""The identity of a component: everything that its answers follow from, so that no other one's results are reused.

Weights alone do not tell two networks apart: one may normalise by another mean, apply another threshold, or call a
function that was changed. So the identity of an object covers its attributes and tensors, the code of its class and of
the functions that it calls, the values that these refer to, and the files that they were imported from.
"""

import dis
import hashlib
import io
import re
import struct
import sys
import types
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from inspect import getattr_static
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from fmrgen.files import sha256_of
from fmrgen.trust.code import runs_code_of_others
from fmrgen.trust.source_code import is_own, own_code_sha256, own_files
from fmrgen.weights.digest import weights_of, weights_sha256

_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.layout, torch.memory_format, PurePath, range)
_ROUTINES = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, np.ufunc)
# These change no answer: descriptors that Python makes for slots and fields, and the device that a component is on.
_IGNORED = (types.GetSetDescriptorType, types.MemberDescriptorType, type(NotImplemented), type(...), torch.device)
_IGNORED_MODULES = ("threading", "_thread", "logging", "weakref", "_weakref", "_weakrefset", "concurrent", "_abc")
# Attributes of every module of torch; the caller sets evaluation mode, and compiles the module or not.
_OF_EVERY_MODULE = ("training", "_is_full_backward_hook", "_compiled_call_impl")
# Attributes of a graph of torch.fx, which its code replaces.
_OF_A_GRAPH = ("_graph", "_code", "_lineno_map", "_prologue_start", "_tracer_cls", "_tracer_extras", "meta")
_NOT_COUNTED = ("_use_default_values", "row_seeds")  # names that diffusers has in any order; seeds of the last batch
_HOOKS = ("_hooks", "_hooks_with_kwargs", "_hooks_always_called")  # ends of names of dicts whose keys are just numbers
_POINTER = struct.calcsize("P")  # bytes
_NUMBER_OF_CLASS = re.compile(rb"[./]?___torch_mangle_\d+")
_BUILT_ON = ("torch", "torchvision", "timm", "transformers", "numpy")


@dataclass(frozen=True)
class Identity:
    """Everything that the answers of a component follow from.

    Attributes:
        weights_sha256: digest of its weights, as `weights_sha256` returns it; None if it has none.
        state_sha256: digest of everything else: attributes, tensors that are no weights, the code of its class and of
            the functions that it calls, and the values that these refer to.
        code: the sha256 of each file of a user's own code that it comes from, by module.
        libraries: the versions of the libraries that it uses, by name; for fmrgen the digest of its code.
        unknown: the first attribute that can't be digested, as an open file; None if there is none.
    """

    weights_sha256: str | None
    state_sha256: str
    code: Mapping[str, str]
    libraries: Mapping[str, str]
    unknown: str | None

    @property
    def key(self) -> dict[str, Any]:
        """Return the identity as JSON, from which the names of cached results are made."""
        return {
            "weights": self.weights_sha256,
            "state": self.state_sha256,
            "code": dict(self.code),
            "libraries": dict(self.libraries),
        }

    def unknown_beside(self, section: BaseModel | None) -> str | None:
        """Return `unknown` for a component built from `section`; None if everything is known.

        For a built-in component, the section and the libraries' versions determine what its attributes do not show.
        """
        if section is not None and not runs_code_of_others(section):
            return None
        return self.unknown


def identity_of(component: object, weights: str | None = None) -> Identity:
    """Return the identity of a component.

    It is the same in every process and on every device. Attributes that the component lists in `derived`, since it
    computes them itself, do not count.

    Args:
        component: a torch module, a generator, an oracle, or any other object.
        weights: the digest of its weights, if that is known.

    Raises:
        UserError: its weights are not loaded.
    """
    weights = weights or weights_sha256(component)
    walk = _walk(component)
    code: dict[str, str] = {}
    for module in sorted(walk.modules):
        if module not in code:  # otherwise the modules that it imports are in it too
            for name, path in own_files(module).items():
                code[name] = sha256_of(path)
    libraries = {name: _version(name) for name in sorted({*walk.libraries, *_BUILT_ON})}
    libraries["fmrgen"] = own_code_sha256()
    return Identity(weights, walk.digest.hexdigest(), dict(sorted(code.items())), libraries, walk.unknown)


def state_sha256(value: object) -> str:
    """Return a digest of a component's state alone, or of arrays and plain values in lists and mappings."""
    return _walk(value).digest.hexdigest()


def _walk(component: object) -> "_Walk":
    walk = _Walk(component)
    try:
        walk.visit(component, "")
    except RecursionError:
        walk.unknown = "structure, which is nested too deeply,"
    return walk


class _Walk:
    """Visits everything that an object refers to, in an order that is the same in every process, and digests it.

    Attributes:
        digest: digest of everything that was visited.
        modules: the user's own modules that classes and functions come from.
        libraries: the top-level names of the other modules.
        unknown: the path to the first value that could not be read.
    """

    def __init__(self, component: object) -> None:
        self.digest = hashlib.sha256()
        self.modules: set[str] = set()
        self.libraries: set[str] = set()
        self.unknown: str | None = None
        self._tensors = [tensor for _, tensor in weights_of(component)]  # keeps them alive: an `id` may be reused
        self._weights = {id(tensor) for tensor in self._tensors}
        self._numbers: dict[int, int] = {}  # of visited objects, by `id`, in the order of visits
        self._visited: list[object] = []  # keeps them alive: an `id` may be reused
        self._visited_modules: set[tuple[str, tuple[str, ...]]] = set()

    def visit(self, value: Any, path: str) -> None:
        """Digest a value; `path` is how it is reached, for messages."""
        if self._visit_plain(value, path):
            return
        if isinstance(value, Tensor | np.ndarray):
            self._tensor(value, path)
        elif isinstance(value, types.ModuleType):
            self._module(value, (), path)
        elif isinstance(value, type):
            self._class(value, path)
        elif isinstance(value, types.FunctionType):
            self._function(value, path)
        elif isinstance(value, _ROUTINES):
            self._routine(value, path)
        elif isinstance(value, staticmethod | classmethod):
            self.visit(value.__func__, path)
        elif isinstance(value, types.MethodType | property | partial):
            self.visit(_parts_of(value), path)
        elif isinstance(value, torch.jit.ScriptModule):
            self._scripted(value, path)
        elif isinstance(value, nn.Module) and "_orig_mod" in value._modules:  # made by torch.compile
            self.visit(value._modules["_orig_mod"], path)
        else:
            try:
                self._object(value, path)
            except RecursionError:
                raise
            except Exception:  # an attribute may run any code
                self._give_up(path, value)

    def _visit_plain(self, value: Any, path: str) -> bool:
        """Digest a value that is plain or was visited before; return False for any other."""
        if value is None or isinstance(value, _PLAIN):
            self._add(type(value).__name__, repr(value))
            if value is not None and type(value).__module__ not in ("builtins", "torch", "pathlib", "numpy"):
                self.visit(dict(getattr(value, "__dict__", {})), path)  # attributes of a subclass
            return True
        if isinstance(value, Enum):
            self._add("enum", type(value).__module__, type(value).__qualname__, value.name)
            self.visit(value.value, path)
            return True
        if isinstance(value, _IGNORED) or type(value).__module__.partition(".")[0] in _IGNORED_MODULES:
            return True
        if not isinstance(value, tuple | frozenset):  # equal constants are one object in one process, two in another
            if id(value) in self._numbers:
                self._add("again", self._numbers[id(value)])
                return True
            self._numbers[id(value)] = len(self._visited)
            self._visited.append(value)
        return False

    def _add(self, *entries: object) -> None:
        """Add plain values to the digest."""
        self.digest.update(repr(entries).encode(errors="backslashreplace"))

    def _give_up(self, path: str, value: object) -> None:
        """Record that a value can't be digested."""
        kind = type(value).__qualname__
        self._add("unknown", kind)
        if self.unknown is None:
            self.unknown = f"{path.removeprefix('.') or 'it'} (of type {kind})"

    def _tensor(self, value: Tensor | np.ndarray, path: str) -> None:
        if id(value) in self._weights:
            self._add("weights")
            return
        if isinstance(value, np.ndarray) and value.dtype.hasobject:
            self._add("array", value.shape)
            self.visit(value.tolist(), path)
            return
        try:
            if isinstance(value, Tensor):
                content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
            else:
                content = np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
        except (RuntimeError, NotImplementedError, TypeError):  # sparse, quantized, or without data
            self._give_up(path, value)
            return
        self._add("tensor", str(value.dtype), tuple(value.shape), hashlib.sha256(content).hexdigest())
        if type(value) not in (Tensor, np.ndarray):  # a subclass, such as a masked array
            self.visit(dict(getattr(value, "__dict__", {})), path)

    def _is_own(self, module: str | None) -> bool:
        """Return whether a module is the user's own, and record it in `modules` or `libraries`."""
        if module is None:
            return False
        if is_own(module):
            self.modules.add(module)
            return True
        self.libraries.add(module.partition(".")[0])
        return False

    def _module(self, value: types.ModuleType, names: tuple[str, ...], path: str) -> None:
        """Digest the attributes `names` of a user's own module, whose files are part of the identity anyway."""
        self._add("module", value.__name__)
        if (value.__name__, names) in self._visited_modules or not self._is_own(value.__name__):
            return
        self._visited_modules.add((value.__name__, names))
        for name in names:
            if name in vars(value):
                self._add(name)
                self._global(vars(value)[name], names, f"{path}.{name}")

    def _global(self, value: object, names: tuple[str, ...], path: str) -> None:
        """Digest a value that code refers to, and for a module its attributes whose `names` the code contains."""
        if isinstance(value, types.ModuleType):
            self._module(value, names, path)
        else:
            self.visit(value, path)

    def _class(self, value: type, path: str) -> None:
        self._add("class", value.__module__, value.__qualname__)
        if not self._is_own(value.__module__):
            self._patches(value, path)
            return
        self.visit(value.__bases__, path)
        for name, member in sorted(vars(value).items()):
            is_code = isinstance(member, types.FunctionType | staticmethod | classmethod | property)
            if is_code or not name.startswith("__"):
                self._add(name)
                self.visit(member, f"{path}.{name}")

    def _patches(self, value: type, path: str) -> None:
        """Digest the functions that a user has put into a library's class."""
        for base in value.__mro__:
            library = base.__module__.partition(".")[0]
            for name, member in sorted(vars(base).items()):
                module = member.__module__ if isinstance(member, types.FunctionType) else None
                if module is not None and module.partition(".")[0] != library and is_own(module):
                    self._add("patched", name)
                    self.visit(member, f"{path}.{name}")

    def _function(self, value: types.FunctionType, path: str) -> None:
        self._add("function", value.__module__, value.__qualname__)
        if not self._is_own(value.__module__):
            return
        self._code(value.__code__, path)
        self.visit((value.__defaults__, value.__kwdefaults__, vars(value)), path)
        for cell in value.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # the cell is still empty
                content = None
            self.visit(content, f"{path}()")
        names = _names_in(value.__code__)
        for name in names.of_globals:
            if name in value.__globals__:
                self._add(name)
                self._global(value.__globals__[name], names.of_attributes, f"{path}() {name}")
        for name in names.of_imports:
            if name in sys.modules:
                self._module(sys.modules[name], names.of_attributes, f"{path}() {name}")

    def _code(self, code: types.CodeType, path: str) -> None:
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        self._add("code", code.co_code, code.co_names, arguments, code.co_freevars, code.co_flags)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._code(constant, path)
            else:
                self.visit(constant, path)

    def _routine(self, value: Any, path: str) -> None:
        """Digest a compiled function by its name: the version of its library determines what it does."""
        module = getattr(value, "__module__", None)
        self._add("routine", module, getattr(value, "__qualname__", value.__name__))
        self._is_own(module)
        holder = getattr(value, "__self__", None)
        if holder is not None and not isinstance(holder, types.ModuleType):
            self.visit(holder, path)

    def _scripted(self, value: torch.jit.ScriptModule, path: str) -> None:
        """Digest a network of TorchScript as its file, without the file's record of how it was made."""
        file = io.BytesIO()
        try:
            torch.jit.save(value, file)
        except RuntimeError:
            self._give_up(path, value)
            return
        parts = []
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                inner = name.partition("/")[2]  # the first folder has the name of the file
                if inner.startswith(("code/", "constants")) and not inner.endswith(".debug_pkl"):
                    # The names of classes count how many of the same name the process had before.
                    content = _NUMBER_OF_CLASS.sub(b"", archive.read(name))
                    parts.append((_NUMBER_OF_CLASS.sub(b"", inner.encode()), hashlib.sha256(content).hexdigest()))
        self._add("scripted", sorted(parts))

    def _object(self, value: Any, path: str) -> None:
        """Digest any other object: its class, its entries, its attributes."""
        self.visit(type(value), path)
        is_container = True
        if isinstance(value, dict | types.MappingProxyType):
            self._add("keys", len(value))
            for place, (key, entry) in enumerate(value.items()):
                if key not in _NOT_COUNTED:
                    self.visit(key, f"{path}[{place}]")
                    self.visit(entry, f"{path}[{key!r:.40}]")
        elif isinstance(value, list | tuple):
            self._entries(value, path)
        elif isinstance(value, set | frozenset):
            self._set(value, path)
        else:
            is_container = False
        attributes = _attributes_of(value)
        if attributes is not None:
            for name, attribute in sorted(attributes.items()):
                self._add(name)
                self.visit(attribute, f"{path}.{name}")
        if not is_container and (attributes is None or _is_compiled(type(value))):
            self._reduced(value, path)

    def _entries(self, value: list[Any] | tuple[Any, ...], path: str) -> None:
        self._add("entries", len(value))
        if all(type(entry) in (int, float, str, bool) for entry in value):  # faster for lists of a million numbers
            self._add(*value)
            return
        for place, entry in enumerate(value):
            self.visit(entry, f"{path}[{place}]")

    def _set(self, value: set[Any] | frozenset[Any], path: str) -> None:
        """Digest a set's members sorted, because the order of a set differs between processes."""
        members = []
        for member in value:
            if not isinstance(member, _PLAIN):
                self._give_up(path, value)
                return
            members.append(repr(member))
        self._add("members", sorted(members))

    def _reduced(self, value: Any, path: str) -> None:
        """Digest an object of a compiled class by what it returns to be copied."""
        try:
            parts = value.__reduce_ex__(4)
        except Exception:  # this may run any code, as of files or connections
            self._give_up(path, value)
            return
        if isinstance(parts, str):
            self._add("global", parts)
            return
        for part in parts:
            self.visit(list(part) if isinstance(part, Iterator) else part, path)


def _parts_of(value: types.MethodType | property | partial[Any]) -> tuple[Any, ...]:
    """Return what a bound method, a property or a partial function consists of."""
    if isinstance(value, types.MethodType):
        return value.__func__, value.__self__
    if isinstance(value, property):
        return value.fget, value.fset
    return value.func, value.args, value.keywords


def _is_compiled(kind: type) -> bool:
    """Return whether objects of a class hold more than their attributes, as those of a class written in C do."""
    slots = 0
    for base in kind.__mro__:
        names = vars(base).get("__slots__", ())
        slots += 1 if isinstance(names, str) else len(tuple(names))
    pointers = slots + 2  # to the attributes, and to weak references
    return kind.__basicsize__ > object.__basicsize__ + pointers * _POINTER


def _attributes_of(value: Any) -> dict[str, Any] | None:
    """Return the attributes of an object that affect its answers; None if its class, a compiled one, allows none."""
    attributes = _all_attributes_of(value)
    if attributes is None:
        return None
    ignored = {*_NOT_COUNTED}
    derived = getattr_static(value, "derived", ())
    if isinstance(derived, tuple | list):
        ignored.update(derived)
    if "torch.fx" in sys.modules and isinstance(value, torch.fx.GraphModule):
        attributes["code"] = value.code  # in place of its graph, a long chain of nodes
        ignored.update(_OF_A_GRAPH)
    attributes = {name: attribute for name, attribute in attributes.items() if name not in ignored}
    if isinstance(value, nn.Module):
        for name in _OF_EVERY_MODULE:
            attributes.pop(name, None)
        for name, attribute in attributes.items():
            if name.endswith(_HOOKS) and isinstance(attribute, dict):
                attributes[name] = list(attribute.values())
    return attributes


def _all_attributes_of(value: Any) -> dict[str, Any] | None:
    """Return the attributes in an object's dict and slots; None if it can have neither."""
    attributes: dict[str, Any] = {}
    has_room = hasattr(value, "__dict__")
    if has_room:
        attributes.update(vars(value))
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__")
        if slots is None:
            continue
        has_room = True
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                attributes[name] = getattr(value, name)
    if not has_room:
        return None
    return attributes


@dataclass(frozen=True)
class _Names:
    """The names of globals, of attributes and of imported modules in a function's code."""

    of_globals: list[str]
    of_attributes: tuple[str, ...]
    of_imports: list[str]


def _names_in(code: types.CodeType) -> _Names:
    """Return the names in a function's code, including the functions within it."""
    of_globals: set[str] = set()
    of_attributes: set[str] = set()
    of_imports: set[str] = set()
    waiting = [code]
    while waiting:
        current = waiting.pop()
        for instruction in dis.get_instructions(current):
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                of_globals.add(instruction.argval)
            elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM"):
                of_attributes.add(instruction.argval)
            elif instruction.opname == "IMPORT_NAME":
                of_imports.add(instruction.argval)
        for constant in current.co_consts:
            if isinstance(constant, types.CodeType):
                waiting.append(constant)
    return _Names(sorted(of_globals), tuple(sorted(of_attributes)), sorted(of_imports))


def _version(library: str) -> str:
    """Return the version of a library, by its import name; an empty string if it has none."""
    try:
        return version(library)
    except PackageNotFoundError:
        return str(getattr(sys.modules.get(library), "__version__", ""))
