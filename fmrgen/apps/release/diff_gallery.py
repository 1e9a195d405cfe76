"""The galleries of a diff: real images that flipped, and images that were generated against the two networks."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fmrgen.apps.release.evidence import NEGATIVE
from fmrgen.report.gallery import Gallery, GalleryRow, steps_of
from fmrgen.storage.provenance import read_provenance

if TYPE_CHECKING:
    from fmrgen.apps.release.flips import Flip
    from fmrgen.apps.release.generated import Generated
    from fmrgen.apps.release.outcome import Diff

MOST_SHOWN = 300  # images of each side
_NETWORKS = ["NEW", "OLD"]
_COLUMNS = ["id", "label", "accepted_labels", "image", "original", "iterations"]
_COLUMNS += ["step_predictions", "step_losses", "step_oracle_probabilities"]


def flipped_ids(outcome: "Diff") -> set[str]:
    """Return the ids of the real images that a gallery shows."""
    flips = outcome.flips
    shown = [*flips.negatives[:MOST_SHOWN], *flips.positives[:MOST_SHOWN]]
    return {flip.id for flip in shown}


def class_names_of(outcome: "Diff") -> list[str]:
    """Return the names of the classes by the numbers that galleries have for them.

    Generated images store the network's predictions by the numbers of their split.
    """
    if outcome.generated is not None:
        return list(read_provenance(outcome.generated.folders[NEGATIVE].paths).labels)
    flips = outcome.flips
    names: set[str] = set()
    for flip in [*flips.negatives, *flips.positives]:
        names |= {flip.label, flip.old, flip.new}
    return sorted(names - {""})


def right_and_wrong(side: str) -> tuple[str, str]:
    """Return the network that is right on the images of a side, and the one that is wrong."""
    return ("OLD", "NEW") if side == NEGATIVE else ("NEW", "OLD")


def diff_galleries(outcome: "Diff", images: Mapping[str, bytes | str], names: Sequence[str]) -> list[Gallery]:
    """Return the galleries of a diff that have images.

    `images` are flipped real ones by their ids, and `names` as returned by `class_names_of`.
    """
    galleries = []
    flips = outcome.flips
    rows = []
    for kind, of_kind in (("negative", flips.negatives), ("positive", flips.positives)):
        shown = [flip for flip in of_kind[:MOST_SHOWN] if flip.id in images]
        rows += [_real_row(flip, kind, images[flip.id], names) for flip in shown]
    if rows:
        galleries.append(Gallery("images as they are", list(names), _NETWORKS, rows))
    if outcome.generated is not None:
        sides = [side for side, of_side in outcome.generated.images.items() if of_side]
        galleries += [_generated_gallery(outcome.generated, side, names) for side in sides]
    return galleries


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
    return GalleryRow(flip.id, names.index(flip.label), image, None, predictions, tags={"flip": kind}, notes=notes)


def _generated_gallery(generated: "Generated", side: str, names: Sequence[str]) -> Gallery:
    """Return the images of a side, the clearest first."""
    right, wrong = right_and_wrong(side)
    shown = generated.images[side][:MOST_SHOWN]
    ids = [image.id for image in shown]
    stored = {row["id"]: row for row in generated.folders[side].rows_of(ids, _COLUMNS)}
    rows = []
    for image in shown:
        row = stored[image.id]
        label = names.index(image.label)
        predictions: dict[str, list[int | None]] = {right: [None, label], wrong: [None, names.index(image.prediction)]}
        gallery_row = GalleryRow(
            image.id,
            label,
            row["image"]["bytes"],
            (row.get("original") or {}).get("bytes"),
            [predictions[network] for network in _NETWORKS],
            iterations=row.get("iterations"),
            notes=[f"{right} {image.before:.0%}", f"{wrong} {image.after:.0%} for the label"],
            steps=steps_of(row, {}),
        )
        rows.append(gallery_row)
    title, judge = f"generated so that {wrong} is wrong", f"the oracle with {right}"
    return Gallery(title, list(names), _NETWORKS, rows, own=wrong, judge=judge)
