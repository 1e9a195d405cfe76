"""German traffic signs (GTSRB, Stallkamp et al. 2012): photos of 43 classes, from the Hub, torchvision's folder or a
parquet file."""

import csv
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fmrgen.config import HubDataset
from fmrgen.errors import UserError, one_line
from fmrgen.sources.base import Source, SourceConfig
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
        inner = self._as_dataset()
        base = Path(self.path) / "gtsrb"
        if base.is_dir():
            dataset = _photos(base, self.split)
        else:
            inner.check_places("source")
            dataset = open_dataset(inner)
        columns = [name for name in ("width", "track") if name in (dataset.features or {})]
        return inner.model_copy(update={"columns": columns}).open(dataset)


def _photos(base: Path, split: str) -> Any:
    """Return the photos in torchvision's folder as a dataset, in the order of their files.

    Raises UserError if a file that describes them can't be read.
    """
    from datasets import ClassLabel, Dataset, Features, Image, Value

    features = {"image": Image(), "label": ClassLabel(names=list(SIGNS)), "width": Value("int64")}
    features["track"] = Value("string")
    if split == "test":
        rows = _rows(base / "GT-final_test.csv", base / "GTSRB/Final_Test/Images")
    else:
        rows = []
        for folder in sorted(path for path in (base / "GTSRB/Training").iterdir() if path.is_dir()):
            rows += _rows(folder / f"GT-{folder.name}.csv", folder)
    return Dataset.from_list(rows, features=Features(features))


def _rows(path: Path, folder: Path) -> list[dict[str, Any]]:
    """Return the photos in a folder that a file describes. Raises UserError if it can't be read."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file, delimiter=";"))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"source.path: {path} can't be read: {one_line(error)}; download GTSRB again") from None
    if lines and not {"Filename", "Width", "ClassId"} <= lines[0].keys():
        raise UserError(f"source.path: {path} has no columns Filename, Width and ClassId; download GTSRB again")
    rows = []
    for line in lines:
        name = line["Filename"]
        sign, separator, _ = name.partition("_")  # photos for training are called by their track and frame
        track = f"{folder.name}/{sign}" if separator else ""
        label, width = int(line["ClassId"]), int(line["Width"])
        rows.append({"image": str(folder / name), "label": label, "width": width, "track": track})
    return rows
