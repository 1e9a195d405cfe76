"""What a terminal shows: tables and notes."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from fmrgen.errors import printable, write_line

if TYPE_CHECKING:
    from fmrgen.jobs.plan import Plan
    from fmrgen.jobs.verify import Verification
    from fmrgen.jobs.verify_files import FilesVerification
    from fmrgen.metrics.summary import Summary
    from fmrgen.publish.push import Pushed
    from fmrgen.report.plot import PlotFormat
    from fmrgen.report.report import Report

_LISTED = 20  # of what is wrong, printed line by line


def quiet_libraries(quiet: bool = False) -> None:
    """Silence the libraries' logs; on a terminal downloads keep their bars.

    What fmrgen logs is printed; if it is `quiet`, not that a step was taken.
    """
    import datasets

    from fmrgen.hub.timeouts import bound_requests

    ours = logging.getLogger("fmrgen")
    ours.setLevel(logging.INFO)
    ours.handlers = [handler for handler in ours.handlers if not isinstance(handler, _Notes)]
    ours.addHandler(_Notes(logging.WARNING if quiet else logging.INFO))
    asking = logging.getLogger("huggingface_hub.utils._http")
    if not any(isinstance(installed, _Retries) for installed in asking.filters):
        asking.addFilter(_Retries())
        asking.setLevel(logging.WARNING)  # also while a push lets the client's other loggers tell errors alone
    logging.getLogger("huggingface_hub.repocard").setLevel(logging.ERROR)  # a card without metadata is no news
    bound_requests()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # broken or huge images are errors where they can't be read
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what goes wrong is raised, and printed in one line
    os.environ["TRANSFORMERS_VERBOSITY"] = "critical"  # a model's own words; what goes wrong is raised
    if "transformers" in sys.modules:
        sys.modules["transformers"].utils.logging.set_verbosity(logging.CRITICAL)


def plan_lines(plan: "Plan", split: str) -> Iterator[str]:
    """Yield what a job would do, below its recipe."""
    from fmrgen.progress.bars import format_duration
    from fmrgen.storage.paths import rows_of_a_shard
    from fmrgen.weights.remote import format_size

    yield from str(plan.recipe).splitlines()
    for remote in plan.downloads:
        licence = f", licence {remote.licence}" if remote.licence else ""
        state = "is on this machine" if remote.is_here else f"{remote.described_size} to download{licence}"
        yield f"{remote.key:22}{remote.name}: {state}"
    work, perturb = plan.work, plan.recipe.perturb
    if work is None:
        yield "Time and disk are measured once these files are here: run this again then."
        return
    size = rows_of_a_shard(plan.recipe.output.shard_size, work.examples)
    shards = f"{work.shards} shard{'s' if work.shards > 1 else ''} of {size}"
    slots = f"{work.slots} slots" if work.slots else "slots by timing"
    time = f"at most {format_duration(work.most_seconds)} on one process for {work.most_queries:,} image-steps"
    free = "" if work.free_bytes is None else f"; {format_size(work.free_bytes)} are free"
    yield f"examples  {work.examples:,} of {work.classes:,} classes, at {work.image_size} px, in {shards}"
    yield f"exists    {work.existing} of {work.shards} shards in {split}; {work.images_left:,} images are left"
    yield f"runs on   {work.device}, {slots}, {perturb.precision}"
    yield f"one pass  {1000 * work.seconds_per_pass:.1f} ms per image"
    yield f"time      {time}, if every image uses the budget of {perturb.budget}"
    yield f"disk      about {format_size(work.split_bytes)} of images{free}"


def print_summary(summary: "Summary", split: str, *, every: bool = False) -> None:
    """Print the table at the end of a job, of the main metrics or of `every` one."""
    from rich import box
    from rich.table import Table

    from fmrgen.report.console import terminal
    from fmrgen.report.summary import summary_table

    content = summary_table(summary, every=every)
    table = Table(*content.header, title=printable(split), title_justify="left", box=box.SQUARE)
    for row in content.rows:
        table.add_row(*row)
    terminal().print(table)


@contextmanager
def hub_progress(show: bool) -> Iterator[None]:
    """Show the bars of the Hub's client if there is a terminal to draw them on."""
    from huggingface_hub.utils import logging

    from fmrgen.hub.timeouts import no_bars

    logging.set_verbosity_error()  # what goes wrong is tried again or raised, and printed in one line
    with nullcontext() if show and sys.stderr.isatty() else no_bars():
        yield


