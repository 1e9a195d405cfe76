"""The commands `judge` and `audit`."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fmrgen.cli import options
from fmrgen.cli.command import Command
from fmrgen.distributed.rank import is_first_process

if TYPE_CHECKING:
    from fmrgen.apps.judging.audit import Audit


def judge(
    split: options.Split,
    /,
    *,
    oracles: Annotated[Sequence[str], Parameter(name="--oracle", metavar="[NAME=]O")],
    batch_size: options.BatchSize = 64,
    processes: options.Processes = 1,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Have other judges look at a split's images.

    Their verdicts are stored beside the split, in its folder or on the Hub. Run the same command again to resume.

    Args:
        oracles: KIND:MODEL (zero_shot:google/siglip2-base-patch16-224), a repo, folder or asset of a CLIP,
            package.module:Name, a recipe, or {kind: …}. Repeat for more.
    """
    from fmrgen.recipe.job import load_oracles
    from fmrgen.split.reference import check_there

    sections = load_oracles(oracles)
    check_there(split)

    from fmrgen.apps.judging.judge import judge as run
    from fmrgen.apps.judging.report import judged_report
    from fmrgen.cli import display
    from fmrgen.progress import terminal as progress

    display.quiet_libraries()
    is_first = is_first_process()
    with progress.split_progress(not quiet and is_first) as on_rows:
        outcomes = run(split, sections, batch_size=batch_size, on_rows=on_rows, on_wait=display.print_note)
    if is_first:
        display.deliver(judged_report(outcomes, split), as_json=as_json, quiet=quiet)


def audit(
    split: options.Split,
    /,
    *,
    raters: Annotated[str, Parameter(metavar="NAME,NAME")],
    count: Annotated[options.Count, Parameter(name="--n")] = 300,
    quick: Annotated[int | None, options.whole_number(8)] = None,
    seed: options.Seed = 0,
    host: str = "127.0.0.1",
    port: Annotated[int, options.whole_number(0)] = 0,
    output: options.Output = Path("audit"),
    export: options.File | None = None,
    answers: Annotated[Sequence[options.File], Parameter(name="--import", metavar="FILE")] = (),
    trust: bool = False,
) -> None:
    """Have people name a sample of a split's images.

    Controls are added to --n: 30 originals or more, plain reconstructions, and a few repeats. They show how
    often an answer is wrong. Serves a page until you press Ctrl-C. Run the same command again to resume.

    Args:
        raters: Names of the people who answer.
        count: Perturbed images to show; controls come on top.
        quick: Show N images in all, a quarter of them originals: a first look, in three minutes for 40.
        seed: Seed of the sample of images.
        host: Listen here; 0.0.0.0 lets others in.
        port: Port of the page; 0 takes a free one.
        output: Where to keep answers on a split from the Hub.
        export: Write the page as a file with all images in it.
        answers: Take the answers that an exported page saved. Repeat for more.
        trust: Run the code, and read the files, that the generator in the recipe names.
    """
    from fmrgen.apps.judging.audit import Audit
    from fmrgen.cli import display

    display.quiet_libraries()
    names = [name.strip() for name in raters.split(",") if name.strip()]
    session = Audit(split, names, count=count, quick=quick, seed=seed, output=output, trust=trust)
    if session.note:
        display.print_note(session.note)
    if export is not None:
        session.export(export)
        display.print_note(f"{export}: each rater is shown {session.audited.sample.contents}")
        display.print_line(export)
        return
    for path in answers:
        name, done = session.take(path)
        display.print_line(f"{name}: {done} answers")
    if not answers:
        _serve(session, host, port)
    for name, rater in session.raters.items():
        display.print_line(f"{name}: {rater.done} of {len(rater.tasks)} images")
    for line in session.cautions():
        display.print_note(f"note: {line}")
    for path in session.close():
        display.print_line(path)


def _serve(audit: "Audit", host: str, port: int) -> None:
    """Serve the page until somebody stops it; answers may be changed until then."""
    from fmrgen.cli import display

    server = audit.server(host, port)
    server.timeout = 1.0
    display.print_line(f"open {server.address}")
    display.print_line(f"each rater is shown {audit.audited.sample.contents}")
    display.print_line("answers are saved as they come in; press Ctrl-C to stop")
    if server.hosts is None:
        display.print_note(f"--host {host}: anyone with the address can see the images and answer")
    was_done = False
    with server, suppress(KeyboardInterrupt):
        while True:
            server.handle_request()
            if server.is_done and not was_done:
                display.print_line("everyone has answered")
            was_done = server.is_done


COMMANDS = [Command("judge", "Validate", judge, resumes=True), Command("audit", "Validate", audit)]
