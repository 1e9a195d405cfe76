"""The command `diff`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fmrgen.cli import options
from fmrgen.cli.command import Command
from fmrgen.distributed.rank import is_first_process, launched_processes
from fmrgen.errors import UserError

if TYPE_CHECKING:
    from fmrgen.apps.release.outcome import Diff
    from fmrgen.report.report import Report

Predictor = Annotated[str, Parameter(metavar="C|FILE")]
Junit = Annotated[options.File, Parameter(help="Write the outcome as JUnit XML.")]
Summary = Annotated[options.File, Parameter(help="Append the outcome as Markdown, as for $GITHUB_STEP_SUMMARY.")]


def diff(
    recipe: options.OwnRecipe = None,
    /,
    *overrides: options.Overrides,
    old: Predictor,
    new: Predictor,
    network: options.Network = None,
    images: str | None = None,
    margin: Annotated[float, Parameter(metavar="POINTS")] = 0.0,
    strict: bool = False,
    by: options.By = (),
    output: options.Output = Path("diff"),
    limit: options.Limit | None = None,
    junit: Junit | None = None,
    summary: Summary | None = None,
    processes: options.Processes = 1,
    every: options.All = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Compare a new classifier with the old one: negative flips and a verdict.

    Takes two files of predictions, or two classifiers and labelled --images or, without --images, a recipe. That adds
    randomly transformed originals that the oracle accepts, and images generated against the two, which show how NEW
    fails.
    Exits with 1 if NEW is worse on any kind of images, with 2 if a classifier does not work, else with 0.

    Example: fmrgen diff --old last.csv --new next.csv --margin 1

    Args:
        old: The classifier in use, or its predictions: a parquet, CSV or JSON lines file with id, label and
            prediction, or an evaluation.json. Without a recipe, A,B,… are several trainings of it.
        new: The candidate to replace it, or its predictions.
        images: Labelled images: a folder with a folder for each class, a dataset or split, or a source section.
        margin: Points of accuracy that NEW may lose.
        strict: Exit with 1 unless NEW is shown to be no worse.
        by: Group images by this column, or by ranges of it: width:30,60. Repeat for more.
        output: The dataset folder; the page is DIR/diff.
    """
    _check_files(junit, summary)
    from fmrgen.apps.release.diff import diff_classifiers
    from fmrgen.apps.release.predictions import is_file_of_predictions

    places = [old] if "{" in old else old.split(",")  # a section has commas of its own
    places.append(new)
    has_files = any(map(is_file_of_predictions, places))
    changes = list(overrides)
    if images is None and not has_files and (recipe is not None or Path(options.OWN_RECIPE).is_file()):
        recipe, changes = options.own_recipe(recipe, overrides)
    compared: Any = images
    if recipe is None:
        if limit is not None:
            raise UserError("--limit: limits what a recipe generates; omit it for real images")
        outcome = _on_real_images(places, images, margin, by, network, quiet=quiet)
        title = f"{_name_of(old)} → {_name_of(new)}"
    else:
        for option, value in {"--images": images, "--by": by}.items():
            if value:
                raise UserError(f"{option} is for a diff on real images: leave out the recipe {recipe}")
        loaded = options.load_recipe(recipe, changes, limit)
        from fmrgen.cli import display
        from fmrgen.progress.bars import progress_shown
        from fmrgen.recipe.job import the_classifier

        old_name, old_section = the_classifier(old, network)
        new_name, new_section = the_classifier(new, network)
        display.quiet_libraries(quiet)
        with progress_shown(not quiet):
            outcome = diff_classifiers(old_section, new_section, recipe=loaded, output=output, margin=margin)
        title, compared = f"{old_name} → {new_name} on {recipe}", loaded.source.whole()
    from fmrgen.apps.release.diff_report import diff_report

    shown: dict[str, bytes | str] = {}
    if compared is not None and is_first_process():
        from fmrgen.apps.release.diff_gallery import flipped_ids
        from fmrgen.apps.release.on_images import stored_images

        shown = stored_images(compared, flipped_ids(outcome))
    report = diff_report(outcome, title, {"OLD": old, "NEW": new}, images=shown, strict=strict)
    _deliver(report, output / "diff", junit, summary, as_json=as_json, quiet=quiet, every=every or bool(by))
    return {"worse": 1, "invalid": 2}.get(outcome.verdict, int(strict and outcome.verdict == "undecided"))


def _on_real_images(
    places: Sequence[str], images: str | None, margin: float, by: Sequence[str], network: str | None, *, quiet: bool
) -> "Diff":
    """Return the diff of files of predictions, or of classifiers on images: OLD, or trainings of it, and last NEW."""
    from fmrgen.apps.release.diff import diff as diff_of_files
    from fmrgen.apps.release.diff import diff_classifiers
    from fmrgen.apps.release.predictions import is_file_of_predictions, read_predictions

    if places[-1] in places[:-1]:
        raise UserError(f"diff: {places[-1]} is both old and new; name two")
    files = [place for place in places if is_file_of_predictions(place)]
    if 0 < len(files) < len(places):
        mixed = ", ".join(places)
        raise UserError(f"diff: some of {mixed} are files of predictions and others are not; give all of one kind")
    if files and images is not None:
        raise UserError("--images: applies to classifiers; omit it for files of predictions")
    if files:
        *of_old, of_new = map(read_predictions, files)
        return diff_of_files(of_old, of_new, margin=margin, by=by)
    if images is None:
        raise UserError("diff: name a recipe, or two files of predictions, or pass --images with labelled images")
    from fmrgen.cli import display
    from fmrgen.recipe.job import the_classifier

    display.quiet_libraries(quiet)
    *networks, network_of_new = (the_classifier(place, network)[1] for place in places)
    return diff_classifiers(list(networks), network_of_new, images, margin=margin, by=by)


def _deliver(
    report: "Report", folder: Path, junit: Path | None, summary: Path | None, *, as_json: bool, quiet: bool, every: bool
) -> None:
    """Print a report and write its files, on the first process of a launch."""
    from fmrgen.apps.release.diff_report import to_comment, to_junit
    from fmrgen.cli import display
    from fmrgen.files import write_atomically
    from fmrgen.report.markdown import to_markdown

    if is_first_process():
        if junit is not None:
            write_atomically(junit, to_junit(report))
        if summary is not None:
            with summary.open("a", encoding="utf-8") as file:
                file.write(to_markdown(report, level=3))
        display.deliver(report, folder, as_json=as_json, quiet=quiet, every=every)
        write_atomically(folder / "comment.md", to_comment(report).encode())
    if launched_processes() > 1:  # a launcher ends all processes as soon as one exits with 1
        from fmrgen.distributed.launch import Processes

        Processes().gather(None)


def _name_of(place: str) -> str:
    """Return how a network is called in a title."""
    name, brace, _ = place.partition("{")
    return (name.rstrip("= ") or "a section") if brace else Path(place.partition("=")[0]).name


def _check_files(*paths: Path | None) -> None:
    """Raise UserError for a path that no file can be written to."""
    for path in paths:
        if path is not None and path.is_dir():
            raise UserError(f"{path}: is a folder; name a file")
        if path is not None and not path.parent.is_dir():
            raise UserError(f"{path}: there is no folder {path.parent}")


COMMANDS = [Command("diff", "Compare", diff)]
