"""The commands `leaderboard` and `submit`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fmrgen.cli import options
from fmrgen.cli.command import Command
from fmrgen.errors import UserError


def leaderboard(
    *places: Annotated[str, Parameter(required=True)],
    output: options.Output = Path("site"),
    title: str = "Robustness leaderboard",
    push: Annotated[str | None, Parameter(metavar="SPACE")] = None,
    public: bool = False,
) -> None:
    """Make a leaderboard of splits and results: a static site.

    Splits of different protocols are kept apart.

    Args:
        places: Dataset repos, OWNER/NAME[@REVISION], or folders.
        output: The site's folder.
        title: Title of the first page.
        push: Then push the site to this static Space.
        public: Make the Space public, or push to a public one.
    """
    from fmrgen.files import check_writable
    from fmrgen.hub.fetch import check_repo_name

    for place in places:
        if not Path(place).is_dir():
            check_repo_name(place.partition("@")[0])
    check_writable(output)

    from fmrgen.apps.board.collect import collect
    from fmrgen.apps.board.site import write_site
    from fmrgen.apps.board.submitted import submitted_results
    from fmrgen.cli import display

    if public and push is None:
        raise UserError("--public only applies with --push SPACE")
    display.quiet_libraries()
    written = write_site(collect(places), output, title, submitted_results(places))
    display.print_line(f"{written[0]} ({len(written)} files)")
    if push is not None:
        from fmrgen.apps.board.space import push_site

        display.print_line(push_site(output, written, push, title, public=public, on_wait=display.print_note))


def submit(results: Path, /, *, models: options.File, dry_run: bool = False, as_json: options.Json = False) -> None:
    """Open pull requests with results on the repos of models.

    Models whose repos have them, or an open pull request with them, are left alone.

    Args:
        results: The folder of an evaluation with --eval-results.
        models: YAML with the model repo of each classifier, `NAME: OWNER/MODEL`.
        dry_run: Show what would be opened, and open nothing.
    """
    from fmrgen.files import no_such_folder

    if not results.exists():
        raise UserError(no_such_folder(str(results)))
    if not (results / "evaluation.json").exists():
        raise UserError(f"{results}: contains no evaluation; name the folder of `fmrgen evaluate --eval-results`")

    from fmrgen.apps.board.submit import read_models
    from fmrgen.apps.board.submit import submit as run
    from fmrgen.cli import display

    submitted = run(
        results, read_models(models), dry_run=dry_run, on_wait=display.print_note, on_note=display.print_note
    )
    if as_json:
        display.print_json(submitted)
    else:
        for result in submitted:
            display.print_line(f"{result.classifier}: {result.model}: {result}")
    refused = [result.classifier for result in submitted if result.state == "refused"]
    if refused:
        raise UserError(
            f"{models}: the repos of {', '.join(refused)} take no results; correct them, and run this again"
        )


COMMANDS = [Command("submit", "Publish", submit), Command("leaderboard", "Publish", leaderboard)]
