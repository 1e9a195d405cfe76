"""The commands that bring splits and results to the Hub."""

from pathlib import Path
from typing import Annotated

import typer

from fmrgen.cli.options import JsonOption, PublicOption, QuietOption, ReplaceOption
from fmrgen.errors import UserError


def push(
    folder: Annotated[
        str,
        typer.Argument(metavar="DIR[:CONFIG/SPLIT]", help="A dataset folder (all finished splits), or one split."),
    ],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="A dataset repo on the Hub, created if missing.")],
    public: PublicOption = False,
    replace: ReplaceOption = False,
    revision: Annotated[
        str | None,
        typer.Option("--revision", metavar="REV", help="A branch or pull request (refs/pr/3), not main."),
    ] = None,
    without_originals: Annotated[
        bool,
        typer.Option(
            "--without-originals", help="Push no images, only what `fmrgen rebuild` needs besides the originals."
        ),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Push finished splits to the Hub.

    Existing content is kept. Run the same command again to resume.
    """
    if without_originals:
        if replace or revision is not None:
            raise UserError("--without-originals cannot be combined with --replace or --revision")
        _push_delta(folder, repo, public, quiet, as_json)
        return
    push_splits(folder, repo, public, replace, revision, quiet, as_json)


def _push_delta(folder: str, repo: str, public: bool, quiet: bool, as_json: bool) -> None:
    from tempfile import TemporaryDirectory

    from fmrgen.cli import display
    from fmrgen.delta.card import push_delta
    from fmrgen.delta.rebuild import make_delta

    display.quiet_libraries()
    with TemporaryDirectory() as place:
        make_delta(folder, place)
        url = push_delta(Path(place), repo, public=public, on_wait=display.print_note)
    if as_json:
        display.print_json({"url": url})
    elif not quiet:
        display.print_line(url)


def push_splits(
    folder: str, repo: str, public: bool, replace: bool, revision: str | None, quiet: bool, as_json: bool = False
) -> None:
    """Push, and prints where the splits are."""
    from fmrgen.cli import display
    from fmrgen.publish.push import push as run

    with display.hub_progress(not quiet):
        pushed = run(folder, repo, public=public, replace=replace, revision=revision, on_wait=display.print_note)
    if as_json:
        display.print_json(pushed)
    elif not quiet:
        display.print_pushed(pushed)


def delta(
    split: Annotated[str, typer.Argument(metavar="DIR[:CONFIG/SPLIT]", help="A finished split in a folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The delta's folder.")] = Path("delta"),
    quiet: QuietOption = False,
) -> None:
    """Write a split without its images.

    Anyone with the originals can restore it with `fmrgen rebuild`, bit for bit.
    """
    from fmrgen.cli import display
    from fmrgen.delta.rebuild import make_delta
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    with progress.row_progress("delta", not quiet) as on_rows:
        make_delta(split, output, on_rows=on_rows)
    display.print_line(output)


def rebuild(
    place: Annotated[
        str, typer.Argument(metavar="DELTA", help="A folder of `fmrgen delta`, or a repo, OWNER/NAME[@REVISION].")
    ],
    source: Annotated[
        str, typer.Option("--source", metavar="RECIPE", help="The recipe whose source has the originals, or {kind: …}.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The dataset folder.")] = Path("out"),
    quiet: QuietOption = False,
) -> None:
    """Restore the splits of a delta from your own originals."""
    from fmrgen.files import check_writable
    from fmrgen.hub.fetch import check_repo_name
    from fmrgen.recipe.job import load_source
    from fmrgen.split.open import deltas_of
    from fmrgen.split.reference import check_folder

    check_folder(place)
    if not Path(place).is_dir():
        check_repo_name(place.partition("@")[0])
    elif not deltas_of(Path(place)):
        raise UserError(f"{place}: contains no delta; make one with fmrgen delta")
    load_source(source)
    check_writable(output)

    from fmrgen.cli import display
    from fmrgen.delta.rebuild import rebuild as run
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    with progress.row_progress("rebuild", not quiet) as on_rows:
        rebuilt = run(place, source, output, on_rows=on_rows, on_note=display.print_note)
    for split in rebuilt:
        display.print_line(f"{output}:{split}")
