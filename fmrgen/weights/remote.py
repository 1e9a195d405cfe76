"""What a recipe downloads: known, with its size, before anything large is."""

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel

from fmrgen.config import ComponentConfig
from fmrgen.errors import UserError
from fmrgen.files import cache_folder
from fmrgen.hub.client import HubClient, RepoKind
from fmrgen.weights.download import cached_path, is_address, size_of_download
from fmrgen.weights.pretrained import HUB_FILE, parts_of_hub_file

# Of each folder of a repo, the files of the first form that it has are loaded; those with a variant in their names
# (`model.fp16.safetensors`) are not.
_WEIGHTS = (
    r"(diffusion_pytorch_)?model(-\d+-of-\d+)?\.safetensors",
    r"(diffusion_)?pytorch_model(-\d+-of-\d+)?\.bin",
    r"flax_model\.msgpack",
)
_SMALL = r".*\.(json|txt|model)"  # configs and tokenizers
_WEIGHTS_IN_CACHE = (
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
    "flax_model.msgpack",
)
_COPIES_OF_DATASET = 2  # the files of the repo, and the table that `datasets` makes of them


@dataclass(frozen=True)
class Remote:
    """Something that a recipe downloads."""

    key: str  # of the recipe
    name: str  # of the repo, or the address of the file
    size: int | None  # in bytes; None if its host does not say, or if it was not asked
    is_here: bool  # whether it is on this machine
    licence: str | None = None  # as the Hub has it
    is_dataset: bool = False  # whether it is the source

    @property
    def described_size(self) -> str:
        """Its size in words."""
        if self.size is None:
            return "of a size that its host does not say"
        return format_size(self.size)


def remotes_of(recipe: BaseModel) -> list[Remote]:
    """Return what the sections of a recipe download, each once. Asks hosts only about what is not on this machine.

    Raises UserError if something is not there, or this user may not have it.
    """
    by_name: dict[str, Remote] = {}
    for place, config in _sections(recipe, ""):
        for remote in _remotes_of_section(config, place):
            by_name.setdefault(remote.name, remote)
    return list(by_name.values())


def announced_downloads(recipe: BaseModel) -> list[str]:
    """Return a line on each file that building a recipe downloads. Raises UserError if the disk has no room."""
    remotes = remotes_of(recipe)
    check_room(remotes)
    return [f"{each.key}: {each.name}, {each.described_size}, is downloaded" for each in remotes if not each.is_here]


def check_room(remotes: Sequence[Remote]) -> None:
    """Raise UserError if what is not on this machine does not fit on the disk of its cache."""
    from huggingface_hub.constants import HF_HOME

    needed: dict[Path, int] = {}
    for remote in remotes:
        if not remote.is_here and remote.size is not None:
            cache = cache_folder() if is_address(remote.name) else Path(HF_HOME)
            size = remote.size * (_COPIES_OF_DATASET if remote.is_dataset else 1)
            needed[cache] = needed.get(cache, 0) + size
    for cache, size in needed.items():
        existing = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
        free = shutil.disk_usage(existing).free
        if size > free:
            variable = "FMRGEN_CACHE" if cache == cache_folder() else "HF_HOME"
            raise UserError(
                f"{cache}: {format_size(size)} are to be downloaded and {format_size(free)} are free; make room, or "
                f"set {variable} to a folder on a larger disk"
            )


def format_size(size: int) -> str:
    """Return a number of bytes as people write it: `934 MB`."""
    for unit in ("kB", "MB"):
        size_in_unit = size / 1000
        if size_in_unit < 1000:
            return f"{size_in_unit:.0f} {unit}"
        size = size // 1000
    return f"{size / 1000:.1f} GB"


def _sections(config: BaseModel, place: str) -> Iterator[tuple[str, ComponentConfig]]:
    """Yield the sections of components in a recipe, with their places in it; members of lists too."""
    if isinstance(config, ComponentConfig):
        yield place, config
    for key, value in config:
        members = value if isinstance(value, list) else [value]
        for member in members:
            if isinstance(member, BaseModel):
                yield from _sections(member, f"{place}.{key}" if place else key)


