"""A folder of images: one folder for each class, or a metadata.csv that gives their labels."""

from pathlib import Path
from typing import Any

from pydantic import Field

from fmrgen.errors import UserError, one_line
from fmrgen.sources.base import Source, SourceConfig
from fmrgen.sources.datasets import Config as DatasetsConfig

_METADATA = "metadata.csv"


class Config(SourceConfig):
    """`path` holds the class folders, with images at any depth; classes and files are in the order of their names.

    Or it holds a `metadata.csv` with the columns `file_name`, of a file below `path` and relative to it, and `label`,
    words or numbers; then examples are in the order of its lines.
    """

    PLACES = ("path", "only")

    kind: str = "imagefolder"
    path: str
    only: str | None = Field(
        None, description="a file that lists the images to take, one a line, relative to `path`; in that order"
    )

    def whole(self) -> "Config":
        return super().whole().model_copy(update={"only": None})

    def check_places(self, section: str) -> None:
        if self.only is not None and not Path(self.only).is_file():
            raise UserError(f"source.only: {self.only}: no such file")
        if not (Path(self.path) / _METADATA).is_file():
            _class_folders(Path(self.path))

    def build(self, device: object = "cpu") -> Source:
        from datasets import Dataset, Features, Image

        root = Path(self.path)
        read = _read_metadata if (root / _METADATA).is_file() else _read_folders
        columns, label = read(root)
        if self.only is not None:
            label_of = dict(zip(columns["image"], columns["label"], strict=True))
            lines = Path(self.only).read_text(encoding="utf-8").splitlines()
            images = [str(root / line) for line in lines]
            for image in images:
                if image not in label_of:
                    problem = f"lists {image}, which is not among the images of {self.path}"
                    raise UserError(f"source.only: {self.only} {problem}")
            columns = {"image": images, "label": [label_of[image] for image in images]}
        dataset = Dataset.from_dict(columns, features=Features({"image": Image(), "label": label}))
        shared = self.model_dump(include=set(SourceConfig.model_fields) - {"kind"})
        return DatasetsConfig(path=self.path, label_column="label", **shared).open(dataset)

    def places_it_reads(self) -> list[str]:
        return [place for place in (self.path, self.only) if place is not None]


def _class_folders(root: Path) -> list[str]:
    """Return the names of the class folders, sorted. Raises UserError if there is none."""
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    if not names:
        raise UserError(f"source.path: {root} is not a folder of class folders, and has no {_METADATA}")
    return names


def _read_folders(root: Path) -> tuple[dict[str, list[Any]], Any]:
    """Return the columns `image`, paths, and `label`, and the feature of the labels."""
    from datasets import ClassLabel
    from PIL import Image as PILImage

    names = _class_folders(root)
    suffixes = PILImage.registered_extensions()
    images = []
    labels = []
    for label, name in enumerate(names):
        for file in sorted((root / name).rglob("*")):
            # A link that leads nowhere is an error later: it is not passed over here.
            if file.suffix.lower() in suffixes and not file.is_dir():
                try:
                    str(file).encode()
                except UnicodeEncodeError:
                    shown = str(file).encode(errors="backslashreplace").decode()
                    raise UserError(f"source.path: {shown}: its name is no text in UTF-8; rename it") from None
                images.append(str(file))
                labels.append(label)
    return {"image": images, "label": labels}, ClassLabel(names=names)


def _read_metadata(root: Path) -> tuple[dict[str, list[Any]], Any]:
    """Return the columns `image`, paths, and `label` in the order of the metadata, and the feature of the labels.

    Raises UserError if the metadata cannot be read, lacks a column or a value, or names a file outside of the folder.
    """
    import pandas
    from datasets import Value

    path = root / _METADATA
    try:
        table = pandas.read_csv(path, dtype={"file_name": str})
    except (OSError, ValueError) as error:
        raise UserError(f"source.path: {path} can't be read: {one_line(error)}") from None
    for column in ("file_name", "label"):
        if column not in table:
            raise UserError(f"source.path: {path} has no column {column}, it has {', '.join(map(str, table.columns))}")
        is_missing = table[column].isna()
        if is_missing.any():
            line = int(is_missing.to_numpy().argmax()) + 2  # the first line is the header
            raise UserError(f"source.path: {path}: line {line} has no {column}")
    for name in table["file_name"]:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"source.path: {path}: {name} is outside of the folder, and would be published with it")
    images = [str(root / name) for name in table["file_name"]]
    labels = table["label"].tolist()
    is_text = all(isinstance(label, str) for label in labels)
    return {"image": images, "label": labels}, Value("string" if is_text else "int64")
