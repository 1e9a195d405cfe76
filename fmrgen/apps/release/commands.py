"""The commands `diff` and `gate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fmrgen.cli.command import Command
from fmrgen.cli.options import (
    BatchSizeOption,
    JsonOption,
    LimitOption,
    OverridesArgument,
    ProcessesOption,
    QuietOption,
    RecipeArgument,
    TrustOption,
    limited,
)
from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import UserError

if TYPE_CHECKING:
    from fmrgen.storage.paths import SplitPaths

_GATE_STATUS = {"pass": 0, "fail": 1, "invalid": 2, "undecided": 3}
JunitOption = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write the outcome as JUnit XML.")]
SummaryOption = Annotated[
    Path | None,
    typer.Option("--summary", metavar="FILE", help="Append the outcome as Markdown, as for $GITHUB_STEP_SUMMARY."),
]


def diff(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    *,
    old: Annotated[str, typer.Option("--old", metavar="C", help="The classifier that is in use.")],
    new: Annotated[str, typer.Option("--new", metavar="C", help="The one that is to take its place.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The dataset folder; the page is DIR/diff.")
    ] = Path("diff"),
    limit: LimitOption = None,
    until_decided: Annotated[
        bool,
        typer.Option("--until-decided", help="Stop as soon as a sequential test is sure; else test all rows exactly."),
    ] = False,
    until: Annotated[str | None, typer.Option("--until", hidden=True)] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Seed of the order of the rows, for --until-decided.")
    ] = 0,
    explained: Annotated[
        bool, typer.Option("--explain", help="Compare the two on changed originals too, and say where NEW fails.")
    ] = False,
    junit: JunitOption = None,
    summary: SummaryOption = None,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find what a new classifier broke, and what it fixed.

    Each image is moved to where the old one is right and the new one wrong, and the reverse, while the oracle sees its
    class: two splits to keep, and a page. Exits with 1 if more broke than was fixed, or if --explain finds a change of
    the originals under which NEW is worse; else with 0.
    """
    from fmrgen.recipe.job import load_recipe, parse_classifier

    if until not in (None, "decided"):  # `--until decided` is how the flag was spelt before
        raise UserError("--until: use --until-decided, which takes no value, or leave it out to test all rows")
    (old_name, of_old), (new_name, of_new) = (parse_classifier(text) for text in (old, new))
    loaded = load_recipe(recipe, limited(limit, overrides))
    _check_files(junit, summary)

    from fmrgen.apps.release.diff import BROKE, split_folders
    from fmrgen.apps.release.diff import diff as run
    from fmrgen.apps.release.diff_report import (
        condition_lines,
        diff_junit,
        diff_markdown,
        main_table,
        pair_table,
        verdict_line,
        write_diff,
    )
    from fmrgen.cli import display
    from fmrgen.distributed.launch import Processes
    from fmrgen.progress import terminal as progress
    from fmrgen.report.write import prepare_folder

    display.quiet_libraries()
    is_first = is_first_process()
    show = not quiet and is_first
    found = run(
        loaded,
        output,
        old=of_old,
        new=of_new,
        until_decided=until_decided or until is not None,
        conditions=explained,
        seed=seed,
        job_progress=lambda made: progress.job_progress(made, show),
        on_note=display.print_note,
    )
    if is_first:
        title, named = f"{old_name} → {new_name} on {recipe}", {"OLD": old, "NEW": new}
        prepare_folder(output / "diff")
        sides = split_folders(loaded, output, of_old, of_new)
        proven: list[str] = []
        if explained and found.rows < found.source_rows:
            proven.append("explain was left out, for it needs the whole split; run the same without --until-decided")
        elif explained:
            proven += _proven(sides[BROKE].paths, output / "diff", show)
        write_diff(found, output / "diff", sides, title, named, proven)
        _write_files(
            junit, diff_junit(found, title, named, proven), summary, diff_markdown(found, title, named, proven)
        )
        if as_json:
            display.print_json(found)
        elif not quiet:
            display.print_table(main_table(found), title)
            display.print_table(pair_table(found), "by pair of classes")
            for line in (*condition_lines(found), *proven):
                display.print_line(line)
            display.print_line(str(output / "diff/diff.html"))
        (display.print_note if as_json else display.print_line)(verdict_line(found))
    Processes().gather(None)  # a launcher ends all as soon as one exits with 1
    raise typer.Exit(int(found.verdict == "broke more"))


