"""The galleries of a diff: real images that flipped, and images that were generated against the two networks."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fmrgen.apps.release.evidence import NEGATIVE, POSITIVE
from fmrgen.report.gallery import Gallery, GalleryRow, gallery_filter, steps_of
from fmrgen.storage.provenance import read_provenance

if TYPE_CHECKING:
    from fmrgen.apps.release.flips import Flip
    from fmrgen.apps.release.generated import Generated, GeneratedImage
    from fmrgen.apps.release.outcome import Diff
    from fmrgen.storage.shards import SplitFolder

MOST_SHOWN = 300  # images of each side
_TAG = "flip"  # by which the page filters
_NETWORKS = ["NEW", "OLD"]
_REAL = "images as they are"
_GENERATED = {NEGATIVE: "generated so that NEW is wrong", POSITIVE: "generated so that OLD is wrong"}
_COLUMNS = ["id", "label", "accepted_labels", "image", "original", "iterations"]
_COLUMNS += ["step_predictions", "step_losses", "step_oracle_probabilities"]


def flipped_ids(outcome: "Diff") -> set[str]:
    """Return the ids of the real images that a gallery shows."""
    flips = outcome.flips
    shown = [*flips.negatives[:MOST_SHOWN], *flips.positives[:MOST_SHOWN]]
    return {flip.id for flip in shown}


def class_names_of(outcome: "Diff", sides: "Mapping[str, SplitFolder]") -> list[str]:
    """Return the names of the classes by the numbers that galleries have for them.

    Generated images store the network's predictions by the numbers of their split.
    """
    for folder in sides.values():
        return list(read_provenance(folder.paths).labels)
    flips = outcome.flips
    names: set[str] = set()
    for flip in [*flips.negatives, *flips.positives]:
        names |= {flip.label, flip.old, flip.new}
    return sorted(names - {""})


def right_and_wrong(side: str) -> tuple[str, str]:
    """Return the network that is right on the images of a side, and the one that is wrong."""
    return ("OLD", "NEW") if side == NEGATIVE else ("NEW", "OLD")


def filter_of(names: Sequence[str], label: str, prediction: str | None = None) -> str:
    """Return the part of a page's address that shows the flipped real images of a class, or of a confusion by NEW;
    empty if there are none.

    `names` are as returned by `class_names_of`; `prediction` is what NEW takes the class for.
    """
    if label not in names or (prediction is not None and prediction not in names):
        return ""
    number = None if prediction is None else names.index(prediction)
    return gallery_filter(label=names.index(label), prediction=number)


def diff_galleries(
    outcome: "Diff",
    images: Mapping[str, bytes | str],
    sides: "Mapping[str, SplitFolder]",
    names: Sequence[str],
) -> list[Gallery]:
    """Return the galleries of a diff that have images.

    `images` are flipped real ones by their ids, `sides` the folders of the splits `negative` and `positive`, and
    `names` as returned by `class_names_of`.
    """
    galleries = []
    rows = _real_rows(outcome, images, names)
    if rows:
        galleries.append(Gallery(_REAL, list(names), _NETWORKS, rows))
    for side, folder in sides.items():
        if outcome.generated is not None and outcome.generated.images[side]:
            galleries.append(_generated_gallery(outcome.generated, side, folder, names))
    return galleries


def _real_rows(outcome: "Diff", images: Mapping[str, bytes | str], names: Sequence[str]) -> list[GalleryRow]:
    """Return the flipped real images, negative flips first."""
    flips = outcome.flips
    rows = []
    for kind, of_kind in (("negative", flips.negatives), ("positive", flips.positives)):
        for flip in of_kind[:MOST_SHOWN]:
            if flip.id in images:
                rows.append(_real_row(flip, kind, images[flip.id], names))
    return rows


def _real_row(flip: "Flip", kind: str, image: bytes | str, names: Sequence[str]) -> GalleryRow:
    predictions: list[list[int | None]] = []
    notes = []
    for network, prediction, confidence in (
        ("NEW", flip.new, flip.new_confidence),
        ("OLD", flip.old, flip.old_confidence),
    ):
        predictions.append([None, names.index(prediction) if prediction else -1])
        share = "" if confidence is None else f" {confidence:.0%}"
        notes.append(f"{network}{share}: {prediction or 'none'}")
    return GalleryRow(flip.id, names.index(flip.label), image, None, predictions, tags={_TAG: kind}, notes=notes)


def _generated_gallery(generated: "Generated", side: str, folder: "SplitFolder", names: Sequence[str]) -> Gallery:
    """Return the images of a side, the clearest first."""
    right, wrong = right_and_wrong(side)
    shown = generated.images[side][:MOST_SHOWN]
    stored = {}
    for row in folder.rows_of([image.id for image in shown], _COLUMNS):
        stored[row["id"]] = row
    rows = []
    for image in shown:
        rows.append(_generated_row(image, stored[image.id], right, wrong, names))
    return Gallery(_GENERATED[side], list(names), _NETWORKS, rows, own=wrong, judge=f"the oracle with {right}")


def _generated_row(
    image: "GeneratedImage", stored: Mapping[str, Any], right: str, wrong: str, names: Sequence[str]
) -> GalleryRow:
    label, prediction = names.index(image.label), names.index(image.prediction)
    predictions: dict[str, list[int | None]] = {right: [None, label], wrong: [None, prediction]}
    original = stored.get("original")
    return GalleryRow(
        image.id,
        label,
        stored["image"]["bytes"],
        None if original is None else original["bytes"],
        [predictions[network] for network in _NETWORKS],
        iterations=stored.get("iterations"),
        notes=[f"{right} {image.before:.0%}", f"{wrong} {image.after:.0%} for the label"],
        steps=steps_of(stored),
    )
