"""A folder with one folder of images per class."""

from pathlib import Path

from fmrgen.errors import UserError
from fmrgen.sources.base import Source, SourceConfig
from fmrgen.sources.datasets import Config as DatasetsConfig


class Config(SourceConfig):
    """`path` holds the class folders, with images at any depth; classes and files are in the order of their names."""

    kind: str = "imagefolder"
    path: str

    def build(self, device: object = "cpu") -> Source:
        from datasets import ClassLabel, Dataset, Features, Image
        from PIL import Image as PILImage

        root = Path(self.path)
        names = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
        if not names:
            raise UserError(f"source.path: {self.path} is not a folder of class folders")
        suffixes = PILImage.registered_extensions()
        files = [
            (str(file), label)
            for label, name in enumerate(names)
            for file in sorted((root / name).rglob("*"))
            if file.suffix.lower() in suffixes and not file.is_dir()  # a link that leads nowhere is told, not lost
        ]
        columns = {"image": [file for file, _ in files], "label": [label for _, label in files]}
        dataset = Dataset.from_dict(columns, features=Features({"image": Image(), "label": ClassLabel(names=names)}))
        shared = self.model_dump(include=set(SourceConfig.model_fields) - {"kind"})
        return DatasetsConfig(path=self.path, **shared).open(dataset)

    def code_it_runs(self) -> list[str]:
        return []

    def places_it_reads(self) -> list[str]:
        return [self.path]
