"""Tars in the format of webdataset, read as they are: from a folder, the web, or a command."""

import json
import re
import tarfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from glob import glob, has_magic
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from fmrgen.errors import UserError, one_line
from fmrgen.files import read_json, read_plain
from fmrgen.image_files import MOST_BYTES
from fmrgen.labels import Labels, make_labels
from fmrgen.sources._selection import refuse_selection_of_a_stream, select
from fmrgen.sources.base import RawExample, Source, SourceConfig, StreamedSource, label_of_source
from fmrgen.trust.recipes import is_on_the_hub

_BLOCK = 1 << 20  # bytes
_MOST_TARS = 1_000_000
_MOST_REASON = 120  # characters of another library's message
_SHARDS = "nshards.txt"  # CLIP_benchmark's number of tars in a folder
_TOO_MANY_TARS = f"source.urls: they expand to more than {_MOST_TARS:,} tars; check the braces"
_BRACE_RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)")


def _lower_ending(ending: str) -> str:
    """Return an ending in lower case; one with a dot as it is, since capitals count in the KEY of `json.KEY`."""
    return ending if "." in ending else ending.lower()


class Config(SourceConfig):
    """`urls` are paths, addresses or `pipe:` commands, with braces for numbers: `val-{000000..000049}.tar`.

    Patterns (`val-*.tar`) stand for files in the order of their names. A folder in CLIP_benchmark's layout stands for
    its tars: a split with `nshards.txt`, or the folder above it, whose `test` is taken.

    A sample is the members of a tar whose names are the same up to their first dot; the case of what follows does not
    count. `image` are the endings that an image may have: the first one present is taken. `label` is the ending of the
    label, a class's number or name (`json.KEY` reads a key of a JSON member). Ids count the samples through all tars in
    the order of `urls`.

    Uncompressed tars in files are looked through before the job starts. For others `limit` must say how many samples to
    take; with `tar_size`, the number in each tar but the last, the processes of a job need not read each other's tars.
    """

    kind: str = "webdataset"
    urls: str | list[str] = Field(min_length=1)
    image: list[Annotated[str, AfterValidator(str.lower)]] = Field(
        ["jpg", "jpeg", "png", "webp", "original.png", "original.jpg"], min_length=1
    )
    label: Annotated[str, AfterValidator(_lower_ending)] = "cls"
    tar_size: int | None = Field(None, ge=1)

    def check_places(self, section: str) -> None:
        self._tars()

    def _tars(self) -> tuple[list[str], list[str]]:
        """Return all tars, and those that are files here. Raises UserError if one of these does not exist."""
        urls = []
        for pattern in self._all_urls():
            for tars in _tars_of(pattern):
                urls += _matching(tars)
        files = [url for url in urls if "://" not in url and not _is_command(url)]
        missing = [file for file in files if not Path(file).is_file()]
        if len(missing) == 1:
            raise UserError(f"source.urls: {missing[0]} does not exist")
        if missing:
            more = len(missing) - 1
            others = f"{more} other file{'s' if more > 1 else ''}"
            raise UserError(f"source.urls: {missing[0]} and {others} do not exist")
        return urls, files

    def build(self, device: object = "cpu") -> Source:
        urls, files = self._tars()
        labels = make_labels(self.classes, _class_names_near(files))
        if len(files) == len(urls):
            return TarFiles(files, self, labels)
        refuse_selection_of_a_stream(self, "download the tars as uncompressed files")
        if self.limit is None:
            raise UserError("source.limit: how many samples the tars contain is only known for files; set it")
        return TarStreams(urls, self, labels, self.limit)

    def code_it_runs(self) -> list[str]:
        return [url for url in self._all_urls() if _is_command(url)]

    def places_it_reads(self) -> list[str]:
        return [url for url in self._all_urls() if not _is_command(url) and not is_on_the_hub(url)]

    def _all_urls(self) -> list[str]:
        if isinstance(self.urls, str):
            return _expanded([self.urls])
        return _expanded(self.urls)


