"""The command `explain`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fmrgen.cli import options
from fmrgen.cli.command import Command


def explain(
    split: options.OwnSplit = None,
    /,
    *,
    classifier: Annotated[str | None, Parameter(alias="-c", metavar="C")] = None,
    network: options.Network = None,
    attributes: Annotated[Sequence[str], Parameter(name="--attribute", metavar="MODULE:NAME")] = (),
    rows: options.Count = 1000,
    output: options.Output = Path("explained"),
    trust: options.Trust = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find where a classifier fails, and confirm it.

    Changes one attribute of the originals at a time (thickness, slant, position, contrast, …), keeps what the oracle
    accepts, and names the attributes that cause more errors than an equally large control change.

    Example: fmrgen explain out:mnist/lenet

    Args:
        classifier: Explain this classifier instead of the split's own.
        attributes: Also test your own subclass of fmrgen.Attribute. Repeat for more.
        rows: Analyse N rows, a random sample if there are more.
        output: The folder to write to.
    """
    from fmrgen.files import check_writable
    from fmrgen.recipe.job import the_classifier
    from fmrgen.split.reference import check_there

    section = None if classifier is None else the_classifier(classifier, network)[1]
    if split is None:
        split = options.own_split()
    check_there(split)
    check_writable(output)

    from fmrgen.apps.explain.attributes import ATTRIBUTES, load_attribute
    from fmrgen.apps.explain.explain import explain as run
    from fmrgen.apps.explain.report import explanation_report
    from fmrgen.cli import display
    from fmrgen.progress.bars import progress_shown

    display.quiet_libraries(quiet)
    with progress_shown(not quiet):
        explanation = run(
            split,
            classifier=section,
            attributes=[*ATTRIBUTES, *map(load_attribute, attributes)],
            rows=rows,
            trust=trust or options.is_own(split),
        )
    display.deliver(explanation_report(explanation), output, as_json=as_json, quiet=quiet)


COMMANDS = [Command("explain", "Measure", explain)]
