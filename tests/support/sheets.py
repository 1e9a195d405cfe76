"""Sheets of images, filled in as a person would."""

import csv
from pathlib import Path

from fmrgen.apps.judging.sheet import _stored
from fmrgen.split.open import open_split


def fill(split, sheet, file, label_of):
    """Write a copy of a sheet's CSV with a label for each image, which `label_of` a `Shown` says; '' is none."""
    shown = {name: entry for entry, name, _ in _stored(open_split(str(split)))}
    with (Path(sheet) / "sheet.csv").open() as opened, Path(file).open("w", newline="") as written:
        table = csv.writer(written)
        table.writerow(["file", "label"])
        for row in csv.DictReader(opened):
            table.writerow([row["file"], label_of(shown[Path(row["file"]).name])])
