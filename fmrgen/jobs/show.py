"""Show a split: its gallery, a contact sheet, and the picture of its card."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from fmrgen.distributed.rank import note
from fmrgen.errors import UserError, option, unknown_message
from fmrgen.files import write_atomically
from fmrgen.jobs.steps import decode_steps
from fmrgen.labels import Labels
from fmrgen.report.gallery import stored_gallery
from fmrgen.report.pages import gallery_page
from fmrgen.report.plot import PlotFormat
from fmrgen.report.sheet import COLUMNS, contact_sheet
from fmrgen.results.samples import Sample
from fmrgen.split.open import open_split
from fmrgen.split.rows import Split
from fmrgen.split.sampler import Sampler
from fmrgen.storage.paths import SplitPaths

_ON_THE_PICTURE = 12  # pairs of images


def show(
    split: str,
    folder: str | Path,
    *,
    gallery: int | None = None,
    ids: Sequence[int] = (),
    pairs: bool = False,
    classes: Sequence[str] = (),
    rows: int = 6,
    columns: int = COLUMNS,
    caption: str | None = None,
    file_format: PlotFormat = "png",
    steps: bool = False,
    trust: bool = False,
) -> list[Path]:
    """Write `gallery.html` and a contact sheet, `sheet.png`, of a split, with the predictions that the split stores.

    Without `steps` no model is run.

    Args:
        split: a reference, `PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]`.
        folder: to write into.
        gallery: about how many rows the page shows; by default 1,000, and with `steps` 60.
        ids: the rows to show, in the order of the sheet; by default some of each class.
        pairs: show misclassified images: each row of the sheet is a pair of true and predicted class, the most
            frequent pair first, its images by descending loss.
        classes: the names of the classes to show.
        rows: how many pairs of images the sheet has down.
        columns: and across.
        caption: above the sheet; by default the split's name, an empty one leaves it out.
        file_format: of the sheet; PDF and SVG have their fonts inside.
        steps: repeat the steps of the shown rows, and show up to 12 images of each between its original and its
            stored image. Takes as long as generating the rows.
        trust: with `steps`, let the split's recipe, which may be a stranger's, run the code and read the places that it
            names.

    Returns:
        The files.

    Raises:
        UserError: there is no such split, id or class, an image of it can't be read, or its steps can't be repeated.
    """
    if gallery is None:
        gallery = 60 if steps else 1000
    opened = open_split(split)
    ids_by_pair: list[list[int]] = []
    if pairs:
        ids_by_pair = _confused_ids(opened, classes)
        ids = list(chain.from_iterable(ids_by_pair))[:gallery]
    labels, sampler = _sample(opened, gallery, ids, classes)
    samples = sampler.samples
    by_id = {sample.columns.get("id"): sample for sample in samples}
    if missing_ids := [row_id for row_id in ids if row_id not in by_id]:
        raise UserError(f"{split}: has no row of id {missing_ids[0]}{_of_these(classes)}")
    if ids:
        samples = [by_id[row_id] for row_id in ids]
    on_sheet: list[Sample | None] = [] if pairs else list(samples)
    for pair_ids in ids_by_pair:  # a row of the sheet for each pair
        of_pair = [by_id.get(row_id) for row_id in pair_ids[:columns]]
        on_sheet += of_pair + [None] * (columns - len(of_pair))
    step_images: dict[int, dict[int, bytes]] = {}
    if steps:
        step_images = decode_steps(opened, samples, trust=trust)
        missing = len({sample.columns["id"] for sample in samples}) - len(step_images)
        if missing:
            note(f"{missing} of {len(samples)} rows take other steps here than the split says, and are shown without")
    try:
        own, total = opened.split or "its classifier", opened.rows or 0
        page = gallery_page(stored_gallery(opened.name, labels.names, own, samples, step_images, total))
        title = opened.name if caption is None else caption or None
        sheet = contact_sheet(title, labels.names, on_sheet[: rows * columns], columns)
    except UserError as error:
        raise UserError(f"{split}: one of its images is unreadable ({error})") from None
    files = [Path(folder) / "gallery.html", Path(folder) / f"sheet.{file_format}"]
    write_atomically(files[0], page.encode())
    sheet.save(files[1])
    return files


def write_picture(paths: SplitPaths) -> None:
    """Write the small contact sheet of a finished split that the card shows, with images of every class, as far as
    they fit."""
    opened = open_split(f"{paths.root}:{paths.name}", name=paths.name)
    labels, sampler = _sample(opened, _ON_THE_PICTURE)
    contact_sheet(opened.name, labels.names, sampler.samples[:_ON_THE_PICTURE]).save(paths.picture)


def _confused_ids(opened: Split, classes: Sequence[str]) -> list[list[int]]:
    """Return the ids of rows that the split's classifier takes for another class: a list for each pair of class and
    prediction, the longest first."""
    opened.check_columns()
    labels = opened.labels or opened.observed_labels()
    columns = opened.columns(("id", "label", "accepted_labels", "valid", "prediction", "loss"), labels)
    if "prediction" not in columns or "id" not in columns:
        raise UserError(f"{opened.name}: does not say what its classifier predicts; leave out {option('pairs')}")
    label = columns["label"]
    wrong = columns["prediction"] != label
    wrong &= columns.get("valid", np.ones(len(label))).astype(bool)
    if classes:
        wrong &= np.isin(label, [labels.names.index(name) for name in classes if name in labels.names])
    if not wrong.any():
        raise UserError(f"{opened.name}: its classifier takes no image{_of_these(classes)} for another class")
    order = np.argsort(-columns.get("loss", np.zeros(len(label))), kind="stable")
    ids_by_pair: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row in order[wrong[order]]:
        ids_by_pair[label[row], columns["prediction"][row]].append(int(columns["id"][row]))
    return sorted(ids_by_pair.values(), key=len, reverse=True)


def _of_these(classes: Sequence[str]) -> str:
    """Return the part of a message that says that only some classes were searched."""
    return " of these classes" if classes else ""


def _sample(opened: Split, rows: int, ids: Sequence[int] = (), classes: Sequence[str] = ()) -> tuple[Labels, Sampler]:
    """Return the split's labels, and about `rows` of its rows: of all, or of the chosen ids or classes."""
    opened.check_columns()
    labels = opened.labels or opened.observed_labels()
    for name in classes:
        if name not in labels.names:
            raise UserError(f"{opened.name}: {unknown_message(f'class {name}', name, labels.names)}")
    if ids and "id" not in opened.features:
        raise UserError(f"{opened.name}: has no column id")
    chosen = frozenset(map(labels.names.index, classes)) or None
    sampler = Sampler(rows, len(chosen or labels), of_labels=chosen, of_ids=frozenset(ids) or None)
    for part in opened.parts(256, labels, opened.image_columns):
        sampler.add(part, opened.image_of)
        if sampler.full:
            break
    if not sampler.samples and not ids:
        raise UserError(f"{opened.name}: contains no rows{_of_these(classes)}")
    return labels, sampler