def _remotes_of_section(config: ComponentConfig, place: str) -> Iterator[Remote]:
    if config.PLACES is None:  # it reads whatever it likes
        return
    for key in config.FILES:
        reference = getattr(config, key, None)
        if reference is not None and is_address(reference):
            yield _remote_address(reference, f"{place}.{key}")
        elif reference is not None and reference.startswith(HUB_FILE):
            yield _remote_hub_file(reference, f"{place}.{key}")
    model = config.hub_model()
    if model is not None:
        yield _remote_model(model.repo, model.revision, model.folders, f"{place}.model")
    dataset = config.hub_dataset()
    if dataset is not None:
        yield _remote_dataset(dataset.repo, dataset.revision, dataset.files, dataset.is_here, f"{place}.path")


def _remote_address(address: str, key: str) -> Remote:
    path = cached_path(address)
    if path.exists():
        return Remote(key, address, path.stat().st_size, is_here=True)
    return Remote(key, address, size_of_download(address, key), is_here=False)


def _remote_hub_file(reference: str, key: str) -> Remote:
    repo, file, revision = parts_of_hub_file(reference, key)
    cached = _cached(repo, file, revision)
    if cached is not None:
        return Remote(key, reference, cached.stat().st_size, is_here=True)
    info = _repo_info(repo, "model", revision, key)
    sizes = _sizes(info)
    if file not in sizes:
        raise UserError(f"{key}: {repo} on the Hub has no {file}")
    return Remote(key, reference, sizes[file], is_here=False, licence=_licence(info))


def _remote_model(repo: str, revision: str | None, folders: Sequence[str], key: str) -> Remote:
    """Return the files of a model's repo that a library loads from some of its folders."""
    cached = [_cached_weights(repo, folder, revision) for folder in folders]
    if any(cached):  # a folder without weights has a config alone
        return Remote(key, repo, sum(cached), is_here=True)
    info = _repo_info(repo, "model", revision, key)
    size = 0
    for folder in folders:
        sizes = {
            name: size for name, size in _sizes(info).items() if PurePosixPath(name).parent == PurePosixPath(folder)
        }
        size += _size_matching(sizes, _SMALL)
        size += next(filter(None, (_size_matching(sizes, pattern) for pattern in _WEIGHTS)), 0)
    return Remote(key, repo, size, is_here=False, licence=_licence(info))


def _remote_dataset(repo: str, revision: str | None, files: Sequence[str], is_here: bool, key: str) -> Remote:
    if is_here:
        return Remote(key, repo, None, is_here=True, is_dataset=True)
    info = _repo_info(repo, "dataset", revision, key)
    sizes = _sizes(info)
    size = sum(sizes.get(name, 0) for name in files)
    return Remote(key, repo, size, is_here=False, licence=_licence(info), is_dataset=True)


def _size_matching(sizes: dict[str, int], pattern: str) -> int:
    return sum(size for name, size in sizes.items() if re.fullmatch(pattern, PurePosixPath(name).name))


def _cached(repo: str, file: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repo, file, revision=revision)
    return Path(path) if isinstance(path, str) else None


def _cached_weights(repo: str, folder: str, revision: str | None) -> int:
    """Return the size of the weights of a model in the Hub's cache; 0 if they are not there."""
    for name in _WEIGHTS_IN_CACHE:
        path = _cached(repo, f"{folder}/{name}".lstrip("/"), revision)
        if path is not None:
            return path.stat().st_size
    return 0


def _repo_info(repo: str, kind: RepoKind, revision: str | None, key: str) -> Any:
    """Return what the Hub says of a repo and its files. Raises UserError if there is none or its terms are open."""
    try:
        hub = HubClient(repo, kind, revision or "main")
        info: Any = hub.ask(lambda: hub.api.repo_info(repo, repo_type=kind, revision=revision, files_metadata=True))
        if info.gated:
            hub.ask(lambda: hub.api.auth_check(repo, repo_type=kind))
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    return info


def _sizes(info: Any) -> dict[str, int]:
    return {file.rfilename: file.size or 0 for file in info.siblings or []}


def _licence(info: Any) -> str | None:
    licence = getattr(info.card_data, "license", None)
    return licence if isinstance(licence, str) else None
