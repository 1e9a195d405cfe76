"""Files: written whole or not at all, read although others may have written them, and checked for permissions."""

import errno
import hashlib
import io
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from fmrgen.errors import UserError, fault_in_words, near_name, one_line, option, printable, without_queries

Parsed = TypeVar("Parsed")

_LARGEST_NUMBER = 10**1000  # Python itself writes out no more than 4,300 digits
_LARGEST_SMALL = 1 << 28  # bytes of a file that is read at once; the provenance of a million shards has 2^27
_MOST_ENTRIES = 1_000_000  # of a YAML text: some lines of aliases can stand for more than any memory holds


def open_plain(path: Path) -> io.BufferedReader:
    """Return a file opened for reading. Raises OSError, also for pipes, sockets and devices, which may never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "is a pipe, a socket or a device, and no file", str(path))
    return os.fdopen(descriptor, "rb")


def is_inside(path: Path, root: Path) -> bool:
    """Return whether `path` lies in the folder `root` once links are followed."""
    root = root.resolve()
    roots = [root]
    if root.parent.name == "snapshots":  # of the Hub's cache, whose files are links to its folder of blobs
        roots.append(root.parent.parent / "blobs")
    return any(folder in path.resolve().parents for folder in roots)


def check_inside(path: Path, root: Path) -> None:
    """Raise UserError if a link leads from `path` out of the folder `root`."""
    if not is_inside(path, root):
        raise UserError(f"{path}: is a link out of the folder, which is not followed; replace it by the file")


def check_links(folder: Path) -> None:
    """Raise UserError if a link in a folder leads out of it; what is hidden, which no reader takes, may."""
    for path in folder.rglob("[!.]*"):
        if path.is_symlink() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            check_inside(path, folder)


def read_plain(path: Path) -> bytes:
    """Return a small file's content. Raises UserError if it can't be read, is no plain file, or is too large."""
    try:
        with open_plain(path) as file:
            content = file.read(_LARGEST_SMALL + 1)
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    if len(content) > _LARGEST_SMALL:
        raise UserError(f"{path}: has more than {_LARGEST_SMALL:,} bytes, and is not read; delete it")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON mapping in a small file. Raises UserError if it is none."""
    return parse_json(read_plain(path), str(path))


def json_text(content: object, *, strict: bool = False) -> str:
    """Return content for programs: the text of a JSON file.

    Dataclasses and pydantic models count as dictionaries, and anything but lists, dictionaries, texts and numbers as
    its text; NaN and infinity are null. With `strict` all of these raise TypeError or ValueError.
    """
    if not strict:
        content = json.loads(json.dumps(content, default=_plain_data), parse_constant=lambda name: None)
    return json.dumps(content, allow_nan=False, ensure_ascii=False, indent=1) + "\n"