def _expanded(patterns: list[str]) -> list[str]:
    """Return every address that the patterns stand for, commands as they are.

    Raises UserError if a brace is not closed, or there are too many addresses.
    """
    from braceexpand import braceexpand

    for text in patterns:
        for begin, end in _BRACE_RANGE.findall(text):
            if abs(int(end) - int(begin)) >= _MOST_TARS:  # braceexpand would make a list of them
                raise UserError(_TOO_MANY_TARS)
    urls: list[str] = []
    for text in patterns:
        if _is_command(text):
            urls.append(text)
        else:
            try:
                urls += islice(braceexpand(text), _MOST_TARS + 1)
            except ValueError as error:
                raise UserError(f"source.urls: a brace in it is not closed: {_shown(str(error))}") from None
        if len(urls) > _MOST_TARS:
            raise UserError(_TOO_MANY_TARS)
    return urls


def _tars_of(url: str) -> list[str]:
    """Return the tars of a folder in CLIP_benchmark's layout; anything else as it is.

    Raises UserError if the folder does not say how many tars it has.
    """
    if "://" in url or _is_command(url) or not Path(url).is_dir():
        return [url]
    folder = Path(url)
    if not (folder / _SHARDS).is_file():
        folder = folder / "test"
    try:
        count = int(read_plain(folder / _SHARDS))
    except (UserError, ValueError):
        raise UserError(
            f"source.urls: {url} is a folder without a {_SHARDS} that can be read; name its tars, {url}/*.tar"
        ) from None
    return [str(folder / f"{number}.tar") for number in range(min(count, _MOST_TARS))]


def _matching(url: str) -> list[str]:
    """Return the files that a pattern stands for, in the order of their names; anything else as it is.

    Raises UserError if no file matches.
    """
    if "://" in url or _is_command(url) or not has_magic(url) or Path(url).is_file():
        return [url]
    files = sorted(glob(url, recursive=True))
    if not files:
        raise UserError(f"source.urls: {url}: no such file")
    return files


class _Sample(NamedTuple):
    """The members of a tar that belong together, by their endings, and the contents that were read."""

    members: dict[str, tarfile.TarInfo]
    contents: dict[str, bytes]

    def first(self, endings: list[str]) -> str | None:
        """Return the first of the endings that a member has; None if none has one."""
        for ending in endings:
            if ending in self.members:
                return ending
        return None


def _samples(tar: tarfile.TarFile, endings: list[str]) -> Iterator[_Sample]:
    """Yield the samples of a tar, with the contents of the members of these endings."""
    from webdataset.tariterators import group_by_keys

    try:
        for group in group_by_keys(_members(tar, endings)):
            sample = _Sample({}, {})
            for ending, value in group.items():
                if ending.startswith("__"):  # webdataset's own keys
                    continue
                member, content = value
                sample.members[ending] = member
                if content is not None:
                    sample.contents[ending] = content
            yield sample
    except ValueError as error:  # two members have one ending
        raise tarfile.ReadError(f"two members are called {str(error.args[0]).partition(':')[0]}") from None


