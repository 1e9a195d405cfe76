"""The identity of a component: digests of what its answers follow from, so that no other one's results are reused.

No digest shows all that a forward depends on, such as a file that it reads. So whoever reuses results also queries the
component about some stored images, and compares.
"""

import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from datasets.fingerprint import Hasher
from pydantic import BaseModel
from torch import nn

from fmrgen.errors import one_line
from fmrgen.files import sha256_of
from fmrgen.trust.code import code_sha256, is_own, own_code_sha256, own_files, runs_code_of_others
from fmrgen.weights.digest import weights_sha256

_BUILT_ON = ("torch", "torchvision", "timm", "transformers", "numpy")


@dataclass(frozen=True)
class Identity:
    """Everything that the answers of a component follow from, as far as digests show it."""

    weights_sha256: str | None  # as `weights_sha256` returns it; None if it has none
    state: str  # digest by `datasets.fingerprint.Hasher`; empty where its section determines it, or it can't be hashed
    code: Mapping[str, str]  # the sha256 of each file of a user's own code that it comes from, by module
    libraries: Mapping[str, str]  # versions of those that it uses, by name; for fmrgen the digest of its code
    unknown: str | None  # why it can't be hashed; None if it is

    @property
    def key(self) -> dict[str, Any]:
        """The identity as JSON, from which the names of cached results are made."""
        return {
            "weights": self.weights_sha256,
            "state": self.state,
            "code": dict(self.code),
            "libraries": dict(self.libraries),
        }


def identity_of(component: object, section: BaseModel | None = None, weights: str | None = None) -> Identity:
    """Return the identity of a component, any object, the same in every process.

    A section that it was built from and that runs no code of others determines what its weights do not; `weights` is
    their digest, if that is known. Raises UserError if the weights are not loaded.
    """
    weights = weights or weights_sha256(component)
    parts = [component, *(component.modules() if isinstance(component, nn.Module) else ())]
    modules = sorted({type(part).__module__ for part in parts})
    code, state, unknown = {}, "", None
    if section is not None:
        code = code_sha256(section)
    if section is None or runs_code_of_others(section):
        state, unknown = hashed(component)
        for module in filter(is_own, modules):
            if module not in code:  # else the modules that it imports are in it too
                code |= {name: sha256_of(path) for name, path in own_files(module).items()}
    tops = {module.partition(".")[0] for module in modules if not is_own(module)}
    libraries = {name: _version(name) for name in sorted({*tops, *_BUILT_ON})}
    libraries["fmrgen"] = own_code_sha256()
    return Identity(weights, state, dict(sorted(code.items())), libraries, unknown)


def hashed(component: object) -> tuple[str, str | None]:
    """Return the digest of an object, in evaluation mode if it is a module, and None; or "" and why it has none."""
    if isinstance(component, torch.jit.ScriptModule):
        return Hasher.hash(re.sub(r"\.?___torch_mangle_\d+", "", str(component.inlined_graph))), None
    if isinstance(component, nn.Module) and "_orig_mod" in component._modules:  # made by torch.compile
        return hashed(component._modules["_orig_mod"])
    parts = component.modules() if isinstance(component, nn.Module) else ()
    in_training = [part for part in parts if part.training]
    for part in in_training:
        part.training = False
    try:
        with warnings.catch_warnings(action="ignore"):
            return Hasher.hash(component), None
    except Exception as error:  # pickling runs any code, and refuses open files and the like
        return "", one_line(error)
    finally:
        for part in in_training:
            part.training = True


def _version(library: str) -> str:
    """Return the version of a library, by its import name; an empty string if it has none."""
    try:
        return version(library)
    except PackageNotFoundError:
        return str(getattr(sys.modules.get(library), "__version__", ""))
