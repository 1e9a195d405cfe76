"""The commands `diff` and `gate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fmrgen.cli import options
from fmrgen.cli.command import Command
from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import UserError

if TYPE_CHECKING:
    from fmrgen.apps.release.flips import Flips
    from fmrgen.report.report import Report
    from fmrgen.storage.paths import SplitPaths

_GATE_STATUS = {"pass": 0, "fail": 1, "invalid": 2, "undecided": 3}
Classifier = Annotated[str, Parameter(metavar="C")]
Answers = Annotated[str, Parameter(metavar="C|FILE")]
Junit = Annotated[options.File, Parameter(help="Write the outcome as JUnit XML.")]
Summary = Annotated[options.File, Parameter(help="Append the outcome as Markdown, as for $GITHUB_STEP_SUMMARY.")]


def diff(
    recipe: options.Recipe | None = None,
    /,
    *overrides: options.Overrides,
    old: Answers,
    new: Answers,
    images: str | None = None,
    margin: Annotated[float | None, Parameter(metavar="POINTS")] = None,
    by: Annotated[Sequence[str], Parameter(metavar="COLUMN")] = (),
    output: options.Output = Path("diff"),
    limit: options.Limit | None = None,
    until_decided: bool = False,
    until: Annotated[str | None, Parameter(show=False)] = None,
    seed: options.Seed = 0,
    explained: Annotated[bool, Parameter(name="--explain")] = False,
    junit: Junit | None = None,
    summary: Summary | None = None,
    processes: options.Processes = 1,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Find what a new classifier broke, and what it fixed.

    Without a recipe: negative and positive flips on real images, by two files of predictions, or by two classifiers and
    --images. With one: each image is moved to where the old one is right and the new one wrong, and the reverse, while
    the oracle sees its class; two splits to keep, and a page. Exits with 1 if more broke than was fixed, or if
    --explain finds a change of the originals under which NEW is worse; else with 0.

    Args:
        old: The classifier that is in use, or its predictions: a parquet, CSV or JSON lines file with id, label and
            prediction. Without a recipe A,B,… are trainings of one.
        new: The one that is to take its place, or its predictions.
        images: Without a recipe: labelled images: a folder with a folder for each class, or a source section.
        margin: Without a recipe: points of accuracy that the new one may lose (1).
        by: Without a recipe: group the images by this column. Repeat for more.
        output: The dataset folder; the page is DIR/diff.
        until_decided: Stop as soon as a sequential test is sure; else test all rows exactly.
        seed: Seed of the order of the rows, for --until-decided.
        explained: Compare the two on changed originals too, and say where NEW fails.
    """
    if recipe is None:
        _check_files(junit, summary)
        flipped = _flips(old, new, images, 1.0 if margin is None else margin, by, show=not quiet)
        return _deliver_flips(flipped, old, new, output, junit, summary, as_json=as_json, quiet=quiet)
    for option, is_set in (("--images", images), ("--margin", margin), ("--by", by)):
        if is_set:
            raise UserError(f"{option} is for a diff on real images: leave out the recipe {recipe}")

    from fmrgen.recipe.job import parse_classifier

    if until not in (None, "decided"):  # `--until decided` is how the flag was spelt before
        raise UserError("--until: use --until-decided, which takes no value, or leave it out to test all rows")
    old_name, old_section = parse_classifier(old)
    new_name, new_section = parse_classifier(new)
    loaded = options.load_recipe(recipe, overrides, limit)
    _check_files(junit, summary)

    from fmrgen.apps.release.diff import BROKE, split_folders
    from fmrgen.apps.release.diff import diff as run
    from fmrgen.apps.release.diff_report import diff_report
    from fmrgen.cli import display
    from fmrgen.distributed.launch import Processes
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    is_first = is_first_process()
    show = not quiet and is_first
    outcome = run(
        loaded,
        output,
        old=old_section,
        new=new_section,
        until_decided=until_decided or until is not None,
        conditions=explained,
        seed=seed,
        job_progress=lambda split_recipe: progress.job_progress(split_recipe, show),
        on_note=display.print_note,
    )
    if is_first:
        title = f"{old_name} → {new_name} on {recipe}"
        networks = {"OLD": old, "NEW": new}
        folder = output / "diff"
        sides = split_folders(loaded, output, old_section, new_section)
        for name in ("explain.json", "explain.md", "explain.html"):  # of an earlier diff
            (folder / name).unlink(missing_ok=True)
        new_failures: list[str] = []
        page = None
        if explained and outcome.rows < outcome.source_rows:
            new_failures.append(
                "explain was left out, for it needs the whole split; run the same without --until-decided"
            )
        elif explained:
            new_failures, page = _explain_broken(sides[BROKE].paths, folder, show)
        report = diff_report(outcome, title, networks, sides, new_failures, page)
        _write_files(report, junit, summary)
        display.deliver(report, folder, as_json=as_json, quiet=quiet)
    Processes().gather(None)  # a launcher ends all processes as soon as one exits with 1
    return 1 if outcome.verdict == "broke more" else 0


def _flips(old: str, new: str, images: str | None, margin: float, by: Sequence[str], *, show: bool) -> "Flips":
    """Return the flips between two files of predictions, or two classifiers on images; of OLD there may be several."""
    from fmrgen.apps.release.flips import compare_predictions
    from fmrgen.apps.release.predictions import is_file_of_predictions, read_predictions

    places = [*old.split(","), new]
    are_files = [is_file_of_predictions(place) for place in places]
    if all(are_files):
        if images is not None:
            raise UserError("--images: the files have predictions; leave it out, or name two classifiers")
        *of_old, of_new = [read_predictions(place) for place in places]
    elif any(are_files):
        raise UserError("diff: --old and --new are a file of predictions and a classifier; give two of one kind")
    elif images is None:
        raise UserError("diff: name a recipe, or two files of predictions, or pass --images with labelled images")
    else:
        from fmrgen.apps.release.ask import predictions_on

        *of_old, of_new = predictions_on(images, places, progress=show)
    return compare_predictions(of_old, of_new, margin=margin, by=by)