def _proven(broke: "SplitPaths", folder: Path, show: bool) -> list[str]:
    """What NEW fails on where the oracle sees the class and OLD too, which are the panel of the split `broke`."""
    from fmrgen.apps.explain.explain import explain
    from fmrgen.apps.explain.report import summary_lines, write_explanation
    from fmrgen.progress import terminal as progress

    try:
        with progress.row_progress("explain", show) as on_attributes:
            found = explain(f"{broke.root}:{broke.name}", trust=True, on_attributes=on_attributes)
    except UserError as error:
        return [str(error)]  # as of too few rows: the diff stands all the same
    write_explanation(found, folder)
    return summary_lines(found)


def gate(
    split: Annotated[
        str | None,
        typer.Argument(metavar="[SPLIT]", help="PATH_OR_REPO[@REVISION][:CONFIG/SPLIT], made against a third model."),
    ] = None,
    *,
    candidate: Annotated[str, typer.Option("--candidate", metavar="C", help="The classifier to be released.")],
    baseline: Annotated[str, typer.Option("--baseline", metavar="C", help="The classifier to compare it with.")],
    max_drop: Annotated[
        float, typer.Option("--max-drop", metavar="POINTS", help="Largest drop in perturbed accuracy to allow.")
    ],
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", metavar="RECIPE", help="Make a split for each instead, and compare on those."),
    ] = None,
    limit: LimitOption = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="With --recipe: the dataset folder.")
    ] = Path("gate"),
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of the order of the rows.")] = 0,
    batch_size: BatchSizeOption = 64,
    junit: JunitOption = None,
    summary: SummaryOption = None,
    trust: TrustOption = False,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check that a classifier is not less robust than another.

    Both see the same perturbed images, as many as it takes; with --recipe each sees its own. Exits with 0 if the
    candidate passes, 1 if it fails, 2 if either network does not work, 3 if the images do not decide.
    """
    from fmrgen.recipe.job import load_recipe, parse_classifier
    from fmrgen.split.reference import check_there

    if (split is None) == (recipe is None):
        raise UserError("gate: name a SPLIT, or pass --recipe RECIPE")
    _check_files(junit, summary)
    (_, new), (_, old) = (parse_classifier(text) for text in (candidate, baseline))
    if split is not None:
        check_there(split)
    loaded = None if recipe is None else load_recipe(recipe, limited(limit, None))

    from fmrgen.apps.release.gate import gate as run
    from fmrgen.apps.release.gate import gate_on_own_splits
    from fmrgen.apps.release.gate_report import (
        alarm_lines,
        condition_lines,
        gate_junit,
        gate_markdown,
        gate_table,
        verdict_line,
    )
    from fmrgen.cli import display
    from fmrgen.distributed.launch import Processes
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    is_first = is_first_process()
    show = not quiet and is_first
    if loaded is not None:
        found = gate_on_own_splits(
            loaded,
            output,
            candidate=new,
            baseline=old,
            max_drop=max_drop,
            seed=seed,
            job_progress=lambda made: progress.job_progress(made, show),
            on_note=display.print_note,
        )
    else:
        with progress.split_progress(show) as on_rows:
            found = run(
                split,
                candidate=new,
                baseline=old,
                max_drop=max_drop,
                batch_size=batch_size,
                seed=seed,
                trust=trust,
                on_rows=on_rows,
            )
    named = split or f"own splits of {recipe}"
    if is_first:
        _write_files(junit, gate_junit(found, named), summary, gate_markdown(found, named))
        if as_json:
            display.print_json(found)
        elif not quiet:
            display.print_table(gate_table(found), named)
        for line in [*found.notes, *condition_lines(found), *alarm_lines(found)]:
            display.print_note(line)
        (display.print_note if as_json else display.print_line)(verdict_line(found))
    Processes().gather(None)
    raise typer.Exit(_GATE_STATUS[found.verdict])


def _check_files(*paths: Path | None) -> None:
    for path in paths:
        if path is not None and path.is_dir():
            raise UserError(f"{path}: is a folder; name a file")
        if path is not None and not path.parent.is_dir():
            raise UserError(f"{path}: there is no such folder as {path.parent}")


def _write_files(junit: Path | None, of_junit: bytes, summary: Path | None, of_summary: str) -> None:
    from fmrgen.files import write_atomically

    if junit is not None:
        write_atomically(junit, of_junit)
    if summary is not None:
        with summary.open("a", encoding="utf-8") as file:
            file.write(of_summary)


COMMANDS = [Command("diff", "Compare", diff), Command("gate", "Compare", gate)]
