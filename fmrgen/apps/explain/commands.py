"""The command `explain`."""

from pathlib import Path
from typing import Annotated

import typer

from fmrgen.cli.command import Command
from fmrgen.cli.options import (
    JsonOption,
    OutputOption,
    QuietOption,
    SplitArgument,
    TrustOption,
)
from fmrgen.errors import UserError


def explain(
    split: SplitArgument,
    classifier: Annotated[
        str | None,
        typer.Option("--classifier", "-c", metavar="C", help="Explain this one instead of the split's own."),
    ] = None,
    attributes: Annotated[
        list[str] | None,
        typer.Option(
            "--attribute", metavar="MODULE:NAME", help="Try this class of your own too, a fmrgen.Attribute. Repeat."
        ),
    ] = None,
    rows: Annotated[
        int, typer.Option("--rows", metavar="N", min=1, help="Look at N rows, drawn by chance where there are more.")
    ] = 1000,
    output: OutputOption = Path("explained"),
    card: Annotated[
        bool, typer.Option("--card", help="Put what is proven on the card of the split, here or on the Hub.")
    ] = False,
    trust: TrustOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say where a classifier fails, and prove it.

    Changes originals of the split by one attribute at a time (thickness, slant, position, contrast, …), as far as the
    oracle sees their class, and names what makes the classifier err beyond chance.
    """
    from fmrgen.files import check_writable
    from fmrgen.recipe.job import parse_classifier
    from fmrgen.split.reference import check_there

    if card and classifier is not None:
        raise UserError("--card: a card speaks of the split's own classifier; leave out --classifier")
    section = None if classifier is None else parse_classifier(classifier)[1]
    check_there(split)
    check_writable(output)

    from fmrgen.apps.explain.attributes import ATTRIBUTES, load_attribute
    from fmrgen.apps.explain.explain import explain as run
    from fmrgen.apps.explain.report import explanation_report, summary_lines
    from fmrgen.cli import display
    from fmrgen.progress import terminal as progress
    from fmrgen.report.write import prepare_folder

    display.quiet_libraries()
    own_attributes = [load_attribute(path) for path in attributes or []]
    prepare_folder(output)
    with progress.row_progress("explain", not quiet) as on_attributes:
        explanation = run(
            split,
            classifier=section,
            attributes=[*ATTRIBUTES, *own_attributes],
            rows=rows,
            trust=trust,
            on_attributes=on_attributes,
        )
    display.deliver(explanation_report(explanation), output, as_json=as_json, quiet=quiet)
    if card:
        from fmrgen.publish.explained import record_explanation

        display.print_note(f"card: {record_explanation(split, explanation.files, summary_lines(explanation))}")


COMMANDS = [Command("explain", "Measure", explain)]
