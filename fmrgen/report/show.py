"""A look at a split: its gallery, a contact sheet, and the picture of its card."""

from pathlib import Path
from typing import Any

from fmrgen.errors import UserError
from fmrgen.evaluation.samples import Sampler
from fmrgen.evaluation.stream import SplitRows, check_columns
from fmrgen.files import write_atomically
from fmrgen.labels import Labels
from fmrgen.report.gallery import stored_gallery
from fmrgen.report.pages import gallery_page
from fmrgen.report.sheet import contact_sheet
from fmrgen.storage.open import OpenedSplit, open_split, reading
from fmrgen.storage.paths import SplitPaths

_ON_THE_SHEET = 36  # rows
_ON_THE_PICTURE = 12
_BATCH = 256


def show(split: str, folder: str | Path, *, rows: int = 240) -> int:
    """Writes `gallery.html` and the contact sheet `sheet.png` of a split. What the classifier said is what the split
    says that it said; nothing is run.

    Args:
        split: a reference, `PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]`.
        folder: to write into.
        rows: about how many to show.

    Returns:
        How many rows are shown.

    Raises:
        UserError: there is no such split, or an image of it can't be read.
    """
    opened = open_split(split)
    labels, sampler = _sample(opened, rows)
    try:
        gallery = stored_gallery(opened.name, labels.names, opened.split or "its classifier", sampler.samples)
    except UserError as error:
        raise UserError(f"{split}: an image of it is unreadable ({error})") from None
    write_atomically(Path(folder) / "gallery.html", gallery_page(gallery).encode())
    sheet = contact_sheet(opened.name, labels.names, sampler.samples[:_ON_THE_SHEET])
    write_atomically(Path(folder) / "sheet.png", sheet)
    return len(sampler.samples)


def write_picture(paths: SplitPaths) -> None:
    """Writes the small contact sheet that the card shows of a finished split."""
    labels, sampler = _sample(open_split(f"{paths.root}:{paths.name}"), _ON_THE_PICTURE)
    write_atomically(paths.picture, contact_sheet(paths.name, labels.names, sampler.samples[:_ON_THE_PICTURE]))


def _sample(opened: OpenedSplit, rows: int) -> tuple[Labels, Sampler]:
    """The split's labels, and about `rows` of its rows."""
    check_columns(opened)
    labels = opened.labels or _observed_labels(opened)
    sampler = Sampler(rows, len(labels))
    for _ in SplitRows(opened, labels, sampler).batches(_BATCH):
        if sampler.full:
            break
    if not sampler.samples:
        raise UserError(f"{opened.name}: contains no rows")
    return labels, sampler


def _observed_labels(opened: OpenedSplit) -> Labels:
    """Labels that have no names: the words in the column, or as many numbers as there are."""
    found: set[Any] = set()
    with reading(opened.name):
        for table in opened.dataset.select_columns(["label"]).with_format("arrow").iter(_BATCH):
            found.update(table["label"].unique().to_pylist())
    numbers = [label for label in found if isinstance(label, int)]
    names = map(str, range(max(numbers) + 1)) if numbers else sorted(map(str, found))
    return Labels(tuple(names))
