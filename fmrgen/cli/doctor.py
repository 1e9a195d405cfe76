"""What a bug report needs: versions, devices, the folder, and whether the Hub answers."""

import os
import platform
import shutil
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from uuid import uuid4

from fmrgen.errors import UserError
from fmrgen.files import CACHE_FOLDER
from fmrgen.storage.encodings import GIGABYTES
from fmrgen.storage.shared_bucket import SharedBucket, is_bucket

_PACKAGES = (
    *("fmrgen", "torch", "torchvision", "transformers", "diffusers", "timm", "datasets", "huggingface_hub"),
    *("accelerate", "pyarrow", "numpy", "pillow"),
)
_PATIENCE = 5.0  # seconds for the Hub to answer
_ENVIRONMENT = (
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "HF_HUB_DISABLE_XET",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    CACHE_FOLDER,
    GIGABYTES,
)
_OF_STORES = ("AWS_", "GOOGLE_", "AZURE_")  # variables that may hold keys: only their names are shown
_OF_ENDPOINTS = ("FMRGEN_ENDPOINT_TOKEN", "FMRGEN_ENDPOINT_QUERY")


def check_place(place: str) -> None:
    """Raise UserError where a folder that jobs would write to is not there."""
    if not is_bucket(place) and not Path(place).is_dir():
        raise UserError(f"{place}: no such folder; make it first, or name the folder or bucket that jobs write to")


def examine(place: str) -> Iterator[tuple[str, str]]:
    """Names and findings, one after another; nothing secret is among them.

    Args:
        place: the folder or the bucket that jobs would write to.

    Raises:
        UserError: there is no such folder, or the address is wrong; before the first finding.
    """
    check_place(place)
    bucket = SharedBucket(place) if is_bucket(place) else None
    from fmrgen.distributed.launch import usable_cores

    yield "python", f"{platform.python_version()} on {platform.platform()}"
    for name in _PACKAGES:
        yield name, _version_of(name)
    yield from _devices()
    yield "cores", f"{usable_cores()} of {os.cpu_count()}"
    yield "memory", _memory()
    if bucket is None:
        yield "folder", _folder(Path(place))
    yield "hub", _hub()
    yield "cache", _cache()
    variables = [f"{name}={os.environ[name]}" for name in _ENVIRONMENT if name in os.environ]
    yield "environment", ", ".join(variables) or "no relevant variables set"
    secret = sorted(name for name in os.environ if name.startswith(_OF_STORES) or name in _OF_ENDPOINTS)
    yield "keys", f"set, values not shown: {', '.join(secret)}" if secret else "none set for buckets or endpoints"
    yield "fmrgen[cloud]", _cloud()
    if bucket is not None:
        yield "bucket", _bucket(bucket)


def _version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> Iterator[tuple[str, str]]:
    import torch

    if not torch.cuda.is_available():
        yield "gpu", "none found" + ("" if torch.version.cuda else " (this torch is built without CUDA)")
        return
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        free, _ = torch.cuda.mem_get_info(index)
        yield (
            f"gpu {index}",
            f"{gpu.name}, {_size(gpu.total_memory)}, {_size(free)} free, CUDA {torch.version.cuda}, "
            f"bf16 {'yes' if torch.cuda.is_bf16_supported() else 'no'}",
        )


def _memory() -> str:
    if not hasattr(os, "sysconf"):
        return "unknown"
    return _size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _folder(folder: Path) -> str:
    """Return whether a job could work in it: writable, with room, and with locks that hold."""
    from fmrgen.locks import kind_that_works, lease_seconds

    nearest = _nearest(folder)
    probe = nearest / f".fmrgen-{uuid4().hex}"
    try:
        probe.touch()
    except OSError as error:
        return f"can't be written: {error.strerror}"
    finally:
        probe.unlink(missing_ok=True)
    if kind_that_works(nearest) == "lock":
        locks = "file locks work"
    else:
        locks = f"no file locks that all machines see: shards of a killed process are free after {lease_seconds():g} s"
    return f"writable, {_size(shutil.disk_usage(nearest).free)} free, {locks}"


def _cloud() -> str:
    obstore = _version_of("obstore")
    return "not installed; buckets need it" if obstore == "not installed" else f"installed (obstore {obstore})"


def _bucket(bucket: SharedBucket) -> str:
    """Return whether jobs could share it: reachable, writable, and no writer replaces what another has written."""
    started = time.perf_counter()
    try:
        bucket.check_conditions()
    except UserError as error:
        return str(error)
    took = time.perf_counter() - started
    return (
        f"{bucket.url} is reachable, and creates and replaces objects under conditions; seven requests in {took:.1f} s"
    )


def _hub() -> str:
    from huggingface_hub import HfApi, constants, get_token

    token = "a token is set" if get_token() else "no token"
    if constants.HF_HUB_OFFLINE:
        return f"offline by HF_HUB_OFFLINE, {token}"
    from huggingface_hub.utils import get_session

    started = time.perf_counter()
    try:
        answer = get_session().get(f"{HfApi().endpoint}/api/models?limit=1", timeout=_PATIENCE)
    except Exception as error:  # whatever stands in the way
        return f"{HfApi().endpoint} does not answer ({type(error).__name__}), {token}"
    took = time.perf_counter() - started
    return f"{HfApi().endpoint} answers {answer.status_code} in {took:.1f} s, {token}"


def _cache() -> str:
    from huggingface_hub import constants

    return f"{_size(shutil.disk_usage(_nearest(Path(constants.HF_HOME))).free)} free"


def _nearest(folder: Path) -> Path:
    """Return the folder, or the one above it that is there."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())


def _size(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
