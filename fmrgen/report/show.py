"""A look at a split: its gallery, a contact sheet, and the picture of its card."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fmrgen.errors import UserError, unknown_message
from fmrgen.evaluation.samples import Sampler
from fmrgen.evaluation.stream import SplitRows, check_columns
from fmrgen.files import write_atomically
from fmrgen.labels import Labels
from fmrgen.report.gallery import stored_gallery
from fmrgen.report.pages import gallery_page
from fmrgen.report.plot import PlotFormat
from fmrgen.report.sheet import COLUMNS, contact_sheet
from fmrgen.storage.open import OpenedSplit, open_split, reading
from fmrgen.storage.paths import SplitPaths

_ROWS = 6  # of the contact sheet
_ON_THE_PICTURE = 12
_BATCH = 256


def show(
    split: str,
    folder: str | Path,
    *,
    gallery: int = 240,
    ids: Sequence[int] = (),
    classes: Sequence[str] = (),
    rows: int = _ROWS,
    columns: int = COLUMNS,
    caption: str | None = None,
    file_format: PlotFormat = "png",
) -> list[Path]:
    """Writes `gallery.html` and a contact sheet, `sheet.png`, of a split. What the classifier said is what the split
    says that it said; nothing is run.

    Args:
        split: a reference, `PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]`.
        folder: to write into.
        gallery: about how many rows the page shows.
        ids: the rows to show, in the order of the sheet; by default some of each class.
        classes: the names of the classes to show.
        rows: how many pairs of images the sheet has down.
        columns: and across.
        caption: above the sheet; by default the split's name, an empty one leaves it out.
        file_format: of the sheet; PDF and SVG have their fonts inside.

    Returns:
        The files.

    Raises:
        UserError: there is no such split, id or class, or an image of it can't be read.
    """
    opened = open_split(split)
    labels, sampler = _sample(opened, gallery, ids, classes)
    samples = sampler.samples
    if ids:
        by_id = {sample.columns.get("id"): sample for sample in samples}
        if missing := [wanted for wanted in ids if wanted not in by_id]:
            among = " of these classes" if classes else ""
            raise UserError(f"{split}: has no row of id {missing[0]}{among}")
        samples = [by_id[wanted] for wanted in ids]
    title = None if caption == "" else caption or opened.name
    try:
        page = gallery_page(stored_gallery(opened.name, labels.names, opened.split or "its classifier", samples))
        sheet = contact_sheet(title, labels.names, samples[: rows * columns], columns)
    except UserError as error:
        raise UserError(f"{split}: one of its images is unreadable ({error})") from None
    files = [Path(folder) / "gallery.html", Path(folder) / f"sheet.{file_format}"]
    write_atomically(files[0], page.encode())
    sheet.save(files[1])
    return files


def write_picture(paths: SplitPaths) -> None:
    """Writes the small contact sheet that the card shows of a finished split."""
    labels, sampler = _sample(open_split(f"{paths.root}:{paths.name}"), _ON_THE_PICTURE)
    contact_sheet(paths.name, labels.names, sampler.samples[:_ON_THE_PICTURE]).save(paths.picture)


def _sample(
    opened: OpenedSplit, rows: int, ids: Sequence[int] = (), classes: Sequence[str] = ()
) -> tuple[Labels, Sampler]:
    """The split's labels, and about `rows` of its rows: of all, or of those chosen."""
    check_columns(opened)
    labels = opened.labels or _observed_labels(opened)
    if strangers := [name for name in classes if name not in labels.names]:
        raise UserError(f"{opened.name}: {unknown_message(f'class {strangers[0]}', strangers[0], labels.names)}")
    if ids and "id" not in opened.features:
        raise UserError(f"{opened.name}: has no column id")
    chosen = frozenset(map(labels.names.index, classes)) or None
    sampler = Sampler(rows, len(chosen or labels), of_labels=chosen, of_ids=frozenset(ids) or None)
    for _ in SplitRows(opened, labels, sampler).batches(_BATCH):
        if sampler.full:
            break
    if not sampler.samples and not ids:
        raise UserError(f"{opened.name}: contains no rows" + (" of these classes" if classes else ""))
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
