"""A sheet of a split's images for people: a folder of files and a CSV that any annotation tool reads and fills."""

import csv
import hashlib
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from fmrgen.errors import UserError, one_line
from fmrgen.files import check_writable, write_atomically
from fmrgen.image_files import open_rgb, png_bytes
from fmrgen.publish.card import renew_card
from fmrgen.split.judgements import TABLE, UNSURE, JudgeFile, JudgementsFolder, to_parquet
from fmrgen.split.open import open_own_split
from fmrgen.split.rows import Split, reading
from fmrgen.storage.provenance import now
from fmrgen.storage.store import Store

Kind = Literal["image", "original"]

_UNSURE = "unsure"
_KINDS: tuple[Kind, ...] = ("image", "original")
_DIGITS = 16  # of an image's sha256, in the name of its file


@dataclass(frozen=True)
class Shown:
    """An image that a person is shown, of a row: the perturbed `image`, or as a control its `original`."""

    id: int
    which: Kind


def draw(columns: Mapping[str, np.ndarray], count: int, seed: int) -> list[Shown]:
    """Return a random sample of a split's valid rows, and originals: a tenth of so many, 30 at least.

    The columns are `id` and `valid` of all rows, [N] each. If there are fewer than `count` valid rows, all are drawn.
    Originals show how often a person errs. Raises UserError if no row is valid.
    """
    ids = columns["id"][columns["valid"]]
    if not len(ids):
        raise UserError("no row of the split is valid, so there is nothing to judge")
    random = np.random.default_rng(seed)
    images = random.choice(ids, min(count, len(ids)), replace=False)
    controls = random.choice(ids, min(max(round(0.1 * len(images)), 30), len(ids)), replace=False)
    shown = [Shown(example_id, "image") for example_id in images.tolist()]
    return shown + [Shown(example_id, "original") for example_id in controls.tolist()]


def write_sheet(split: str, folder: Path, *, count: int = 300, seed: int = 0) -> int:
    """Write a random sample of a split's perturbed images, with originals as controls, and `sheet.csv`.

    The names of files, and so their order, are digests: they tell neither label nor kind. `classes.txt` has the names
    of the classes. Fill the column `label` of a copy of the CSV for each person.

    Returns the number of images; originals come on top of `count`. Raises UserError if the split can't be read, has no
    valid row or no originals.
    """
    opened, provenance = open_own_split(split)
    if "original" not in opened.features:
        raise UserError(f"{split}: has no originals (output.keep_original), which show how often a person errs")
    check_writable(folder)
    with reading(split):
        wanted = set(draw(opened.columns(("id", "valid")), count, seed))
        names = []
        for _, name, content in _stored(opened, wanted):
            names.append(name)
            write_atomically(folder / "images" / name, _enlarged(content))
    lines = ["file,label", *(f"images/{name}," for name in sorted(names)), ""]
    write_atomically(folder / "sheet.csv", "\n".join(lines).encode())
    write_atomically(folder / "classes.txt", "\n".join([*provenance.labels, _UNSURE, ""]).encode())
    return len(names)


def read_sheet(split: str, name: str, file: Path, *, output: Path) -> Path:
    """Store what a person sees beside the split: the labels in a copy of `sheet.csv`, the names of classes.

    Rows without a label are left out, and `unsure` is a label. Columns other than `file` and `label` are ignored. The
    person's earlier labels are replaced. For a split on the Hub, labels are stored in `judgements/CONFIG/SPLIT/` of the
    folder `output`.

    Returns the table's file. Raises UserError if a label is no class, or a file is no image of the split.
    """
    JudgementsFolder.check_name(name)
    opened, provenance = open_own_split(split)
    labels = {label: number for number, label in enumerate(provenance.labels)} | {_UNSURE: UNSURE}
    named = _read_labels(file, labels)
    rows: list[dict[str, Any]] = []
    with reading(split):
        for shown, image, content in _stored(opened):
            if image in named:
                row = {"judge": name, "id": shown.id, "which": shown.which, "label": named[image], "when": now()}
                rows.append({**row, "image_sha256": hashlib.sha256(content).hexdigest()})
    unknown = named.keys() - {f"{row['image_sha256'][:_DIGITS]}.png" for row in rows}
    if unknown:
        raise UserError(
            f"{file}: {min(unknown)} is no image of {split}; name the split that the sheet was written from"
        )
    table = pa.Table.from_pylist(rows, schema=TABLE)
    content = to_parquet(table)
    paths = opened.paths if opened.revision is None else opened.paths.at(output)
    folder = JudgementsFolder(paths)
    about = JudgeFile.of(name, "person", None, None, paths.name, provenance, content)
    folder.write(about, content)
    if opened.revision is None:
        renew_card(Store(paths.root))
    return folder.table_path(name)


def _read_labels(file: Path, labels: dict[str, int]) -> dict[str, int]:
    """Return the label of each file that has one, by the file's name."""
    named = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            for number, row in enumerate(csv.DictReader(opened), start=2):
                if "file" not in row or "label" not in row:
                    raise UserError(f"{file}: needs columns file and label, as sheet.csv has them")
                label = (row["label"] or "").strip()
                if label and label not in labels:
                    raise UserError(f"{file}: line {number}: {label!r:.60} is no class; see classes.txt")
                if label:
                    named[Path(row["file"]).name] = labels[label]
    except OSError as error:
        raise UserError(f"{file}: can't be read: {error.strerror}") from None
    except (UnicodeError, csv.Error) as error:
        raise UserError(f"{file}: can't be read as CSV: {one_line(error)}") from None
    if not named:
        raise UserError(f"{file}: has no label; fill its column label with the names in classes.txt")
    return named


def _stored(opened: Split, wanted: Container[Shown] | None = None) -> Iterator[tuple[Shown, str, bytes]]:
    """Yield the stored images of a split, all or those wanted, the names of their files in a sheet, and their bytes."""
    for row in chain.from_iterable(table.to_pylist() for table in opened.tables(64, ("id", *_KINDS))):
        for which in _KINDS:
            shown = Shown(row["id"], which)
            if wanted is not None and shown not in wanted:
                continue
            opened.decode(row[which], f"id {row['id']}: its {which}")  # raises UserError unless it is an image
            stored = opened.image_of(row[which])
            content = stored if isinstance(stored, bytes) else Path(stored).read_bytes()
            yield shown, f"{hashlib.sha256(content).hexdigest()[:_DIGITS]}.png", content


def _enlarged(content: bytes) -> bytes:
    """Return an image as a PNG file, a small one so many times as large that its side has 128 pixels."""
    image = open_rgb(content)
    factor = -(-128 // min(image.size))
    size = (image.width * factor, image.height * factor)
    return png_bytes(np.asarray(image.resize(size, Image.Resampling.NEAREST)))
