"""Tars in the format of webdataset as they are: in a folder, on the web, or from a command; nothing is converted."""

import json
import re
import tarfile
from collections.abc import Iterator
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

_BLOCK = 1 << 20
_MOST_TARS = 1_000_000
_SHARDS = "nshards.txt"  # CLIP_benchmark's number of tars in a folder


class Config(SourceConfig):
    """`urls` are paths, addresses or `pipe:` commands, with braces for numbers: `val-{000000..000049}.tar`.

    Patterns (`val-*.tar`) stand for files, which are taken in the order of their names; a folder of CLIP_benchmark's
    layout (its split, with `nshards.txt`, or the folder above, whose `test` is meant) for its tars.

    A sample is the members of a tar whose names are the same up to their first dot; capitals in what follows do not
    count. `image` are the endings that an image may have, the first one found is taken; `label` is the ending of its
    label, a class's number or name (`json.KEY` reads a key of a JSON member). Ids count the samples through all tars
    in the order of `urls`.

    Tars in files, uncompressed, are looked through before the work. Of others `limit` must say how many samples to
    take, and `tar_size`, how many each but the last holds, saves the processes of a job from reading each other's.
    """

    kind: str = "webdataset"
    urls: str | list[str] = Field(min_length=1)
    image: list[Annotated[str, AfterValidator(str.lower)]] = Field(
        ["jpg", "jpeg", "png", "webp", "original.png", "original.jpg"], min_length=1
    )
    label: Annotated[str, AfterValidator(lambda ending: ending if "." in ending else ending.lower())] = "cls"
    tar_size: int | None = Field(None, ge=1)

    def check_places(self, section: str) -> None:
        self._tars()

    def _tars(self) -> tuple[list[str], list[str]]:
        """All tars, and those that are files here. Raises UserError where one of these is not there."""
        urls = [url for given in self._all_urls() for tars in _tars_of(given) for url in _matching(tars)]
        files = [url for url in urls if "://" not in url and not _is_command(url)]
        if missing := [url for url in files if not Path(url).is_file()]:
            more = len(missing) - 1
            which = f"{missing[0]} and {more} other file{'s' if more > 1 else ''} do" if more else f"{missing[0]} does"
            raise UserError(f"source.urls: {which} not exist")
        return urls, files

    def build(self, device: object = "cpu") -> Source:
        urls, files = self._tars()
        labels = make_labels(self.classes, _names_beside(files))
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
        return _expanded([self.urls] if isinstance(self.urls, str) else self.urls)


def _expanded(patterns: list[str]) -> list[str]:
    """Every address that the patterns stand for, commands as they are."""
    from braceexpand import braceexpand

    ranges = [map(int, span) for text in patterns for span in re.findall(r"\{(-?\d+)\.\.(-?\d+)", text)]
    too_many = any(abs(end - begin) >= _MOST_TARS for begin, end in ranges)  # the library makes a list of each
    expanded = (url for text in patterns for url in ([text] if _is_command(text) else braceexpand(text)))
    try:
        urls = [] if too_many else list(islice(expanded, _MOST_TARS + 1))
    except ValueError as error:
        raise UserError(f"source.urls: a brace in it is not closed: {_shown(str(error))}") from None
    if too_many or len(urls) > _MOST_TARS:
        raise UserError(f"source.urls: they expand to more than {_MOST_TARS:,} tars; check the braces")
    return urls


def _tars_of(url: str) -> list[str]:
    """The tars of a folder in CLIP_benchmark's layout; anything else as it is."""
    if "://" in url or _is_command(url) or not Path(url).is_dir():
        return [url]
    folder = Path(url) if (Path(url) / _SHARDS).is_file() else Path(url) / "test"
    try:
        count = int(read_plain(folder / _SHARDS))
    except (UserError, ValueError):
        raise UserError(
            f"source.urls: {url} is a folder without a {_SHARDS} that can be read; name its tars, {url}/*.tar"
        ) from None
    return [str(folder / f"{number}.tar") for number in range(min(count, _MOST_TARS))]


def _matching(url: str) -> list[str]:
    """The files that a pattern stands for, in the order of their names; what is no pattern as it is."""
    if "://" in url or _is_command(url) or not has_magic(url) or Path(url).is_file():
        return [url]
    found = sorted(glob(url, recursive=True))
    if not found:
        raise UserError(f"source.urls: {url}: no such file")
    return found


