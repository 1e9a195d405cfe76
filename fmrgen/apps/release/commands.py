"""The commands `diff` and `gate`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fmrgen.apps.release.networks import classifier_of, name_of, several
from fmrgen.cli import options
from fmrgen.cli.command import Command
from fmrgen.distributed.rank import is_first_process, launched_processes
from fmrgen.errors import UserError

if TYPE_CHECKING:
    from fmrgen.apps.release.diff import Diff
    from fmrgen.report.report import Report
    from fmrgen.storage.paths import SplitPaths

_STATUS = {"broke more": 1, "invalid": 2}
_UNDECIDED = 3  # of a gate
Classifier = Annotated[str, Parameter(metavar="C")]
Answers = Annotated[str, Parameter(metavar="C|FILE")]
Junit = Annotated[options.File, Parameter(help="Write the outcome as JUnit XML.")]
Summary = Annotated[options.File, Parameter(help="Append the outcome as Markdown, as for $GITHUB_STEP_SUMMARY.")]


def diff(
    recipe: Annotated[
        str | None,
        Parameter(
            completer=options.recipe_names,
            help="A recipe file, or the name of a shipped recipe; by default fmrgen.yaml in this folder, for two "
            "classifiers without --images.",
            show_default=False,
        ),
    ] = None,
    /,
    *overrides: options.Overrides,
    old: Answers,
    new: Answers,
    network: Annotated[str | None, Parameter(name="--as", metavar="MODULE:NAME")] = None,
    images: str | None = None,
    margin: Annotated[float | None, Parameter(metavar="POINTS", show_default=False)] = None,
    claim: Annotated[str | None, Parameter(metavar="FINDING")] = None,
    controls: Annotated[str | None, Parameter(metavar="C,…|FILE,…")] = None,
    shifts: Annotated[Sequence[str], Parameter(name="--shift", metavar="IMAGES")] = (),
    trained_on: Annotated[Sequence[str], Parameter(metavar="IMAGES")] = (),
    by: options.By = (),
    review: options.File | None = None,
    output: options.Output = Path("diff"),
    limit: options.Limit | None = None,
    until_decided: bool = False,
    until: Annotated[str | None, Parameter(show=False)] = None,
    seed: options.Seed = 0,
    explained: Annotated[bool, Parameter(name="--explain")] = False,
    trust: options.Trust = False,
    junit: Junit | None = None,
    summary: Summary | None = None,
    processes: options.Processes = 1,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Find what a new classifier broke: its negative flips.

    By two files of predictions, or by two classifiers and --images: on real images. With a recipe also on
    originals that are moved and changed, and on images that are made against the two, as far as the oracle sees their
    class. One verdict over all. Exits with 1 if NEW broke more than is allowed on any kind of images, 2 if one of the
    two does not work, else with 0.

    With --claim it says instead whether a failure of OLD is fixed in NEW, on real images that no network has seen.
    Exits with 0 if it is, 1 if it is not or something else broke, 2 if a network does not work, 3 if undecided.

    Args:
        old: The classifier that is in use, or its predictions: a parquet, CSV or JSON lines file with id, label and
            prediction, or an evaluation.json. Without a recipe A,B,… are trainings of one.
        new: The one that is to take its place, or its predictions.
        network: Network of the files of weights that --old and --new name, as last.pt.
        images: Labelled images: a folder with a folder for each class, a dataset or split, or a source section.
        margin: Points of accuracy that the new one may lose: by default 0, with --claim 3.
        claim: What fails: "smaller shapes", "class stop", "yield → stop", "width < 30", an explain.json, an earlier
            certificate.json, or a folder of labelled images.
        controls: With --claim: equal trainings without the cure, that of another seed first. Where OLD and NEW are
            folders of fmrgen train, they are trained.
        shifts: With --claim: labelled images of another place, where NEW may lose no more either; of files
            OLD_FILE,NEW_FILE. Repeat for more.
        trained_on: With --claim: what the networks were trained on; test images among these are left out. Repeat for
            more.
        by: Group real images by this column, or by bounds: width:30,60. Repeat for more.
        review: Write images that neither has right to this CSV. What you fill in as reviewed is their label next time.
        output: The dataset folder; the page is DIR/diff.
        until_decided: With a recipe: stop as soon as a sequential test is sure; else test all rows exactly.
        seed: Seed of the order of the rows, for --until-decided.
        explained: With a recipe: explain where the new one fails.
    """
    if until not in (None, "decided"):  # `--until decided` is how the flag was spelt before
        raise UserError("--until: use --until-decided, which takes no value, or leave it out to test all rows")
    _check_files(junit, summary, review)
    from fmrgen.apps.release.predictions import is_file_of_predictions

    of_claim = {"--controls": controls is not None, "--shift": bool(shifts), "--trained-on": bool(trained_on)}
    if claim is None:
        _refuse(of_claim, "is for a claim: say with --claim what is fixed, or leave it out")
    else:
        of_diff = {"--by": bool(by), "--review": review is not None, "--until-decided": until_decided}
        _refuse({**of_diff, "--explain": explained}, "is not for a claim: leave it out")
        if recipe is None:
            _refuse({"--limit": limit is not None}, "is for a recipe: name one, or leave it out")
        from fmrgen.apps.release.certify_command import STATUS, certified

        certificate, report = certified(
            claim,
            old,
            new,
            controls=controls,
            images=images,
            shifts=shifts,
            trained_on=trained_on,
            margin=margin,
            recipe=None if recipe is None else options.load_recipe(recipe, overrides, limit),
            output=output,
            network=network,
            trust=trust,
            quiet=quiet,
        )
        _deliver(report, output / "certificate", junit, summary, as_json=as_json, quiet=quiet)
        return STATUS[certificate.verdict]
    margin = 0.0 if margin is None else margin
    changes = list(overrides)
    is_asked = images is None and not any(map(is_file_of_predictions, [*several(old), new]))
    if is_asked and (recipe is not None or Path(options.OWN_RECIPE).is_file()):
        recipe, changes = options.own_recipe(recipe, overrides)
    if recipe is None:
        of_made = {
            "--until-decided": until_decided or until is not None,
            "--explain": explained,
            "--limit": limit is not None,
        }
        _refuse(of_made, "is for a recipe: name one, or leave it out")
        outcome = _on_real_images(old, new, images, margin, by, review, trust, network)
        report = _report_on_real_images(outcome, old, new, images, f"{name_of(old)} → {name_of(new)}")
    else:
        of_real = {"--images": images is not None, "--by": bool(by), "--review": review is not None}
        _refuse(of_real, f"is for a diff on real images: leave out the recipe {recipe}")
        loaded = options.load_recipe(recipe, changes, limit)
        decided = until_decided or until is not None
        outcome, report = _on_recipe(
            recipe, loaded, old, new, margin, output, decided, seed, network, explained=explained, quiet=quiet
        )
    _deliver(report, output / "diff", junit, summary, as_json=as_json, quiet=quiet)
    return _STATUS.get(outcome.verdict, 0)


