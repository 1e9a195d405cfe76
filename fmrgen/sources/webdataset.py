"""Tars in the format of webdataset, one after another, from files or the web."""

import json
import re
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from glob import glob, has_magic
from itertools import chain, islice
from pathlib import Path
from typing import Any

from pydantic import Field

from fmrgen.errors import UserError, one_line
from fmrgen.image_files import MOST_BYTES
from fmrgen.labels import Labels, make_labels
from fmrgen.sources._selection import refuse_selection_of_a_stream
from fmrgen.sources.base import RawExample, Source, SourceConfig, StreamedSource, label_of_source
from fmrgen.trust.recipes import is_on_the_hub

_META = r"__[^/]*__($|/)"  # members that the library passes over


class Config(SourceConfig):
    """`urls` are paths or addresses, with braces for numbers: `val-{000000..000049}.tar`; patterns (`val-*.tar`) stand
    for files in the order of their names.

    A sample is the members of a tar whose names are the same up to their first dot; the case of what follows does not
    count. `image` are the endings that an image may have: the first one present is taken. `label` is the ending of the
    label, a class's number or name (`json.KEY` reads a key of a JSON member). Ids count the samples through all tars in
    the order of `urls`. `limit` says how many samples to take; of files it is by default all.
    """

    kind: str = "webdataset"
    urls: str | list[str] = Field(min_length=1)
    image: list[str] = Field(["jpg", "jpeg", "png", "webp", "original.png", "original.jpg"], min_length=1)
    label: str = "cls"

    def check_places(self, section: str) -> None:
        self.tars()

    def whole(self) -> "Config":
        return self if any("://" in url for url in self._expanded()) else super().whole()

    def _expanded(self) -> list[str]:
        from braceexpand import braceexpand

        urls: list[str] = []
        for pattern in [self.urls] if isinstance(self.urls, str) else self.urls:
            try:
                urls += braceexpand(pattern)
            except ValueError as error:
                raise UserError(f"source.urls: a brace in it is not closed: {one_line(error)}") from None
        return urls

    def tars(self) -> list[str]:
        """Return all tars. Raises UserError if a file does not exist."""
        tars = []
        for url in self._expanded():
            is_pattern = "://" not in url and has_magic(url) and not Path(url).is_file()
            tars += (sorted(glob(url, recursive=True)) or [url]) if is_pattern else [url]
        for tar in tars:
            if "://" not in tar and not Path(tar).is_file():
                raise UserError(f"source.urls: {tar} does not exist")
        return tars

    def build(self, device: object = "cpu") -> Source:
        tars = self.tars()
        refuse_selection_of_a_stream(self, "read the tars' images as a folder")
        labels = make_labels(self.classes, None)
        length = self.limit
        if length is None and any("://" in tar for tar in tars):
            raise UserError("source.limit: how many samples the tars contain is only known for files; set it")
        return Tars(tars, self, labels, length or sum(map(_count, tars)))

    def places_it_reads(self) -> list[str]:
        return [url for url in self._expanded() if not is_on_the_hub(url)]


class Tars(StreamedSource):
    """The samples of tars, read from their beginning on."""

    called = ("the tars end", "samples")

    def __init__(self, tars: list[str], config: Config, labels: Labels, length: int) -> None:
        super().__init__(labels, length)
        self._tars, self._config = tars, config

    def _examples(self, start: int) -> Iterator[RawExample]:
        images = [ending.lower() for ending in self._config.image]
        of_label, (ending, _, key) = self._config.label.lower(), self._config.label.partition(".")
        samples = enumerate(chain.from_iterable(map(_samples, self._tars)))
        for number, sample in islice(samples, start, None):
            stored: Any = _member(sample, [of_label, ending.lower()], "label", number).decode(errors="replace").strip()
            if key and ending == "json":
                try:
                    stored = json.loads(stored)[key]
                except (ValueError, KeyError, TypeError):
                    raise UserError(f"source.label: sample {number} has no {key} in its json") from None
            elif stored.lstrip("-").isdigit():
                stored = int(stored)
            label = label_of_source(self.labels, stored, number, "source.label")
            if label is not None:
                is_left_out = self._config.on_error == "skip" and not {*images} & sample.keys()
                yield RawExample(number, b"" if is_left_out else _member(sample, images, "image", number), label)


def _member(sample: dict[str, Any], endings: list[str], key: str, number: int) -> bytes:
    """Return the content of the first ending that a sample has. Raises UserError if it has none."""
    for ending in endings:
        if ending in sample:
            content: bytes = sample[ending]
            return content
    members = ", ".join(sorted(name for name in sample if not name.startswith("__")))
    raise UserError(f"source.{key}: sample {number} has no member {', '.join(endings)}, only {members}")


def _samples(tar: str) -> Iterator[dict[str, Any]]:
    """Yield the samples of a tar: contents by ending. Nothing is unpacked. Raises UserError if it can't be read."""
    from datasets.utils.file_utils import xopen
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    def members(file: Any) -> Iterator[dict[str, Any]]:
        for member in tar_file_iterator(file):
            if len(member["data"]) > MOST_BYTES:
                raise ValueError(f"{member['fname']} has more than {MOST_BYTES:,} bytes")
            yield {**member, "__url__": tar}

    with _readable(tar), closing(xopen(tar, "rb")) as file:
        yield from group_by_keys(members(file))


def _count(tar: str) -> int:
    """Return the number of samples of a tar on this machine, by its headers alone."""
    from webdataset.tariterators import group_by_keys

    with _readable(tar), tarfile.open(tar) as file:
        names = [member.name for member in file if member.isreg() and not re.match(_META, member.name)]
        members = [{"fname": name, "data": b"", "__url__": tar} for name in names]
        return sum(1 for _ in group_by_keys(members))


@contextmanager
def _readable(tar: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # tarfile, fsspec and the network under it fail in many ways
        shown = tar.partition("?")[0]
        raise UserError(f"source.urls: {shown}: can't be read as a tar: {one_line(error, 120)}") from None