def _members(tar: tarfile.TarFile, endings: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the files in a tar in the form that webdataset groups, with the contents of these endings.

    Nothing is unpacked. Members that could lead elsewhere if they were (links, devices, paths upwards) are refused all
    the same: they raise tarfile.ReadError.
    """
    for member in tar:
        if not member.isfile() and not member.isdir():
            raise tarfile.ReadError(
                f"{member.name} is a link or a device, and only plain files are read (tar --dereference makes such)"
            )
        if member.name.startswith("/") or ".." in member.name.split("/"):
            raise tarfile.ReadError(f"{member.name} leads out of the tar")
        if not member.isfile():
            continue
        if member.issparse() or member.size > MOST_BYTES:
            raise tarfile.ReadError(
                f"{member.name} has {member.size:,} bytes or holes; members have {MOST_BYTES:,} at most"
            )
        ending = member.name.rpartition("/")[2].partition(".")[2].lower()
        content = None
        if ending in endings:
            file = tar.extractfile(member)
            assert file is not None  # as it is for every plain file
            content = file.read()
        yield {"fname": member.name, "data": (member, content), "__url__": None}
    while rest := tar.fileobj.read(_BLOCK):
        if rest.strip(b"\0"):
            raise tarfile.ReadError("there is data after its end, as in two concatenated tars")


class _Member(tarfile.TarInfo):
    """A member with a valid header: tarfile itself takes any header that it can't read for the end of the tar."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"at byte {tar.offset}: {error}") from None


def _image_ending(config: Config, sample: _Sample, number: int) -> str | None:
    """Return the ending of a sample's image; None if it has no image and `on_error` is `skip`, else UserError."""
    ending = sample.first(config.image)
    if ending is None and config.on_error == "fail":
        raise _lacking("image", ", ".join(config.image), sample, number)
    return ending


def _label(config: Config, sample: _Sample, number: int) -> Any:
    """Return the stored label of a sample, a number or a name. Raises UserError if it has none."""
    ending, key = config.label, ""
    if config.label.startswith("json."):
        ending, _, key = config.label.partition(".")
    content = sample.contents.get(ending)
    if content is None:
        raise _lacking("label", ending, sample, number)
    if key:
        with suppress(ValueError, KeyError, TypeError):
            return json.loads(content)[key]
        raise UserError(f"source.label: the json of sample {number} has no {key} in it")
    text = content.decode(errors="replace").strip()
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    return text


def _lacking(key: str, endings: str, sample: _Sample, number: int) -> UserError:
    """Return the error of a sample without a member that `source.KEY` names."""
    members = ", ".join(sorted(sample.members))
    return UserError(
        f"source.{key}: sample {number} has no member {endings}, only {members}; set source.{key} to the ending that "
        "holds it"
    )


@contextmanager
def _opened(url: str, mode: str) -> Iterator[tarfile.TarFile]:
    """Open a tar for reading. Raises UserError if it is not a tar, also later while it is read."""
    try:
        with (
            closing(_stream(url)) as stream,
            tarfile.open(fileobj=stream, mode=mode, tarinfo=_Member) as tar,  # type: ignore[call-overload]
        ):
            yield tar
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"source.urls: {_shown(url)}: can't be read as a tar: {_reason(error, url)}") from None


def _reason(error: Exception, url: str) -> str:
    """Return the reason of an error, without the secrets that an address or a command may hold."""
    if isinstance(error, tarfile.TarError):
        reason = one_line(error, _MOST_REASON)
        if url.endswith(("gz", ".tgz")):
            reason += f"; is it compressed? pipe:gzip -dc {url} reads it"
        return reason
    if _is_command(url):
        exit_status = re.search(r"exit (-?\d+)", str(error))
        return f"the command ends with {exit_status[1]}" if exit_status else "the command fails"
    if "://" not in url:
        return str(getattr(error, "strerror", None) or one_line(error, _MOST_REASON))
    reason = type(error).__name__
    status = getattr(error, "status", None)
    if status:
        reason += f", status {status}"
    return reason


def _stream(url: str) -> Any:
    """Open a file, an address or a command's output. Raises UserError if the address's protocol is not supported."""
    if _is_command(url):
        from webdataset.gopen import gopen

        return gopen(url)
    from datasets.utils.file_utils import xopen

    try:
        return xopen(url, "rb")
    except (ImportError, ValueError) as error:  # fsspec does not know the protocol
        name = type(error).__name__
        raise UserError(f"source.urls: {_shown(url)}: {name}: can't read {url.partition(':')[0]}:// here") from None


def _shown(url: str) -> str:
    """Return an address or a command as messages show it, without parts that may be secret."""
    if _is_command(url):
        return f"{' '.join(url.split()[:1])} …"
    parts = urlsplit(url)
    if not parts.scheme:
        return url
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def _is_command(url: str) -> bool:
    return url.startswith("pipe:")


def _class_names_near(files: list[str]) -> list[str] | None:
    """Return the class names that lie near tars; None if there are none.

    CLIP_benchmark's layout has them in the folder above; an export of fmrgen has them in a JSON file beside its tars.
    """
    if not files:
        return None
    folder = Path(files[0]).parent
    if (folder / _SHARDS).is_file():
        with suppress(UserError, UnicodeDecodeError):
            return read_plain(folder.parent / "classnames.txt").decode().splitlines()
    for path in sorted(folder.glob("*.json")):
        with suppress(UserError, KeyError, TypeError):
            content = read_json(path)
            if Path(files[0]).name in [tar["name"] for tar in content["tars"]]:
                return content["classes"]
    return None


