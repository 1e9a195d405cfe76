"""A folder with one folder of images per class."""

from pathlib import Path

from fmrgen.errors import UserError, one_line
from fmrgen.sources.base import Source, SourceConfig
from fmrgen.sources.datasets import Config as DatasetsConfig


class Config(SourceConfig):
    """`path` holds the class folders; classes are in the order of their names, ids in the order of the files."""

    kind: str = "imagefolder"
    path: str

    def build(self, device: object = "cpu") -> Source:
        from datasets import load_dataset

        root = Path(self.path)
        if not root.is_dir() or not any(entry.is_dir() for entry in root.iterdir()):
            raise UserError(f"source.path: {self.path} is no folder of class folders")
        files = {"images": str(root / "*" / "**")}
        try:
            dataset = load_dataset("imagefolder", data_files=files, split="images", drop_labels=False)
        except (OSError, ValueError) as error:
            raise UserError(f"source.path: {self.path} can't be read: {one_line(error)}") from None
        shared = self.model_dump(include=set(SourceConfig.model_fields) - {"kind"})
        return DatasetsConfig(path=self.path, **shared).open(dataset)