def print_line(line: object) -> None:
    """Print a line of the outcome. It may come from data: what a terminal would obey is written out."""
    print(printable(str(line)))


class _Retries(logging.Filter):
    """The Hub's client says in two lines, with addresses, that it asks again: here in a note."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        retry = re.match(r"Retrying in ([\d.]+)s \[Retry (\d+)/(\d+)\]", message)
        if retry is not None:
            write_line(f"the Hub can't be reached; trying again in {retry[1]} s ({retry[2]} of {retry[3]})")
            return False
        return "thrown while requesting" not in message


class _Notes(logging.Handler):
    """What fmrgen logs, as notes: those of `note` as they come, what modules log by one process of each machine."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "fmrgen" or os.environ.get("LOCAL_RANK", "0") == "0":
            write_line(record.getMessage())


def print_outcome(outcome: object, lines: Iterable[object], *, as_json: bool, quiet: bool = False) -> None:
    """Print the outcome as JSON, or in these lines unless `quiet`."""
    if as_json:
        print_json(outcome)
    elif not quiet:
        for line in lines:
            print_line(line)


def print_json(outcome: object) -> None:
    """Print the outcome for programs: one JSON object, or a list, on stdout; NaN and infinity are null."""
    from fmrgen.files import json_text

    print(json_text(outcome), end="")


def deliver(
    report: "Report",
    folder: Path | None = None,
    *,
    as_json: bool = False,
    quiet: bool = False,
    every: bool = True,
    plot_formats: "Sequence[PlotFormat]" = (),
) -> None:
    """Write a report into a folder, unless that is None, and print it.

    With `as_json` its data go to stdout, and the rest to stderr; with `quiet` warnings go there, and of the report the
    conclusions alone are printed. Without `every` only the first table is printed, in short. Its plots are written as
    files of `plot_formats` too.
    """
    from fmrgen.report.console import print_report
    from fmrgen.report.write import write

    paths = [] if folder is None else write(report, folder, plot_formats)
    print_last = write_line if as_json else print_line
    if as_json:
        print_json(report.data)
    elif not quiet:
        print_report(report, every=every)
    if as_json or quiet:
        for line in report.warnings:
            write_line(f"warning: {line}")
        for line in report.conclusions:
            print_last(line)
    if paths:
        print_last(str(paths[-1]))


def pushed_lines(pushed: "Pushed") -> Iterator[str]:
    """Yield where the splits are now, how to cite them, and what their owner should know."""
    seen = "private" if pushed.private else "public"
    yield f"{pushed.repo} ({seen}): {'pushed ' + ', '.join(pushed.new) if pushed.new else 'already up to date'}"
    if pushed.url is not None:
        yield pushed.url
    for tag in pushed.tags:
        yield f"cite as {pushed.repo}@{tag}"
    for note in pushed.notes:
        yield f"note: {note}"


def lines_on_files(verification: "FilesVerification", split: str) -> Iterator[str]:
    """Yield how many files are right, and the first of what is not."""
    intact, shards = verification.intact, verification.shards
    if verification.finished:
        count = f"all {shards}" if intact == shards else f"{intact} of {shards}"
        yield f"{split}: {count} files match their recorded checksums"
    else:
        yield f"{split}: {intact} of {shards} shards are complete; the split is not finished"
    yield from _listed(verification.wrong)


def verification_lines(verification: "Verification", split: str) -> Iterator[str]:
    """Yield how many rows are true, and the first of what is not."""
    yield f"{split}: {verification.true_rows} of {verification.rows} rows match their stored images"
    for note in verification.notes:
        yield f"note: {note}"
    wrong = verification.disagreements
    yield from _listed([f"id {row.id}: {row.column} is stored as {row.stored}, found {row.found}" for row in wrong])


def _listed(lines: list[str]) -> Iterator[str]:
    for line in lines[:_LISTED]:
        yield f"  {line}"
    if (more := len(lines) - _LISTED) > 0:
        yield f"  and {more} more"
