"""The report of an explanation."""

import json
from dataclasses import asdict
from functools import partial
from typing import Any

from fmrgen.apps.explain.explain import Explanation, Finding
from fmrgen.metrics.intervals import format_estimate
from fmrgen.report.plot import Plot, colours, drawing, grid_of_figures
from fmrgen.report.report import Badge, KeyFigure, Picture, Report, Section, Table
from fmrgen.report.sheet import pair_sheet

SCHEMA = "fmrgen-explain/3"
_WAY_TITLES = {"along": "changed this way", "against": "the opposite way", "otherwise": "equally large control change"}
_CONTROLS = {"against": "when changed the opposite way", "otherwise": "under an equally large control change"}
_MEANINGS = {
    "area": "How far its curve, errors by dose, lies above that of the control that errs more, in points: the mean "
    "over all doses. What is confirmed is ranked by it.",
    "p": "Of McNemar's exact test that errors are no more frequent this way than the opposite way, and than under the "
    "control change; what is significant is so among all that were tried (Holm).",
    "in the split": "By how many standard deviations more the split's images that fool the classifier move this way "
    "than its others.",
}


def explanation_report(explanation: Explanation) -> Report:
    """Return the report of an explanation: its sentences, curves and images of each, and all that was tried."""
    sections = []
    for finding in explanation.reported:
        curve = Picture(
            "Originals that the classifier reads correctly, changed this way, the opposite way, and by an equally "
            "large control change of another kind: the share that the classifier then misreads, of those in which the "
            "oracle still sees the class.",
            partial(_curve, finding),
        )
        pairs = Picture(
            "Left the original with its label, beside it the changed image with the classifier's prediction.",
            partial(pair_sheet, finding.shown, columns=4),
            of_photos=True,
        )
        title = f"Originals changed to {finding.words}"
        sections.append(Section("finding", title, pictures=[curve, pairs], shown="on the page"))
    table, most_rows = _findings_table(explanation), len(explanation.confirmed) + 5
    title = "All that was tried, what is confirmed first"
    sections.append(Section("tried", title, tables=[table], folded=True, most_rows=most_rows))
    tree: dict[str, Any] = {"schema": SCHEMA} | asdict(explanation)
    for finding_tree in tree["findings"]:
        del finding_tree["shown"]  # images, which only the page has
    count = len(explanation.reported)
    changes = "1 change" if count == 1 else f"{count} changes"
    return Report(
        "explain",
        f"Where the classifier fails: {explanation.split}",
        sections,
        tree,
        conclusions=summary_lines(explanation),
        meanings=_MEANINGS,
        badge=Badge(f"{changes} it fails under", "bad") if count else None,
        figures=[
            KeyFigure(f"misread when changed to {finding.words}", finding.errors["along"])
            for finding in explanation.reported[:3]
        ],
        next_steps=_next_steps(explanation),
    )


def _next_steps(explanation: Explanation) -> list[str]:
    """Return what to do about the findings."""
    if not explanation.reported:
        return []
    changes = [f"{json.dumps(finding.attribute)}: {list(finding.amounts)}" for finding in explanation.reported[:3]]
    return [
        "look at the changed images below: does a person still see the class?",
        "train with images that are changed at random in this way: "
        f"augment.change={{{', '.join(changes)}}} of `fmrgen train`, or fmrgen.RandomChange in a pipeline of your own; "
        "it repaired 16 of 20 networks",
    ]


def sentence(finding: Finding, name: str) -> str:
    """Return a finding in words: where a classifier, called `name`, fails, how often, and how often the controls."""
    controls = [
        f"{format_estimate(finding.errors[way])} % {text}" for way, text in _CONTROLS.items() if way in finding.errors
    ]
    share = format_estimate(finding.errors["along"])
    line = (
        f"{name} misreads {share} % of the originals when they are changed to {finding.words} ({', '.join(controls)})"
    )
    if finding.pairs:
        pairs = [f"{label} → {prediction} ({count})" for label, prediction, count in finding.pairs[:2]]
        line += "; most often " + " and ".join(pairs)
    return line


def summary_lines(explanation: Explanation) -> list[str]:
    """Return what is confirmed, or that nothing is, and what so few originals can't show."""
    # `fmrgen diff` names the split against NEW so.
    name = "NEW" if explanation.split.endswith("-negative/new") else "the classifier"
    lines = [sentence(finding, name) for finding in explanation.reported]
    if not lines:
        lines = [f"no change that was tried makes {name} fail significantly more often than the controls"]
    attributes = dict.fromkeys(finding.attribute for finding in explanation.findings)
    originals, fewest = explanation.originals, explanation.fewest_errors
    if fewest is None:
        unseen = "these originals are too few to show anything"
    else:
        share = f"{fewest} of {originals:,} originals wrong ({fewest / originals:.1%})"
        unseen = f"a change that makes fewer than {share} can't be shown with so few"
    return [
        *lines,
        f"{explanation.fooled:,} of {explanation.rows:,} perturbed images fool {name}; {len(explanation.findings)} "
        f"hypotheses were tested on {originals:,} other originals, changed for as long as the oracle saw their class; "
        f"any finding is false with a probability of 5 % at most; {unseen}",
        f"tried: {', '.join(attributes)}; a fault outside these is not found: no finding does not mean no fault",
    ]


def _findings_table(explanation: Explanation) -> Table:
    """Return a table of every hypothesis, the confirmed first."""
    rows = []
    for finding in explanation.findings:
        confirmed = "confirmed" if finding.is_confirmed else ""
        errors = [format_estimate(finding.errors.get(way)) for way in _WAY_TITLES]
        in_split = "n/a" if finding.in_split is None else f"{finding.in_split:z.2f}"
        rows.append([finding.words, confirmed, f"{finding.area:z.1f}", *errors, f"{finding.p_value:.2g}", in_split])
    titles = [f"{title}, %" for title in _WAY_TITLES.values()]
    header = ["originals changed to", "", "area", *titles, "p", "in the split"]
    return Table(header, rows, first_columns=("", *titles))


def _curve(finding: Finding) -> Plot:
    """Return a plot of errors by dose, among the images that the oracle still accepts."""
    with drawing():
        figure = Plot(figsize=(5, 2.6))
        axes = figure.subplots()
        for (way, counts), colour in zip(finding.doses.items(), colours(len(finding.doses)), strict=True):
            percent = {0.0: 0.0} | {dose: 100 * wrong / accepted for dose, accepted, wrong in counts if accepted}
            title = _WAY_TITLES[way]
            axes.plot(list(percent), list(percent.values()), color=colour, marker="o", markersize=4, label=title)
        axes.set_xlabel("dose")
        axes.set_ylabel("wrong, % of the accepted")
        grid_of_figures(axes)
        axes.legend(fontsize=8)
    return figure