def _deliver_flips(
    flipped: "Flips",
    old: str,
    new: str,
    output: Path,
    junit: Path | None,
    summary: Path | None,
    *,
    as_json: bool,
    quiet: bool,
) -> int:
    """Print flips and write their report; return the exit status."""
    from fmrgen.apps.release.flips_report import flips_report
    from fmrgen.cli import display

    report = flips_report(flipped, f"{Path(old).name} → {Path(new).name}", {"OLD": old, "NEW": new})
    if is_first_process():
        _write_files(report, junit, summary)
        display.deliver(report, output / "flips", as_json=as_json, quiet=quiet)
    return 1 if flipped.verdict == "broke more" else 0


def _explain_broken(broke: "SplitPaths", folder: Path, show: bool) -> tuple[list[str], str | None]:
    """Explain the split `broke` into `folder`.

    Returns:
        Lines on what NEW fails on and OLD does not, and the name of the page that says more.
    """
    from fmrgen.apps.explain.explain import explain
    from fmrgen.apps.explain.report import explanation_report
    from fmrgen.progress import terminal as progress
    from fmrgen.report.write import write

    try:
        with progress.row_progress("explain", show) as on_attributes:
            explanation = explain(f"{broke.root}:{broke.name}", trust=True, on_attributes=on_attributes)
    except UserError as error:
        return [str(error)], None  # for example, too few rows: the diff is complete without it
    report = explanation_report(explanation)
    write(report, folder)
    return report.conclusions, f"{report.name}.html"


def gate(
    split: str | None = None,
    /,
    *,
    candidate: Classifier,
    baseline: Classifier,
    max_drop: Annotated[float, Parameter(metavar="POINTS")],
    recipe: str | None = None,
    limit: options.Limit | None = None,
    output: options.Output = Path("gate"),
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 64,
    junit: Junit | None = None,
    summary: Summary | None = None,
    trust: options.Trust = False,
    processes: options.Processes = 1,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Check that a classifier is not less robust than another.

    Both see the same perturbed images, as many as it takes; with --recipe each sees its own. Exits with 0 if the
    candidate passes, 1 if it fails, 2 if either network does not work, 3 if the images do not decide.

    Args:
        split: PATH_OR_REPO[@REVISION][:CONFIG/SPLIT], made against a third model.
        candidate: The classifier to be released.
        baseline: The classifier to compare it with.
        max_drop: Largest drop in perturbed accuracy to allow.
        recipe: Make a split for each instead, and compare on those.
        output: With --recipe: the dataset folder.
        seed: Seed of the order of the rows.
    """
    from fmrgen.recipe.job import parse_classifier
    from fmrgen.split.reference import check_there

    if (split is None) == (recipe is None):
        raise UserError("gate: name a SPLIT or pass --recipe RECIPE, one of the two")
    _check_files(junit, summary)
    _, candidate_section = parse_classifier(candidate)
    _, baseline_section = parse_classifier(baseline)
    if split is not None:
        check_there(split)
    loaded = None if recipe is None else options.load_recipe(recipe, (), limit)

    from fmrgen.apps.release.gate import gate as run
    from fmrgen.apps.release.gate import gate_on_own_splits
    from fmrgen.apps.release.gate_report import gate_report
    from fmrgen.cli import display
    from fmrgen.distributed.launch import Processes
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    is_first = is_first_process()
    show = not quiet and is_first
    if loaded is not None:
        outcome = gate_on_own_splits(
            loaded,
            output,
            candidate=candidate_section,
            baseline=baseline_section,
            max_drop=max_drop,
            seed=seed,
            job_progress=lambda split_recipe: progress.job_progress(split_recipe, show),
            on_note=display.print_note,
        )
    else:
        with progress.split_progress(show) as on_rows:
            outcome = run(
                split,
                candidate=candidate_section,
                baseline=baseline_section,
                max_drop=max_drop,
                batch_size=batch_size,
                seed=seed,
                trust=trust,
                on_rows=on_rows,
            )
    title = split or f"own splits of {recipe}"
    if is_first:
        report = gate_report(outcome, title)
        _write_files(report, junit, summary)
        display.deliver(report, as_json=as_json, quiet=quiet)
    Processes().gather(None)
    return _GATE_STATUS[outcome.verdict]


def _check_files(*paths: Path | None) -> None:
    """Raise UserError for a path that no file can be written to."""
    for path in paths:
        if path is not None and path.is_dir():
            raise UserError(f"{path}: is a folder; name a file")
        if path is not None and not path.parent.is_dir():
            raise UserError(f"{path}: there is no such folder as {path.parent}")


def _write_files(report: "Report", junit: Path | None, summary: Path | None) -> None:
    """Write a report as JUnit, and append it to a summary in Markdown, where the user named files for them."""
    from fmrgen.apps.release.junit import to_junit
    from fmrgen.files import write_atomically
    from fmrgen.report.markdown import to_markdown

    if junit is not None:
        write_atomically(junit, to_junit(report))
    if summary is not None:
        with summary.open("a", encoding="utf-8") as file:
            file.write(to_markdown(report, level=3))


COMMANDS = [Command("diff", "Compare", diff), Command("gate", "Compare", gate)]
