"""A dataset folder that several processes write: by creating files that nobody rewrites."""

import os
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from fmrgen.errors import UserError, option
from fmrgen.files import open_plain, write_atomically
from fmrgen.storage.paths import MIRRORED

Content = bytes | memoryview


class Store:
    """A folder on a disk, whose file system all processes see; `Bucket` is one in an object store.

    Whoever creates a file first has created it for all; only claims, the card and the picture are rewritten.

    Attributes:
        root: where its files are on this machine.
        name: what users call it.
        poll: the seconds between two looks at what others do.
        is_local: whether all processes see `root` itself.
    """

    poll = 0.5
    is_local = True

    def __init__(self, root: str | Path) -> None:
        self.root, self.name = Path(root), str(root)

    def names(self, folder: Path) -> set[str]:
        """Return the names of all files in a folder; in an object store those below it too, as paths. Raises OSError if
        it can't be read."""
        return set(os.listdir(folder))  # listing makes a network file system refresh its cache

    def open(self, path: Path) -> BinaryIO:
        """Open a file. Raises OSError if it can't be read, FileNotFoundError if it does not exist."""
        return open_plain(path)

    def create(self, path: Path, content: Content) -> bool:
        """Write a whole file unless it exists, and return whether it did not; its folder must exist. Raises
        UserError."""
        return write_atomically(path, content, make_folder=False, replace=False)

    def claim(self, path: Path, content: bytes, *, is_held: bool) -> bool:
        """Create a claim, or renew one that is held; return whether that succeeded. Raises UserError.

        Others may see a part of what is in it.
        """
        try:
            with path.open("r+b" if is_held else "xb") as file:
                file.write(content)
                file.truncate()
        except (FileExistsError, FileNotFoundError):
            if path.parent.is_dir():
                return False
            raise UserError(f"{path}: can't be written: its folder is gone") from None
        except OSError as error:
            raise UserError(f"{path}: can't be written: {error.strerror}") from None
        return True

    def write(self, path: Path, content: Content) -> None:
        """Write a whole file, whether it exists or not. Raises UserError."""
        write_atomically(path, content)

    def remove(self, path: Path) -> None:
        """Remove a file, if it exists."""
        path.unlink(missing_ok=True)

    def fetch(self, path: Path) -> None:
        """Bring a file to its place on this machine, if it exists and is not there."""


def read(store: Store, path: Path) -> bytes | None:
    """Return the content of a file; None if it does not exist. Raises UserError if it can't be read."""
    try:
        with store.open(path) as opened:
            return bytes(opened.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror or error}") from None


def check_creates_once(store: Store, folder: Path) -> None:
    """Raise UserError if the store creates a file in `folder` that exists: each process would hold all claims."""
    probe = folder / f".{token_hex(8)}.probe"
    try:
        store.create(probe, b"first")
        is_created_again = store.create(probe, b"second")
    finally:
        store.remove(probe)
    if is_created_again:
        raise UserError(
            f"{store.name}: creates files that exist already, so processes can't share the work there; choose another "
            f"{option('output')}"
        )


def set_aside(store: Store, path: Path) -> Path:
    """Give a file that is wrong another name, under which nobody reads it, and return that."""
    content = read(store, path)
    for number in count():
        aside = path.with_name(f".{path.name}.damaged{number or ''}")
        if content is None or store.create(aside, content):
            break
    store.remove(path)
    return aside


def mirror(store: Store) -> None:
    """Bring the small files of a dataset folder to this machine as they are for all processes."""
    if store.is_local:
        return
    small = set(filter(MIRRORED.fullmatch, store.names(store.root)))
    for name in small:
        store.fetch(store.root / name)
    for path in store.root.rglob("*"):
        name = path.relative_to(store.root).as_posix()
        if path.is_file() and MIRRORED.fullmatch(name) and name not in small:
            path.unlink()


def send(store: Store, path: Path) -> None:
    """Show all processes a small file that this one wrote to its place on this machine."""
    if not store.is_local:
        store.write(path, path.read_bytes())