def _plain_data(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return str(value)


def parse_json(text: bytes, name: str) -> dict[str, Any]:
    """Return the JSON mapping in a text. Raises UserError, starting with `name`, if it is none."""
    try:
        tree = json.loads(text)
        json.dumps(tree, ensure_ascii=False, allow_nan=False).encode()  # fails if it has half a character, or infinity
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: can't be read as JSON: {one_line(error)}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{name}: is not a JSON mapping")
    return tree


def of_schema(kind: type[Parsed], schema: str, tree: Mapping[str, Any], where: str) -> Parsed:
    """Return a JSON mapping, which anyone may have written, as the dataclass `kind`.

    Raises UserError, starting with `where`, if the mapping has another `schema`, or a value does not fit the dataclass.
    """
    from pydantic import TypeAdapter, ValidationError

    if tree.get("schema") != schema:
        raise UserError(f"{where}: has schema {tree.get('schema')!r}, this fmrgen reads {schema}")
    try:
        return TypeAdapter(kind).validate_python(tree)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{where}: {'.'.join(map(str, first['loc']))}: {fault_in_words([first])}") from None


def parse_yaml(text: str, name: str) -> Any:
    """Return the tree of a YAML text, without objects that tags would build. Raises UserError, starting with `name`."""
    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        # An excerpt of a text with an address could show the key in it.
        reason = getattr(error, "problem", None) if "://" in text else None
        raise UserError(f"{without_queries(name)}: not YAML: {reason or one_line(error)}") from None
    except RecursionError:
        raise UserError(f"{name}: can't be read as YAML: it is nested too deeply") from None
    _check_entries(tree, name)
    return tree


def _check_entries(tree: Any, name: str) -> None:
    """Raise UserError if an entry of a YAML tree is nothing that a recipe may hold, or if there are too many."""
    waiting, entries = [tree], 0
    while waiting:
        entry = waiting.pop()
        if not isinstance(entry, dict | list | str | int | float | None):
            raise UserError(f"{name}: contains a {type(entry).__name__}, neither text nor a number; put it in quotes")
        if isinstance(entry, int) and abs(entry) > _LARGEST_NUMBER:
            raise UserError(f"{name}: contains a number of over 1,000 digits; quote it if it is text")
        if isinstance(entry, str) and not _is_text(entry):
            raise UserError(f"{name}: {entry!r} contains an unpaired surrogate; fix it")
        children: list[Any] = []
        if isinstance(entry, dict):
            children = [*entry, *entry.values()]
        elif isinstance(entry, list):
            children = entry
        waiting += children
        entries += len(children)
        if entries > _MOST_ENTRIES:
            raise UserError(f"{name}: its aliases expand to more than {_MOST_ENTRIES:,} entries; write them out")


def to_yaml(tree: Any, width: int = 80) -> str:
    """Return a tree as YAML, its keys in their order. Text that would turn a reader's direction becomes escapes."""
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=width)
    if all(printable(line) == line for line in text.split("\n")):
        return text
    return yaml.safe_dump(tree, sort_keys=False, width=width)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def write_atomically(
    path: Path, content: bytes | memoryview, *, make_folder: bool = True, durable: bool = True, replace: bool = True
) -> bool:
    """Write a file so that it has all of `content`, or does not exist, whenever the machine stops.

    Without `durable` the same holds only whenever the process stops, which is enough for what is quickly made again.
    Without `replace` an existing file is left as it is. Returns whether the file was written. Raises UserError if it
    can't be.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")  # random, so nobody can place a link there
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        is_written = True
        if replace:
            temporary.replace(path)
        else:
            is_written = _move_where_nothing_is(temporary, path)
        if durable:
            directory = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise UserError(f"{path}: can't be written: {error.strerror}") from None
        raise
    return is_written


def _move_where_nothing_is(temporary: Path, path: Path) -> bool:
    """Give a file its name, or remove it if another file has that name; return whether it has it."""
    is_moved = True
    try:
        os.link(temporary, path)
    except FileExistsError:
        is_moved = False
    except OSError:  # a file system without hard links: another process could come between these two lines
        if not path.exists():
            temporary.replace(path)
            return True
        is_moved = False
    temporary.unlink()
    return is_moved


def make_folder(folder: Path) -> None:
    """Make a folder unless it exists. Raises UserError if it can't be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: can't be made: {error.strerror}") from None


def write_changed(path: Path, content: bytes) -> None:
    """Write a file unless it has this very content already. Raises UserError."""
    with suppress(OSError), open_plain(path) as file:
        if file.read(len(content) + 1) == content:
            return
    write_atomically(path, content)


def package_data(name: str) -> Path:
    """Return a folder of fmrgen's own data: inside an installed package, next to it in a checkout."""
    package = Path(__file__).parent
    installed = package / name
    return installed if installed.is_dir() else package.parent / name


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file. Raises UserError if it can't be read."""
    try:
        with open_plain(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None


def fingerprint(canonical: Any) -> str:
    """Return 16 hex digits of the sha256 of a tree's canonical JSON."""
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_writable(folder: Path) -> None:
    """Raise UserError if a folder does not exist and can't be made, or if it can't be written to."""
    if not _is_text(str(folder)):
        raise UserError(f"{str(folder)!r}: its name is not UTF-8, so parquet can't be written there; choose another")
    check_plain_path(folder)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
    if not existing.is_dir():
        raise UserError(f"{folder}: can't be written: {existing} is not a folder; choose another {option('output')}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: can't be written: {existing} is read-only; choose another {option('output')}")
    try:  # some file systems, such as /proc, allow it and fail
        os.rmdir(tempfile.mkdtemp(prefix=".fmrgen-", dir=existing))
    except OSError:
        raise UserError(
            f"{folder}: can't be written: no file can be created in {existing}; choose another {option('output')}"
        ) from None


def no_such_folder(folder: str) -> str:
    """Return the message that a folder does not exist, with its neighbour that was probably meant."""
    parent = Path(folder).parent
    neighbours = [path.name for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []
    near = near_name(Path(folder).name, neighbours)
    return f"{folder}: no such folder" + ("" if near is None else f"; did you mean {parent / near}?")


def check_plain_path(folder: Path) -> None:
    """Raise UserError if the readers of datasets would take the folder's name for two places."""
    if "::" in str(folder.absolute()):
        raise UserError(f"{folder}: datasets can't read from a path with :: in it; use a folder of another name")


def cache_folder() -> Path:
    """Return the folder for what can be made or downloaded again: `FMRGEN_CACHE`, or `fmrgen` in the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fmrgen"
    return Path(os.environ.get("FMRGEN_CACHE") or default).expanduser()
