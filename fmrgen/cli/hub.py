"""The commands that bring splits and results to the Hub."""

from pathlib import Path
from typing import Annotated

import typer

from fmrgen.cli.options import PublicOption, QuietOption, ReplaceOption


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
    quiet: QuietOption = False,
) -> None:
    """Push finished splits to the Hub.

    Existing content is kept. Run the same command again to resume.
    """
    push_splits(folder, repo, public, replace, revision, quiet)


def push_splits(folder: str, repo: str, public: bool, replace: bool, revision: str | None, quiet: bool) -> None:
    """Pushes, and prints where the splits are."""
    from fmrgen.cli import display
    from fmrgen.hub.push import push as run

    with display.hub_progress(not quiet):
        pushed = run(folder, repo, public=public, replace=replace, revision=revision, on_wait=display.print_note)
    if not quiet:
        display.print_pushed(pushed)


def submit(
    results: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of an evaluation with --eval-results.")],
    models: Annotated[
        Path,
        typer.Option(
            "--models", metavar="FILE", help="YAML with the model repo of each classifier, `NAME: OWNER/MODEL`."
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be opened, and open nothing.")] = False,
) -> None:
    """Open pull requests with results on the repos of models.

    Models whose repos have them, or an open pull request with them, are left alone.
    """
    from fmrgen.cli import display
    from fmrgen.hub.submit import read_models
    from fmrgen.hub.submit import submit as run

    for done in run(results, read_models(models), dry_run=dry_run, on_wait=display.print_note):
        display.print_line(f"{done.classifier}: {done.model}: {done}")
