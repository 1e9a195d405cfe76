"""What a recipe downloads: known, with its size, before anything large is."""

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from fmrgen.config import ComponentConfig, HubDataset, HubModel, sections_in
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
_SMALL = r"[^/]*\.(json|txt|model)"  # configs and tokenizers


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
        return "of a size that its host does not say" if self.size is None else format_size(self.size)


def remotes_of(recipe: BaseModel) -> list[Remote]:
    """Return what the sections of a recipe download, each once. Asks hosts only about what is not on this machine.

    Raises UserError if something is not there, or this user may not have it.
    """
    by_name: dict[str, Remote] = {}
    for place, config in sections_in(recipe):
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
            copies = 2 if remote.is_dataset else 1  # the files of the repo, and the table that `datasets` makes of them
            needed[cache] = needed.get(cache, 0) + remote.size * copies
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


def _remotes_of_section(config: ComponentConfig, place: str) -> Iterator[Remote]:
    if config.PLACES is None:  # it reads whatever it likes
        return
    for key in config.FILES:
        reference = getattr(config, key, None) or ""
        if is_address(reference):
            yield _remote_address(reference, f"{place}.{key}")
        elif reference.startswith(HUB_FILE):
            yield _remote_hub_file(reference, f"{place}.{key}")
    model = config.hub_model()
    if model is not None:
        yield _remote_model(model, f"{place}.model")
    dataset = config.hub_dataset()
    if dataset is not None:
        yield _remote_dataset(dataset, f"{place}.path")


def _remote_address(address: str, key: str) -> Remote:
    path = cached_path(address)
    if path.exists():
        return Remote(key, address, path.stat().st_size, is_here=True)
    return Remote(key, address, size_of_download(address, key), is_here=False)


def _remote_hub_file(reference: str, key: str) -> Remote:
    repo, file, revision = parts_of_hub_file(reference, key)
    cached = _cached_files(repo, revision)
    if file in cached:
        return Remote(key, reference, cached[file], is_here=True)
    sizes, licence = _asked(repo, "model", revision, key)
    if file not in sizes:
        raise UserError(f"{key}: {repo} on the Hub has no {file}")
    return Remote(key, reference, sizes[file], is_here=False, licence=licence)


def _remote_model(model: HubModel, key: str) -> Remote:
    """Return the files of a model's repo that a library loads from some of its folders."""
    cached = _size_of_weights(_cached_files(model.repo, model.revision), model.folders)
    if cached:  # a folder without weights has a config alone
        return Remote(key, model.repo, cached, is_here=True)
    sizes, licence = _asked(model.repo, "model", model.revision, key)
    size = _size_of_weights(sizes, model.folders) + sum(_size(sizes, folder, _SMALL) for folder in model.folders)
    return Remote(key, model.repo, size, is_here=False, licence=licence)


def _remote_dataset(dataset: HubDataset, key: str) -> Remote:
    if dataset.is_here:
        return Remote(key, dataset.repo, None, is_here=True, is_dataset=True)
    sizes, licence = _asked(dataset.repo, "dataset", dataset.revision, key)
    size = sum(sizes.get(name, 0) for name in dataset.files)
    return Remote(key, dataset.repo, size, is_here=False, licence=licence, is_dataset=True)


def _size_of_weights(sizes: dict[str, int], folders: Sequence[str]) -> int:
    """Return the size of the weights that are loaded from some folders of a repo, whose files have these sizes."""
    total = 0
    for folder in folders:
        total += next(filter(None, (_size(sizes, folder, pattern) for pattern in _WEIGHTS)), 0)
    return total


def _size(sizes: dict[str, int], folder: str, pattern: str) -> int:
    prefix = re.escape(f"{folder}/") if folder else ""
    return sum(size for name, size in sizes.items() if re.fullmatch(prefix + pattern, name))


def cached_commit(repo: str, revision: str | None) -> Path:
    """Return where the Hub's cache has the files of a model's repo, if it has any: a folder named as the commit."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    cache = Path(HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="model"))
    ref = cache / "refs" / (revision or "main")
    return cache / "snapshots" / (ref.read_text() if ref.is_file() else revision or "none")


def _cached_files(repo: str, revision: str | None) -> dict[str, int]:
    """Return the sizes of those files of a model's repo that are in the Hub's cache, by their paths."""
    folder = cached_commit(repo, revision)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def _asked(repo: str, kind: RepoKind, revision: str | None, key: str) -> tuple[dict[str, int], str | None]:
    """Return the sizes of a repo's files by their paths, and its licence, as the Hub has them.

    Raises UserError if there is no such repo or its terms are open.
    """
    try:
        hub = HubClient(repo, kind, revision or "main")
        info: Any = hub.ask(lambda: hub.api.repo_info(repo, repo_type=kind, revision=revision, files_metadata=True))
        if info.gated:
            hub.ask(lambda: hub.api.auth_check(repo, repo_type=kind))
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    licence = getattr(info.card_data, "license", None)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    return sizes, licence if isinstance(licence, str) else None
