"""German traffic signs (GTSRB, Stallkamp et al. 2012): photos of 43 classes, from the Hub, torchvision's folder or a
parquet file."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from fmrgen.config import HubDataset
from fmrgen.errors import UserError, one_line
from fmrgen.labels import make_labels
from fmrgen.sources._selection import select
from fmrgen.sources.base import RawExample, Source, SourceConfig
from fmrgen.sources.datasets import Config as DatasetConfig
from fmrgen.sources.datasets import open_dataset

SIGNS = (
    "speed limit 20",
    "speed limit 30",
    "speed limit 50",
    "speed limit 60",
    "speed limit 70",
    "speed limit 80",
    "end of speed limit 80",
    "speed limit 100",
    "speed limit 120",
    "no passing",
    "no passing for trucks",
    "right of way at the next crossing",
    "priority road",
    "yield",
    "stop",
    "no vehicles",
    "no trucks",
    "no entry",
    "general caution",
    "dangerous curve left",
    "dangerous curve right",
    "double curve",
    "bumpy road",
    "slippery road",
    "road narrows on the right",
    "road work",
    "traffic signals",
    "pedestrians",
    "children crossing",
    "bicycles crossing",
    "ice or snow",
    "wild animals crossing",
    "end of all limits",
    "turn right ahead",
    "turn left ahead",
    "ahead only",
    "go straight or right",
    "go straight or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no passing",
    "end of no passing for trucks",
)
_EXTRA = {"width": "int64", "track": "string"}


class Config(SourceConfig):
    """`path` is a dataset on the Hub, a parquet file, or the folder into which torchvision's `GTSRB` downloads.

    Splits store the `width` of the photo in pixels (narrow signs are far ones) and the `track`, frames of one sign,
    where these are known: in the folder, and in files with such columns.
    """

    PLACES = ("path",)

    kind: str = "gtsrb"
    split: Literal["train", "test"] = "test"
    path: str = Field("tanganke/gtsrb")

    def hub_dataset(self) -> HubDataset | None:
        return self._as_dataset().hub_dataset()

    def _as_dataset(self) -> DatasetConfig:
        options = {name: getattr(self, name) for name in SourceConfig.model_fields if name != "kind"}
        options["classes"] = self.classes or list(SIGNS)
        return DatasetConfig(path=self.path, split=self.split, **options)

    def build(self, device: object = "cpu") -> Source:
        base = Path(self.path) / "gtsrb"
        if base.is_dir():
            return SignFolder(base, self)
        inner = self._as_dataset()
        inner.check_places("source")
        dataset = open_dataset(inner)
        columns = [name for name in _EXTRA if name in (dataset.features or {})]
        return inner.model_copy(update={"columns": columns}).open(dataset)


class _Sign(NamedTuple):
    """A line of the files that come with the photos."""

    number: int
    file: Path
    label: int
    width: int
    track: str


class SignFolder(Source):
    """The photos in torchvision's folder, in the order of their files; ids count from 0."""

    columns = _EXTRA

    def __init__(self, base: Path, config: Config) -> None:
        self.labels = make_labels(config.classes, list(SIGNS))
        lines = _train_lines(base) if config.split == "train" else _test_lines(base)
        self._signs = select(self._labelled(lines), self.labels, config)

    def _labelled(self, lines: Iterator[tuple[Path, dict[str, str], str]]) -> Iterator[_Sign]:
        """Yield the signs that have a label of the job."""
        for number, (folder, line, track) in enumerate(lines):
            label = self.labels.from_source(int(line["ClassId"]))
            if label is not None:
                yield _Sign(number, folder / line["Filename"], label, int(line["Width"]), track)

    def __len__(self) -> int:
        return len(self._signs)

    def read(self, start: int, stop: int) -> Iterator[RawExample]:
        for sign in self._signs[start:stop]:
            extra = {"width": sign.width, "track": sign.track}
            yield RawExample(sign.number, str(sign.file), sign.label, extra=extra)


def _train_lines(base: Path) -> Iterator[tuple[Path, dict[str, str], str]]:
    """Yield the folder, the line and the track of each training photo."""
    folders = sorted(path for path in (base / "GTSRB/Training").iterdir() if path.is_dir())
    for folder in folders:
        for line in _lines(folder / f"GT-{folder.name}.csv"):
            yield folder, line, f"{folder.name}/{line['Filename'].partition('_')[0]}"


def _test_lines(base: Path) -> Iterator[tuple[Path, dict[str, str], str]]:
    """Yield the folder and the line of each test photo; no track is known."""
    for line in _lines(base / "GT-final_test.csv"):
        yield base / "GTSRB/Final_Test/Images", line, ""


def _lines(path: Path) -> list[dict[str, str]]:
    """Return the lines of a file that describes photos. Raises UserError if it can't be read."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file, delimiter=";"))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"source.path: {path} can't be read: {one_line(error)}; download GTSRB again") from None
    if lines and not {"Filename", "Width", "ClassId"} <= lines[0].keys():
        raise UserError(f"source.path: {path} has no columns Filename, Width and ClassId; download GTSRB again")
    return lines
