"""A cache of encoded images on disk, for generators that encode slowly.

The key of an entry covers all that can change it: weights, settings and code of the generator, the libraries, the
device and precision, and the image, label and seed of the row. So splits and processes share entries, and a second
classifier's split encodes nothing anew. An entry begins with its own sha256, which exposes a damaged file.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from fmrgen.engine.interfaces import Latents
from fmrgen.errors import UserError
from fmrgen.files import cache_folder, fingerprint, write_atomically
from fmrgen.storage.cache import forget_oldest, with_digest, without_digest

GIGABYTES = "FMRGEN_CACHE_GB"  # environment variable
_LAYOUT = 2  # counts up when earlier entries can't be read any more


class KeptEncodings:
    """The entries of one generator with its settings.

    `found` counts the rows that were read from disk, `made` those that were encoded.
    """

    def __init__(self, root: Path, bound: int, generator: Any) -> None:
        """Open the cache in `root`, the folder of the entries of all generators.

        Above `bound` bytes old entries are deleted. `generator` is JSON of all that latents depend on except the row.
        """
        self.root, self.bound = root, bound
        self.folder = root / fingerprint({"layout": _LAYOUT, "generator": generator})
        self.found, self.made = 0, 0
        self._writes = 0

    def __call__(
        self, images: Tensor, labels: Tensor, row_seeds: Sequence[int], encode: Callable[[], Latents]
    ) -> Latents:
        """Return the latents of rows from disk; if any is missing, the latents of all rows as `encode` makes them.

        They are made all together because kernels differ in the last bits between numbers of rows. The images are
        [B, 3, H, W], the labels [B]; the latents are on the device of the images.
        """
        paths = []
        for image, label, row_seed in zip(images.cpu(), labels.tolist(), row_seeds, strict=True):
            name = _name(image, label, row_seed)
            paths.append(self.folder / name[:2] / f"{name}.latents")
        entries = [entry for entry in map(_read, paths) if entry is not None]
        if len(entries) == len(paths):
            self.found += len(set(paths))
            columns = {}
            for name in entries[0]:
                rows = [entry[name] for entry in entries]
                columns[name] = torch.stack(rows).to(images.device)
            return Latents(**columns)
        latents = encode()
        self.made += len(set(paths))
        for row, path in enumerate(paths):
            self._keep(path, latents, row)
        return latents

    def _keep(self, path: Path, latents: Latents, row: int) -> None:
        if path.exists():
            return
        parts = {name: value for name, value in latents._asdict().items() if value is not None}
        content = save({name: value[row].cpu().contiguous() for name, value in parts.items()})
        with suppress(UserError):  # a full disk must not end the job: the row is encoded again another time
            write_atomically(path, with_digest(content))
        self._writes += 1
        if self._writes % 500 == 1:  # not each time: it lists all entries
            self.prune()

    def prune(self) -> None:
        """Delete the least recently used entries, of any generator, if all together are larger than the bound."""
        forget_oldest(self.root, "*/*/*", self.bound)


def kept_encodings(generator: Any) -> KeptEncodings | None:
    """Return the cache of a generator as the environment sets it; None if it sets the bound to 0.

    `FMRGEN_CACHE` is the folder (else `~/.cache/fmrgen`), `FMRGEN_CACHE_GB` its bound (20 by default; 0 for none).
    Raises UserError for a bound that is not a number.
    """
    text = os.environ.get(GIGABYTES, "").strip() or "20"
    try:
        bound = float(text)
    except ValueError:
        bound = -1.0
    if not 0 <= bound < float("inf"):
        raise UserError(f"{GIGABYTES}: must be a number of gigabytes, 0 or more, not {text}")
    if bound == 0:
        return None
    return KeptEncodings(cache_folder() / "encodings", int(bound * 1e9), generator)


def _name(image: Tensor, label: int, row_seed: int) -> str:
    """Return the name of a row's entry: the sha256 of its image, label and seed."""
    content = f"{image.dtype} {tuple(image.shape)} {label} {row_seed} ".encode() + image.contiguous().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> dict[str, Tensor] | None:
    """Return an entry, which counts as used now; None if it is missing or broken."""
    try:
        entry = without_digest(path.read_bytes())
    except OSError:
        return None
    with suppress(OSError):  # the folder may be read-only
        if entry is None:  # the row is encoded again
            path.unlink()
        else:
            path.touch()
    return None if entry is None else load(entry)