class _Location(NamedTuple):
    """The place of an image in a tar: `offset` and `size` are bytes. It is empty if a sample has no image."""

    file: str
    offset: int
    size: int


class _Entry(NamedTuple):
    """A sample of a tar in a file; `number` counts through all tars."""

    number: int
    location: _Location
    label: int


def _entries(files: list[str], config: Config, labels: Labels) -> Iterator[_Entry]:
    """Yield the samples of tars in files that have a label of the job."""
    number = 0
    for file in files:
        with _opened(file, "r:") as tar:
            for sample in _samples(tar, _label_endings(config)):
                label = label_of_source(labels, _label(config, sample, number), number, "source.label")
                if label is not None:
                    ending = _image_ending(config, sample, number)
                    location = _Location(file, 0, 0)
                    if ending is not None:
                        member = sample.members[ending]
                        location = _Location(file, member.offset_data, member.size)
                    yield _Entry(number, location, label)
                number += 1


def _label_endings(config: Config) -> list[str]:
    """Return the endings that a label may be read from: `label` itself, or the part before `.KEY`."""
    return [config.label.partition(".")[0], config.label]


class TarFiles(Source):
    """Tars in files: they are looked through once, and each image is then read from its place."""

    def __init__(self, files: list[str], config: Config, labels: Labels) -> None:
        self.labels = labels
        self._entries = select(_entries(files, config, labels), labels, config)

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, start: int, stop: int) -> Iterator[RawExample]:
        for number, location, label in self._entries[start:stop]:
            with open(location.file, "rb") as file:
                file.seek(location.offset)
                yield RawExample(number, file.read(location.size), label)


class TarStreams(StreamedSource):
    """Tars that can only be read from their beginning on, one after another."""

    called = ("the tars end", "samples")

    def __init__(self, urls: list[str], config: Config, labels: Labels, length: int) -> None:
        super().__init__(labels, length)
        self._urls = urls
        self._config = config
        self._tar_size = config.tar_size if labels.groups is None else None  # with groups, only reading tells

    def _leaps(self, start: int) -> bool:
        return self._tar_size is not None and start // self._tar_size > self._position // self._tar_size

    def _examples(self, start: int) -> Iterator[RawExample]:
        first_tar, number = 0, 0
        if self._tar_size is not None:
            first_tar = min(start // self._tar_size, len(self._urls) - 1)
            number = first_tar * self._tar_size
        for tar, url in enumerate(self._urls[first_tar:], first_tar):
            # Closed at once, and not when memory is collected, if a sample has no label.
            with closing(self._samples_of(url, is_last=tar + 1 == len(self._urls))) as samples:
                for sample in samples:
                    if number >= start:
                        yield from self._example(sample, number)
                    number += 1

    def _samples_of(self, url: str, *, is_last: bool) -> Generator[_Sample, None, None]:
        """Yield the samples of a tar. Raises UserError if their number is not `tar_size` and it is not the last tar."""
        endings = [*_label_endings(self._config), *self._config.image]
        count = 0
        with _opened(url, "r|*") as tar:
            # One sample ahead: a reader that stops at the end of this tar must know that it is the end.
            for sample, next_sample in pairwise(chain(_samples(tar, endings), [None])):
                assert sample is not None
                count += 1
                if next_sample is not None and count == self._tar_size and not is_last:
                    raise UserError(f"source.tar_size: {_shown(url)} holds more samples than {count}")
                yield sample
        if self._tar_size and count < self._tar_size and not is_last:
            raise UserError(f"source.tar_size: {_shown(url)} holds {count} samples, not {self._tar_size}")

    def _example(self, sample: _Sample, number: int) -> Iterator[RawExample]:
        """Yield a sample's example, if it has a label of the job."""
        stored_label = _label(self._config, sample, number)
        label = label_of_source(self.labels, stored_label, number, "source.label")
        if label is not None:
            ending = _image_ending(self._config, sample, number)
            image = b"" if ending is None else sample.contents.get(ending, b"")
            yield RawExample(number, image, label)