def _refuse(are_set: Mapping[str, bool], reason: str) -> None:
    """Raise UserError for the first option that is set, which it must not be."""
    for option, is_set in are_set.items():
        if is_set:
            raise UserError(f"{option} {reason}")


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
    junit: Junit | None = None,
    summary: Summary | None = None,
    trust: options.Trust = False,
    processes: options.Processes = 1,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Let a classifier pass only if it is no worse than another.

    The same as `diff --margin`, of a split's images or a recipe, but to be undecided is not to pass. Exits with 0 if
    the candidate passes, 1 if it broke more, 2 if either network does not work, 3 if the images do not decide.

    Args:
        split: PATH_OR_REPO[@REVISION][:CONFIG/SPLIT], made against a third model, or any labelled images.
        candidate: The classifier to be released.
        baseline: The classifier to compare it with.
        max_drop: Largest loss of accuracy to allow.
        recipe: Make images against the two instead.
        output: The dataset folder; the page is DIR/diff.
    """
    if (split is None) == (recipe is None):
        raise UserError("gate: name a SPLIT or pass --recipe RECIPE, one of the two")
    if not 0 <= max_drop < 100:
        raise UserError(f"--max-drop: must be points from 0 to less than 100, not {max_drop:g}")
    _check_files(junit, summary)
    if recipe is None and limit is not None:
        raise UserError("--limit is for a recipe: name one, or leave it out")
    if recipe is None:
        outcome = _on_real_images(baseline, candidate, split, max_drop, (), None, trust)
        title = f"{name_of(baseline)} → {name_of(candidate)} on {split}"
        report = _report_on_real_images(outcome, baseline, candidate, split, title, needs_proof=True)
    else:
        loaded = options.load_recipe(recipe, (), limit)
        outcome, report = _on_recipe(
            recipe, loaded, baseline, candidate, max_drop, output, False, 0, quiet=quiet, needs_proof=True
        )
    _deliver(report, output / "diff", junit, summary, as_json=as_json, quiet=quiet)
    if outcome.verdict == "undecided":
        return _UNDECIDED
    return _STATUS.get(outcome.verdict, 0)


def _on_real_images(
    old: str,
    new: str,
    images: str | None,
    margin: float,
    by: Sequence[str],
    review: Path | None,
    trust: bool,
    network: str | None = None,
) -> "Diff":
    """Return the diff of two files of predictions, or of two classifiers on images; of OLD there may be several."""
    from fmrgen.apps.release.diff import diff as run
    from fmrgen.apps.release.predictions import is_file_of_predictions, read_predictions

    places = [*several(old), new]
    if new in places[:-1]:
        raise UserError(f"diff: {new} is both old and new; name two")
    are_files = [is_file_of_predictions(place) for place in places]
    of_each: list[Any]
    if all(are_files):
        if images is not None:
            raise UserError("--images: the files have predictions; leave it out, or name two classifiers")
        of_each = [read_predictions(place) for place in places]
    elif any(are_files):
        mixed = ", ".join(places)
        raise UserError(f"diff: some of {mixed} are files of predictions and others are not; give all of one kind")
    elif images is None:
        raise UserError("diff: name a recipe, or two files of predictions, or pass --images with labelled images")
    else:
        from fmrgen.cli import display

        display.quiet_libraries()
        of_each = [classifier_of(place, network)[1] for place in places]
    *of_old, of_new = of_each
    if review is None:
        return run(of_old, of_new, images=images, margin=margin, by=by, trust=trust)
    from fmrgen.apps.release.review import Review

    earlier = Review.read(review)
    outcome = run(of_old, of_new, images=images, margin=margin, by=by, reviewed=earlier.labels, trust=trust)
    if is_first_process():
        earlier.write(review, outcome.flips.doubted)
    return outcome


def _on_recipe(
    recipe: str,
    loaded: Any,
    old: str,
    new: str,
    margin: float,
    output: Path,
    until_decided: bool,
    seed: int,
    network: str | None = None,
    *,
    explained: bool = False,
    quiet: bool = False,
    needs_proof: bool = False,
) -> "tuple[Diff, Report]":
    """Return the diff of two classifiers by a recipe, and its report."""
    old_name, old_section = classifier_of(old, network)
    new_name, new_section = classifier_of(new, network)

    from fmrgen.apps.release.diff import diff as run
    from fmrgen.apps.release.diff_gallery import flipped_ids
    from fmrgen.apps.release.diff_report import diff_report
    from fmrgen.apps.release.evidence import BROKE
    from fmrgen.apps.release.made import split_folders
    from fmrgen.cli import display
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    show = not quiet and is_first_process()
    outcome = run(
        old_section,
        new_section,
        recipe=loaded,
        output=output,
        margin=margin,
        until_decided=until_decided,
        seed=seed,
        job_progress=lambda split_recipe: progress.job_progress(split_recipe, show),
        on_note=display.print_note,
    )
    sides = {} if outcome.made is None else split_folders(loaded, output, old_section, new_section)
    new_failures: list[str] = []
    page = None
    if is_first_process():
        for name in ("explain.json", "explain.md", "explain.html"):  # of an earlier diff
            (output / "diff" / name).unlink(missing_ok=True)
        if explained and outcome.made is None:
            new_failures.append("explain was left out, for no images were made against the two")
        elif explained and outcome.made is not None and outcome.made.rows < outcome.made.source_rows:
            new_failures.append(
                "explain was left out, for it needs the whole split; run the same without --until-decided"
            )
        elif explained:
            new_failures, page = _explain_broken(sides[BROKE].paths, output / "diff", show)
    shown: dict[str, bytes | str] = {}
    if is_first_process():
        from fmrgen.apps.release.on_images import images_of_source

        shown = images_of_source(loaded.source, flipped_ids(outcome))
    title = f"{old_name} → {new_name} on {recipe}"
    networks = {"OLD": old, "NEW": new}
    report = diff_report(outcome, title, networks, sides, new_failures, page, images=shown, needs_proof=needs_proof)
    return outcome, report


def _report_on_real_images(
    outcome: "Diff", old: str, new: str, images: str | None, title: str, *, needs_proof: bool = False
) -> "Report":
    """Return the report of a diff on real images, which shows flipped ones unless there are predictions alone."""
    from fmrgen.apps.release.diff_gallery import flipped_ids
    from fmrgen.apps.release.diff_report import diff_report

    shown: dict[str, bytes | str] = {}
    if images is not None and is_first_process():
        from fmrgen.apps.release.on_images import stored_images

        shown = stored_images(images, flipped_ids(outcome))
    return diff_report(outcome, title, {"OLD": old, "NEW": new}, images=shown, needs_proof=needs_proof)


def _deliver(
    report: "Report", folder: Path, junit: Path | None, summary: Path | None, *, as_json: bool, quiet: bool
) -> None:
    """Print a report and write its files, on the first process of a launch."""
    from fmrgen.apps.release.comment import to_comment
    from fmrgen.apps.release.junit import to_junit
    from fmrgen.cli import display
    from fmrgen.files import write_atomically
    from fmrgen.report.markdown import to_markdown

    if is_first_process():
        if junit is not None:
            write_atomically(junit, to_junit(report))
        if summary is not None:
            with summary.open("a", encoding="utf-8") as file:
                file.write(to_markdown(report, level=3))
        display.deliver(report, folder, as_json=as_json, quiet=quiet)
        write_atomically(folder / "comment.md", to_comment(report).encode())
    if launched_processes() > 1:  # a launcher ends all processes as soon as one exits with 1
        from fmrgen.distributed.launch import Processes

        Processes().gather(None)


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


def _check_files(*paths: Path | None) -> None:
    """Raise UserError for a path that no file can be written to."""
    for path in paths:
        if path is not None and path.is_dir():
            raise UserError(f"{path}: is a folder; name a file")
        if path is not None and not path.parent.is_dir():
            raise UserError(f"{path}: there is no such folder as {path.parent}")


COMMANDS = [Command("diff", "Compare", diff), Command("gate", "Compare", gate)]
