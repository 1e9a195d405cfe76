"""Files that are there whole or not at all, what others wrote in them, and who may write."""

import errno
import hashlib
import io
import json
import math
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from fmrgen.errors import UserError, fault_in_words, near_name, one_line, option, printable, without_queries

Parsed = TypeVar("Parsed")

CACHE_FOLDER = "FMRGEN_CACHE"  # a variable of the environment
_YAML = (dict, list, str, int, float, type(None))
_LARGEST = 10**1000  # Python itself writes out no more than 4,300 digits
_LARGEST_SMALL = 1 << 28  # bytes of a file that is read at once; the provenance of a million shards has 2^27
_MOST_ENTRIES = 1_000_000  # of a YAML text: some lines of aliases can stand for more than any memory holds


def open_plain(path: Path) -> io.BufferedReader:
    """A file opened to be read. Raises OSError, also for pipes, sockets and devices: one may never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "is a pipe, a socket or a device, and no file", str(path))
    return os.fdopen(descriptor, "rb")


def is_inside(path: Path, root: Path) -> bool:
    """Whether `path` lies in the folder `root`, wherever links lead."""
    root = root.resolve()
    roots = [root]
    if root.parent.name == "snapshots":  # of the Hub's cache, which is all links to the files beside it
        roots.append(root.parent.parent / "blobs")
    return any(folder in path.resolve().parents for folder in roots)


def check_inside(path: Path, root: Path) -> None:
    """Raises UserError where `path` is led out of the folder `root` by a link."""
    if not is_inside(path, root):
        raise UserError(f"{path}: is a link that leads out of the folder and is not followed; put a file there")


def read_plain(path: Path, largest: int = _LARGEST_SMALL) -> bytes:
    """The content of a small file. Raises UserError where it can't be read, is no plain file, or is too large.

    Args:
        path: of the file.
        largest: how many bytes it may have.
    """
    try:
        with open_plain(path) as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    if len(content) > largest:
        raise UserError(f"{path}: has more than {largest:,} bytes, and is not read; delete it")
    return content


def read_json(path: Path, largest: int = _LARGEST_SMALL) -> dict[str, Any]:
    """A JSON mapping from a file of up to `largest` bytes. Raises UserError where it is none."""
    return parse_json(read_plain(path, largest), str(path))


def parse_json(text: bytes, name: str) -> dict[str, Any]:
    """The JSON mapping that a text is. Raises UserError, starting with `name`, where it is none."""
    try:
        tree = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        json.dumps(tree, ensure_ascii=False).encode()  # fails where a character is only half there
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: can't be read as JSON: {one_line(error)}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{name}: is not a JSON mapping")
    return tree


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        _no_number(text)
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def of_schema(kind: type[Parsed], schema: str, tree: Mapping[str, Any], where: str) -> Parsed:
    """A JSON mapping as the dataclass that it says it is.

    Args:
        kind: the dataclass.
        schema: what the mapping must name as its `schema`.
        tree: the mapping, anyone's.
        where: it was found; errors start with it.

    Raises:
        UserError: it is of another schema, or a value is not what the dataclass has.
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
    """What a YAML text says, tags that build objects refused. Raises UserError, starting with `name`."""
    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        # An excerpt of a text with an address could show the key in it.
        reason = getattr(error, "problem", None) if "://" in text else None
        raise UserError(f"{without_queries(name)}: not YAML: {reason or one_line(error)}") from None
    except RecursionError:
        raise UserError(f"{name}: can't be read as YAML: it is nested too deeply") from None
    waiting, entries = [tree], 0
    while waiting:
        entry = waiting.pop()
        children = [*entry, *entry.values()] if isinstance(entry, dict) else entry if isinstance(entry, list) else []
        if not isinstance(entry, _YAML):
            raise UserError(f"{name}: contains a {type(entry).__name__}, neither text nor a number; put it in quotes")
        if isinstance(entry, int) and abs(entry) > _LARGEST:
            raise UserError(f"{name}: contains a number of over 1,000 digits; quote it if it is text")
        if isinstance(entry, str) and not _is_text(entry):
            raise UserError(f"{name}: {entry!r} contains half a character; fix it")
        waiting += children
        entries += len(children)
        if entries > _MOST_ENTRIES:
            raise UserError(f"{name}: its aliases expand to more than {_MOST_ENTRIES:,} entries; write them out")
    return tree


def to_yaml(tree: Any, width: int = 80) -> str:
    """A tree as YAML, its keys in their order. Text that would turn a reader's direction is written as escapes."""
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
) -> None:
    """The file is there with all of `content`, or not at all, whenever the machine stops.

    Its folder is made where it is not there and `make_folder` is not False. Without `durable` the same holds whenever
    the process stops, which is enough for what is quickly made anew. Without `replace` a file that is there already
    stays as it is. Raises UserError where it can't be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")  # that nobody can have laid a link at
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        else:
            _move_where_nothing_is(temporary, path)
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


def _move_where_nothing_is(temporary: Path, path: Path) -> None:
    """Gives a file its name, or removes it where another one has that."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links: another process could come between these two lines
        if not path.exists():
            temporary.replace(path)
            return
    temporary.unlink()


def write_changed(path: Path, content: bytes) -> None:
    """Writes a file that is not there yet with this very content. Raises UserError."""
    with suppress(OSError), open_plain(path) as file:
        if file.read(len(content) + 1) == content:
            return
    write_atomically(path, content)


def package_data(name: str) -> Path:
    """A folder of fmrgen's own data: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / name
    return installed if installed.is_dir() else package.parent / name


def sha256_of(path: Path) -> str:
    """The digest of a file. Raises UserError where it can't be read."""
    try:
        with open_plain(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None


def fingerprint(canonical: Any) -> str:
    """16 hex digits of the canonical JSON of `canonical`."""
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_writable(folder: Path) -> None:
    """Raises UserError where a folder is not there and can't be made, or nothing can be written in it."""
    if not _is_text(str(folder)):
        raise UserError(f"{str(folder)!r}: its name is not UTF-8, so parquet can't be written there; choose another")
    check_plain_path(folder)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists() or place.is_symlink())
    if not there.is_dir():
        raise UserError(f"{folder}: can't be written: {there} is not a folder; choose another {option('output')}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: can't be written: {there} is read-only; choose another {option('output')}")
    try:  # some file systems, such as /proc, allow it and fail
        os.rmdir(tempfile.mkdtemp(prefix=".fmrgen-", dir=there))
    except OSError:
        raise UserError(
            f"{folder}: can't be written: no file can be made in {there}; choose another {option('output')}"
        ) from None


def no_such_folder(folder: str) -> str:
    """That a folder is not there, with the one beside it that was probably meant."""
    parent = Path(folder).parent
    beside = [path.name for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []
    near = near_name(Path(folder).name, beside)
    return f"{folder}: no such folder" + ("" if near is None else f"; did you mean {parent / near}?")


def check_plain_path(folder: Path) -> None:
    """Raises UserError for a folder whose name the readers of datasets take for two places."""
    if "::" in str(folder.absolute()):
        raise UserError(f"{folder}: datasets can't read from a path with :: in it; use a folder of another name")


def cache_folder() -> Path:
    """Where things are kept that can be made or downloaded again: `FMRGEN_CACHE`, or `fmrgen` in the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fmrgen"
    return Path(os.environ.get(CACHE_FOLDER) or default).expanduser()
