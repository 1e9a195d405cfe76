"""Latents of images that were encoded before, kept on disk where encoding is slow.

An entry is found by all that can change it: weights, settings and code of the generator, the libraries, the device and
precision, and the image, label and seed of the row. So splits and processes share entries, and a second classifier's
split encodes nothing anew. It begins with its own sha256: a bit that a disk lost is seen.
"""

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmrgen.engine.interfaces import Latents
from fmrgen.errors import UserError
from fmrgen.files import cache_folder, fingerprint, write_atomically
from fmrgen.locks import held

if TYPE_CHECKING:
    from torch import Tensor

GIGABYTES = "FMRGEN_CACHE_GB"  # variable of the environment
_DEFAULT_GIGABYTES = 20.0
_EMPTIED_TO = 0.8  # of the bound, where that is passed
_WRITES_BETWEEN_LOOKS = 500  # at how full it is
_LONGEST_WRITE = 3600.0  # seconds
_LAYOUT = 2  # counts up when entries of before can't be read any more
_DIGEST = 32  # bytes of a sha256


class KeptEncodings:
    """The entries of one generator as it is set.

    Attributes:
        found: how many rows were found.
        made: how many were encoded anew.
    """

    def __init__(self, root: Path, bound: int, generator: Any) -> None:
        """`generator` is JSON of all that its latents depend on but for the row; `bound` is in bytes."""
        self.root, self.bound = root, bound
        self.folder = root / fingerprint({"layout": _LAYOUT, "generator": generator})
        self.found, self.made = 0, 0
        self._writes = 0

    def __call__(
        self, images: "Tensor", labels: "Tensor", row_seeds: Sequence[int], encode: Callable[[], Latents]
    ) -> Latents:
        """The latents of rows: those on disk, or, where one of them is not there, all as `encode` makes them.

        They are made all together because kernels differ in the last bits between numbers of rows.

        Args:
            images: [B, 3, H, W].
            labels: [B].
            row_seeds: one for each row.
            encode: makes the latents of all rows.

        Returns:
            Latents with B rows, on the device of `images`.
        """
        paths = [
            self.folder / name[:2] / f"{name}.latents"
            for name in (_name(*row) for row in zip(images.cpu(), labels.tolist(), row_seeds, strict=True))
        ]
        rows = [_read(path) for path in paths]
        if all(row is not None for row in rows):
            self.found += len({*paths})
            return _together([row for row in rows if row is not None], images)
        latents = encode()
        self.made += len({*paths})
        for row, path in enumerate(paths):
            self._keep(path, latents, row)
        return latents

    def _keep(self, path: Path, latents: Latents, row: int) -> None:
        from safetensors.torch import save

        if path.exists():
            return
        content = save({name: value[row].cpu().contiguous() for name, value in _named(latents).items()})
        with suppress(UserError):  # a full disk is no reason to lose the job: it is encoded again another time
            write_atomically(path, hashlib.sha256(content).digest() + content)
        self._writes += 1
        if self._writes % _WRITES_BETWEEN_LOOKS == 1:
            self.prune()

    def prune(self) -> None:
        """Deletes the entries that were not used for longest, of any generator, where all are larger than the bound."""
        with suppress(UserError, OSError), held(self.root / ".lock"):
            for left in self.root.rglob(".*.tmp"):  # by writers that were killed
                with suppress(FileNotFoundError):
                    if left.stat().st_mtime < time.time() - _LONGEST_WRITE:
                        left.unlink()
            entries = []
            for path in self.root.glob("*/*/*"):
                with suppress(FileNotFoundError):
                    entries.append((path.stat(), path))
            size = sum(stat.st_size for stat, _ in entries)
            if size <= self.bound:
                return
            for stat, path in sorted(entries, key=lambda entry: entry[0].st_mtime):
                path.unlink(missing_ok=True)
                size -= stat.st_size
                if size <= _EMPTIED_TO * self.bound:
                    return


def kept_encodings(generator: Any) -> KeptEncodings | None:
    """Where the environment says that encodings are kept; None where it says that none are.

    `FMRGEN_CACHE` is the folder (else `~/.cache/fmrgen`), `FMRGEN_CACHE_GB` its bound (20 by default; 0 for none).
    Raises UserError for a bound that is not a number.
    """
    text = os.environ.get(GIGABYTES, "").strip()
    try:
        bound = float(text) if text else _DEFAULT_GIGABYTES
    except ValueError:
        bound = -1.0
    if not 0 <= bound < float("inf"):
        raise UserError(f"{GIGABYTES}: must be a number of gigabytes, 0 or more, not {text}")
    if bound == 0:
        return None
    return KeptEncodings(cache_folder() / "encodings", int(bound * 1e9), generator)


def _name(image: "Tensor", label: int, row_seed: int) -> str:
    content = f"{image.dtype} {tuple(image.shape)} {label} {row_seed} ".encode() + image.contiguous().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> "dict[str, Tensor] | None":
    """An entry, which counts as used now; None where there is none, or a broken one."""
    from safetensors.torch import load

    try:
        content = path.read_bytes()
    except OSError:
        return None
    with suppress(OSError):  # a folder that others may read alone
        path.touch()
    digest, entry = content[:_DIGEST], content[_DIGEST:]
    if hashlib.sha256(entry).digest() != digest:  # it is made again
        with suppress(OSError):
            path.unlink()
        return None
    return load(entry)


def _named(latents: Latents) -> "dict[str, Tensor]":
    return {name: value for name, value in latents._asdict().items() if value is not None}


def _together(rows: "Sequence[dict[str, Tensor]]", like: "Tensor") -> Latents:
    import torch

    return Latents(**{name: torch.stack([row[name] for row in rows]).to(like.device) for name in rows[0]})
