"""A folder of images: one folder for each class, or a metadata.csv that gives their labels."""

from pathlib import Path
from typing import Any

from fmrgen.errors import UserError, one_line
from fmrgen.sources.base import Source, SourceConfig
from fmrgen.sources.datasets import Config as DatasetsConfig

_METADATA = "metadata.csv"


class Config(SourceConfig):
    """`path` holds the class folders, with images at any depth; classes and files are in the order of their names.

    Or it holds a `metadata.csv` with the columns `file_name`, below `path`, and `label`, words or numbers; its lines
    give the order.
    """

    PLACES = ("path",)

    kind: str = "imagefolder"
    path: str

    def check_places(self, section: str) -> None:
        if not (Path(self.path) / _METADATA).is_file():
            _class_folders(Path(self.path))

    def build(self, device: object = "cpu") -> Source:
        from datasets import ClassLabel, Dataset, Features, Image, Value

        root = Path(self.path)
        columns, names = _of_metadata(root) if (root / _METADATA).is_file() else _of_folders(root)
        words = all(isinstance(label, str) for label in columns["label"])
        label = Value("string" if words else "int64") if names is None else ClassLabel(names=names)
        dataset = Dataset.from_dict(columns, features=Features({"image": Image(), "label": label}))
        shared = self.model_dump(include=set(SourceConfig.model_fields) - {"kind"})
        return DatasetsConfig(path=self.path, label_column="label", **shared).open(dataset)

    def places_it_reads(self) -> list[str]:
        return [self.path]


def _class_folders(root: Path) -> list[str]:
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    if not names:
        raise UserError(f"source.path: {root} is not a folder of class folders, and has no {_METADATA}")
    return names


def _of_folders(root: Path) -> tuple[dict[str, list[Any]], list[str] | None]:
    """Files and labels, and the names of the classes."""
    from PIL import Image as PILImage

    names = _class_folders(root)
    suffixes = PILImage.registered_extensions()
    files = [
        (str(file), label)
        for label, name in enumerate(names)
        for file in sorted((root / name).rglob("*"))
        if file.suffix.lower() in suffixes and not file.is_dir()  # a link that leads nowhere is an error
    ]
    return {"image": [file for file, _ in files], "label": [label for _, label in files]}, names


def _of_metadata(root: Path) -> tuple[dict[str, list[Any]], list[str] | None]:
    """Files and labels as the lines of the metadata have them."""
    import pandas

    path = root / _METADATA
    try:
        table = pandas.read_csv(path, dtype={"file_name": str})
    except (OSError, ValueError) as error:
        raise UserError(f"source.path: {path} can't be read: {one_line(error)}") from None
    for column in ("file_name", "label"):
        if column not in table:
            raise UserError(f"source.path: {path} has no column {column}, it has {', '.join(map(str, table.columns))}")
        if table[column].isna().any():
            line = int(table[column].isna().to_numpy().argmax()) + 2
            raise UserError(f"source.path: {path}: line {line} has no {column}")
    return {"image": [str(root / name) for name in table["file_name"]], "label": table["label"].tolist()}, None