class _Sample(NamedTuple):
    """Some members of a tar that belong together, by their endings."""

    members: dict[str, tarfile.TarInfo]
    contents: dict[str, bytes]

    def first(self, endings: list[str]) -> str | None:
        return next((ending for ending in endings if ending in self.members), None)


def _samples(tar: tarfile.TarFile, read: list[str]) -> Iterator[_Sample]:
    """The samples of a tar, with the contents of the endings to read."""
    from webdataset.tariterators import group_by_keys

    try:
        for found in group_by_keys(_members(tar, read)):
            members = {ending: value for ending, value in found.items() if not ending.startswith("__")}
            contents = {ending: content for ending, (_, content) in members.items() if content is not None}
            yield _Sample({ending: member for ending, (member, _) in members.items()}, contents)
    except ValueError as error:  # of two members with one ending
        raise tarfile.ReadError(f"two members are called {str(error.args[0]).partition(':')[0]}") from None


def _members(tar: tarfile.TarFile, read: list[str]) -> Iterator[dict[str, Any]]:
    """The files in a tar, as webdataset takes them to be grouped, with the contents of the endings to read.

    Nothing is unpacked; what could lead elsewhere if it were (links, devices, paths upwards) is refused all the same.
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
        content = tar.extractfile(member) if ending in read else None
        yield {"fname": member.name, "data": (member, content and content.read()), "__url__": None}
    while rest := tar.fileobj.read(_BLOCK):
        if rest.strip(b"\0"):
            raise tarfile.ReadError("there is data after its end, as in two concatenated tars")


class _Member(tarfile.TarInfo):
    """A member whose header is right, or the end of a tar: tarfile itself takes whatever it can't read for the end."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"at byte {tar.offset}: {error}") from None


def _image_ending(config: Config, sample: _Sample, number: int) -> str | None:
    """The ending of a sample's image; None where it has none and such are skipped, else that is a UserError."""
    ending = sample.first(config.image)
    if ending is None and config.on_error == "fail":
        raise _lacking("image", ", ".join(config.image), sample, number)
    return ending


def _label(config: Config, sample: _Sample, number: int) -> Any:
    """What a sample says of its label. Raises UserError where it says nothing."""
    ending, _, key = config.label.partition(".") if config.label.startswith("json.") else (config.label, "", "")
    content = sample.contents.get(ending)
    if content is None:
        raise _lacking("label", ending, sample, number)
    if key:
        with suppress(ValueError, KeyError, TypeError):
            return json.loads(content)[key]
        raise UserError(f"source.label: the json of sample {number} has no {key} in it")
    text = content.decode(errors="replace").strip()
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def _lacking(what: str, wanted: str, sample: _Sample, number: int) -> UserError:
    there = ", ".join(sorted(sample.members))
    return UserError(
        f"source.{what}: sample {number} has no member {wanted}, only {there}; set source.{what} to the ending that "
        "holds it"
    )


@contextmanager
def _opened(url: str, mode: str) -> Iterator[tarfile.TarFile]:
    """A tar, opened to be read. Raises UserError where it is none, also while it is read."""
    try:
        with (
            closing(_stream(url)) as stream,
            tarfile.open(fileobj=stream, mode=mode, tarinfo=_Member) as tar,  # type: ignore[call-overload]
        ):
            yield tar
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"source.urls: {_shown(url)}: can't be read as a tar: {_why(error, url)}") from None


def _why(error: Exception, url: str) -> str:
    """What went wrong, in words without an address's or a command's secrets."""
    if isinstance(error, tarfile.TarError):
        cure = f"; is it compressed? pipe:gzip -dc {url} reads it" if url.endswith(("gz", ".tgz")) else ""
        return one_line(error, 120) + cure
    if _is_command(url):
        status = re.search(r"exit (-?\d+)", str(error))
        return f"the command ends with {status[1]}" if status else "the command fails"
    if "://" not in url:
        return str(getattr(error, "strerror", None) or one_line(error, 120))
    status = getattr(error, "status", None)
    return f"{type(error).__name__}{f', status {status}' if status else ''}"


