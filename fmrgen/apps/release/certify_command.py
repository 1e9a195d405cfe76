"""`fmrgen diff --claim`: is a failure of OLD fixed in NEW?"""

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmrgen.apps.release.networks import classifier_of, name_of, several
from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import UserError

if TYPE_CHECKING:
    from fmrgen.apps.release.certificate import Certificate
    from fmrgen.apps.release.predictions import Predictions
    from fmrgen.recipe.job import Recipe
    from fmrgen.report.report import Report

STATUS = {"fixed": 0, "fixed but broke": 1, "broke": 1, "not fixed": 1, "invalid": 2, "undecided": 3}


def certified(
    claim: str,
    old: str,
    new: str,
    *,
    controls: str | None,
    images: str | None,
    shifts: Sequence[str],
    trained_on: Sequence[str],
    margin: float | None,
    recipe: "Recipe | None",
    output: Path,
    network: str | None,
    trust: bool,
    quiet: bool,
) -> "tuple[Certificate, Report]":
    """Return the certificate of a claim, and its report.

    Args:
        claim: what fails, as of `certify`.
        old: a classifier, or a file of its predictions.
        new: likewise.
        controls: the same, parted by commas; by default they are trained where OLD and NEW are folders of `train`.
        images: labelled real images, for classifiers.
        shifts: images of other places; of files of predictions `OLD_FILE,NEW_FILE` each.
        trained_on: what the networks were trained on.
        margin: points that NEW may lose elsewhere; None for the usual ones.
        recipe: to make images against OLD and NEW; None for no such images.
        output: the folder of what is made and trained.
        network: that of files of weights.
        trust: let recipes of folders and splits run the code and read the places that they name.
        quiet: whether to print no progress.
    """
    from fmrgen.apps.release.certificate_report import certificate_report
    from fmrgen.apps.release.certify import MARGIN, certify
    from fmrgen.apps.release.claim import read_claim
    from fmrgen.apps.release.predictions import read_predictions
    from fmrgen.cli import display

    claimed = read_claim(claim)
    of_controls = [] if controls is None else several(controls)
    named = {name_of(place): place for place in of_controls}
    if len(named) < len(of_controls):
        raise UserError(f"--controls: two of {controls} have one name; rename one")
    places = {"OLD": old, "NEW": new, **named}
    networks: dict[str, Any]
    all_shifts: dict[str, Any]
    if _are_files(places.values()):
        if images is not None or recipe is not None:
            raise UserError("--images: the files have predictions; leave it and the recipe out, or name classifiers")
        networks = {name: read_predictions(place) for name, place in places.items()}
        all_shifts = _shifts_of_files(shifts)
    else:
        if images is None:
            raise UserError("--claim: a repair is shown on real images: name labelled ones with --images")
        display.quiet_libraries()
        networks = {name: _classifier(place, network) for name, place in places.items()}
        all_shifts = {name_of(place): place for place in shifts}
    from fmrgen.progress import terminal as progress

    ask = partial(
        certify,
        claimed,
        networks.pop("OLD"),
        networks.pop("NEW"),
        images=images,
        shifts=all_shifts,
        trained_on=trained_on,
        margin=MARGIN if margin is None else margin,
        trust=trust,
    )
    # What can't be asked, or is not fixed anyway, is reported before anything is trained.
    if not networks and _is_trained(old) and _is_trained(new) and ask().verdict not in ("invalid", "not fixed"):
        trained = _trained_controls(old, new, output / "controls", trust=trust, quiet=quiet)
        places |= trained
        networks = dict(trained)
    certificate = ask(
        controls=networks,
        recipe=recipe,
        output=output,
        job_progress=lambda split_recipe: progress.job_progress(split_recipe, not quiet and is_first_process()),
        on_note=display.print_note,
    )
    shown = _images_of(certificate, claimed.folder or images)
    title = f"Fixed? {certificate.claim}: {name_of(old)} → {name_of(new)}"
    inputs = {"claim": claim, **places}
    if images is not None:
        inputs |= {"images": images} | {f"another place, {name_of(place)}": place for place in shifts}
    return certificate, certificate_report(certificate, title, inputs, shown)


def _are_files(places: Collection[str]) -> bool:
    """Return whether all networks are files of predictions. Raises UserError if some are and others are not."""
    from fmrgen.apps.release.predictions import is_file_of_predictions

    are_files = [is_file_of_predictions(place) for place in places]
    if any(are_files) and not all(are_files):
        raise UserError("diff: some of the networks are files of predictions and others are not; give all of one kind")
    return all(are_files)


def _images_of(certificate: "Certificate", images: str | None) -> dict[str, bytes | str]:
    """Return the images that a certificate lists, by what they are called; of predictions none."""
    if images is None or not is_first_process():
        return {}
    from fmrgen.apps.release.on_images import stored_images

    return stored_images(images, {flip.id for flip in [*certificate.mended, *certificate.left]})


def _shifts_of_files(pairs: Sequence[str]) -> "dict[str, list[Predictions]]":
    """Return the predictions of OLD and NEW on images of other places, by the name of the second file."""
    from fmrgen.apps.release.predictions import read_predictions

    shifts = {}
    for pair in pairs:
        files = pair.split(",")
        if len(files) != 2:
            raise UserError(f"--shift: {pair} is not two files of predictions; write OLD_FILE,NEW_FILE")
        shifts[name_of(files[1])] = [read_predictions(file) for file in files]
    return shifts


def _classifier(place: str, network: str | None) -> Any:
    """Return a classifier; a folder of `fmrgen train` as it is named, for it knows what it was trained on."""
    return place if _is_trained(place) else classifier_of(place, network)[1]


def _is_trained(place: str) -> bool:
    """Return whether a place is a folder of `fmrgen train`."""
    from fmrgen.apps.training.checkpoint import RECORD

    return (Path(place) / RECORD).is_file()


def _trained_controls(old: str, new: str, output: Path, *, trust: bool, quiet: bool) -> dict[str, str]:
    from fmrgen.apps.release.retraining import train_controls
    from fmrgen.cli import display
    from fmrgen.progress import terminal as progress

    is_first = is_first_process()

    def on_note(line: str) -> None:
        if is_first:
            display.print_note(line)

    with progress.step_progress("control", not quiet and is_first, progress.JobLog(None)) as on_step:
        folders = train_controls(old, new, output, trust=trust, progress=on_step, on_note=on_note)
    return {name: str(folder) for name, folder in folders.items()}
