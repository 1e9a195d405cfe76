"""A look at a split: its gallery, a contact sheet, and the picture of its card."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fmrgen.errors import UserError, option, unknown_message
from fmrgen.files import write_atomically
from fmrgen.labels import Labels
from fmrgen.metrics.rows import as_label
from fmrgen.report.gallery import stored_gallery
from fmrgen.report.pages import gallery_page
from fmrgen.report.plot import PlotFormat
from fmrgen.report.sheet import COLUMNS, contact_sheet
from fmrgen.results.samples import Sampler
from fmrgen.split.open import Split, open_split, reading
from fmrgen.split.rows import Reader, check_columns
from fmrgen.storage.paths import SplitPaths

_ROWS = 6  # of the contact sheet
_ON_THE_PICTURE = 12
_BATCH = 256
_OF_ANSWERS = ("id", "label", "accepted_labels", "valid", "prediction", "loss")  # columns


def show(
    split: str,
    folder: str | Path,
    *,
    gallery: int = 240,
    ids: Sequence[int] = (),
    pairs: bool = False,
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
        pairs: shows the images that the classifier takes for another class: each row of the sheet is a class and the
            answer, the most frequent pair first, and of each the images that it is surest of.
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
    confused = _confused(opened, classes) if pairs else []
    if pairs:
        ids = [wanted for of_pair in confused for wanted in of_pair][:gallery]
    labels, sampler = _sample(opened, gallery, ids, classes)
    samples = sampler.samples
    by_id = {sample.columns.get("id"): sample for sample in samples}
    if ids:
        if missing := [wanted for wanted in ids if wanted not in by_id]:
            among = " of these classes" if classes else ""
            raise UserError(f"{split}: has no row of id {missing[0]}{among}")
        samples = [by_id[wanted] for wanted in ids]
    on_sheet = [by_id.get(wanted) for of_pair in confused for wanted in (*of_pair, *[None] * columns)[:columns]]
    title = None if caption == "" else caption or opened.name
    try:
        page = gallery_page(stored_gallery(opened.name, labels.names, opened.split or "its classifier", samples))
        sheet = contact_sheet(title, labels.names, (on_sheet or samples)[: rows * columns], columns)
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


def _confused(opened: Split, classes: Sequence[str]) -> list[list[int]]:
    """The ids of rows that the split's classifier takes for another class, by class and answer."""
    check_columns(opened)
    labels = opened.labels or _observed_labels(opened)
    columns = Reader(opened, labels, Sampler(1, len(labels))).pass_over(_OF_ANSWERS)
    if "prediction" not in columns or "id" not in columns:
        raise UserError(f"{opened.name}: does not say what its classifier answers; leave out {option('pairs')}")
    label = columns["label"]
    wrong = as_label(columns["prediction"], label, columns.get("accepted_labels")) != label
    wrong &= columns["valid"].astype(bool) if "valid" in columns else True
    wrong &= np.isin(label, [labels.names.index(name) for name in classes if name in labels.names]) | (not classes)
    if not wrong.any():
        among = " of these classes" if classes else ""
        raise UserError(f"{opened.name}: its classifier takes no image{among} for another class")
    surest = np.argsort(-columns["loss"], kind="stable") if "loss" in columns else np.arange(len(label))
    of_pair: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row in surest[wrong[surest]]:
        of_pair[label[row], columns["prediction"][row]].append(int(columns["id"][row]))
    return sorted(of_pair.values(), key=len, reverse=True)


def _sample(opened: Split, rows: int, ids: Sequence[int] = (), classes: Sequence[str] = ()) -> tuple[Labels, Sampler]:
    """The split's labels, and about `rows` of its rows: of all, or of those chosen."""
    check_columns(opened)
    labels = opened.labels or _observed_labels(opened)
    if strangers := [name for name in classes if name not in labels.names]:
        raise UserError(f"{opened.name}: {unknown_message(f'class {strangers[0]}', strangers[0], labels.names)}")
    if ids and "id" not in opened.features:
        raise UserError(f"{opened.name}: has no column id")
    chosen = frozenset(map(labels.names.index, classes)) or None
    sampler = Sampler(rows, len(chosen or labels), of_labels=chosen, of_ids=frozenset(ids) or None)
    for _ in Reader(opened, labels, sampler).batches(_BATCH):
        if sampler.full:
            break
    if not sampler.samples and not ids:
        raise UserError(f"{opened.name}: contains no rows" + (" of these classes" if classes else ""))
    return labels, sampler


def _observed_labels(opened: Split) -> Labels:
    """Labels that have no names: the words in the column, or as many numbers as there are."""
    found: set[Any] = set()
    with reading(opened.name):
        for table in opened.dataset.select_columns(["label"]).with_format("arrow").iter(_BATCH):
            found.update(table["label"].unique().to_pylist())
    numbers = [label for label in found if isinstance(label, int)]
    names = map(str, range(max(numbers) + 1)) if numbers else sorted(map(str, found))
    return Labels(tuple(names))