def _stream(url: str) -> Any:
    if _is_command(url):
        from webdataset.gopen import gopen

        return gopen(url)
    from datasets.utils.file_utils import xopen

    try:
        return xopen(url, "rb")
    except (ImportError, ValueError) as error:  # what fsspec says of a protocol that it does not know
        name = type(error).__name__
        raise UserError(f"source.urls: {_shown(url)}: {name}: can't read {url.partition(':')[0]}:// here") from None


def _shown(url: str) -> str:
    """An address or a command as messages show it: without what may be secret in it."""
    if _is_command(url):
        return f"{' '.join(url.split()[:1])} …"
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.scheme else url


def _is_command(url: str) -> bool:
    return url.startswith("pipe:")


def _names_beside(files: list[str]) -> list[str] | None:
    """The class names that an export of fmrgen put beside its tars, or CLIP_benchmark's layout has above them."""
    if files and (folder := Path(files[0]).parent).joinpath(_SHARDS).is_file():
        with suppress(UserError, UnicodeDecodeError):
            return read_plain(folder.parent / "classnames.txt").decode().splitlines()
    for path in sorted(Path(files[0]).parent.glob("*.json")) if files else []:
        with suppress(UserError, KeyError, TypeError):
            content = read_json(path)
            if Path(files[0]).name in [tar["name"] for tar in content["tars"]]:
                return content["classes"]
    return None


class _Location(NamedTuple):
    """Where an image lies."""

    file: str
    offset: int
    size: int


class _Entry(NamedTuple):
    """A sample in a tar that was looked through."""

    number: int
    place: _Location
    label: int


def _entries(files: list[str], config: Config, labels: Labels) -> Iterator[_Entry]:
    """The samples of tars in files that have a label of the job."""
    number = 0
    for file in files:
        with _opened(file, "r:") as tar:
            for sample in _samples(tar, [config.label.partition(".")[0], config.label]):
                label = label_of_source(labels, _label(config, sample, number), number, "source.label")
                if label is not None:
                    member = sample.members.get(_image_ending(config, sample, number) or "")
                    place = _Location(file, member.offset_data, member.size) if member else _Location(file, 0, 0)
                    yield _Entry(number, place, label)
                number += 1


class TarFiles(Source):
    """Tars in files, looked through once: each image is then read from where it lies."""

    def __init__(self, files: list[str], config: Config, labels: Labels) -> None:
        self.labels = labels
        self._entries = select(_entries(files, config, labels), labels, config)

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, start: int, stop: int) -> Iterator[RawExample]:
        for number, place, label in self._entries[start:stop]:
            with open(place.file, "rb") as file:
                file.seek(place.offset)
                yield RawExample(number, file.read(place.size), label)


class TarStreams(StreamedSource):
    """Tars that can only be read from their beginning on, one after another."""

    called = ("the tars end", "samples")

    def __init__(self, urls: list[str], config: Config, labels: Labels, length: int) -> None:
        super().__init__(labels, length)
        self._urls, self._config = urls, config
        self._tar_size = config.tar_size if labels.groups is None else None  # with groups, only reading tells

    def _leaps(self, start: int) -> bool:
        return self._tar_size is not None and start // self._tar_size > self._position // self._tar_size

    def _examples(self, start: int) -> Iterator[RawExample]:
        config = self._config
        first = min(start // self._tar_size, len(self._urls) - 1) if self._tar_size else 0
        counted = first * (self._tar_size or 0)
        endings = [config.label.partition(".")[0], config.label, *config.image]
        for tar, url in enumerate(self._urls[first:], first):
            begin = counted
            with _opened(url, "r|*") as opened:
                # One sample ahead: whoever stops at the end of this tar must know that it is the end.
                for sample, following in pairwise(chain(_samples(opened, endings), [None])):
                    assert sample is not None
                    counted += 1
                    if following is not None and counted - begin == self._tar_size and tar + 1 < len(self._urls):
                        raise UserError(f"source.tar_size: {_shown(url)} holds more samples than {counted - begin}")
                    if counted <= start:
                        continue
                    label = label_of_source(
                        self.labels, _label(config, sample, counted - 1), counted - 1, "source.label"
                    )
                    if label is not None:
                        image = sample.contents.get(_image_ending(config, sample, counted - 1) or "", b"")
                        yield RawExample(counted - 1, image, label)
            if self._tar_size and counted - begin < self._tar_size and tar + 1 < len(self._urls):
                raise UserError(f"source.tar_size: {_shown(url)} holds {counted - begin} samples, not {self._tar_size}")
