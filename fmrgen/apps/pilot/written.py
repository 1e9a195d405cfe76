"""The recipe that `init` writes, with its reasons, and the report on them."""

from collections.abc import Mapping
from functools import partial
from textwrap import TextWrapper
from typing import TYPE_CHECKING, Any

from fmrgen.apps.pilot.candidates import Candidate
from fmrgen.apps.pilot.outcome import PANEL, TRAINED_HERE, Init
from fmrgen.apps.pilot.panel import Judged
from fmrgen.files import to_yaml
from fmrgen.metrics.intervals import Estimate, format_estimate
from fmrgen.report.report import Badge, KeyFigure, Picture, Report, Section, Table

if TYPE_CHECKING:
    from fmrgen.report.plot import Plot

_WIDTH = 110
_LEGIBLE = 80.0  # percent of the fooling images, that should show their class whatever the sample


def recipe_text(outcome: Init, tree: Mapping[str, Any]) -> str:
    """Return a recipe as YAML, each section below the reason for it."""
    reasons = {
        "source": _of_source(outcome),
        "classifier": _of_classifier(outcome),
        "generator": _of_generator(outcome),
        "oracle": _of_oracle(outcome),
        "perturb": _of_perturb(outcome),
        "output": ["Names in the dataset folder: of images, generator and oracle, and of the network."],
    }
    lines = [
        "# Written by fmrgen init: what it measured stands above each choice. Change what you like.",
        "# Commands in this folder take this recipe by themselves: fmrgen generate, inspect, compare, diff, explain.",
    ]
    comment = TextWrapper(
        _WIDTH, initial_indent="# ", subsequent_indent="#   ", break_long_words=False, break_on_hyphens=False
    )
    for name, section in tree.items():
        lines.append("")
        for reason in reasons[name]:
            lines += comment.wrap(reason)
        lines += to_yaml({name: section}, _WIDTH).rstrip().splitlines()
    return "\n".join(lines) + "\n"


def _of_source(outcome: Init) -> list[str]:
    counts = outcome.counts
    return [
        f"{counts['tested']:,} of your images, which nothing here has seen; {counts['choose']:,} others decided the "
        f"choices below, and {counts['panel']:,} taught the oracle. The parts share no copy, scene or series.",
        f"limit: as many as two networks take in a few minutes here. Without it all {counts['tested']:,} are used.",
    ]


def _of_classifier(outcome: Init) -> list[str]:
    if outcome.model is None:
        return ["A small network of these images, in place of yours; a diff takes the two that it is given."]
    tried = []
    for entry in outcome.sizes:
        tried.append(f"{entry.size} px {'not taken' if entry.accuracy is None else format_estimate(entry.accuracy)}")
    return [f"Accuracy in percent by size: {', '.join(tried)}. Images have {outcome.size} px."]


def _of_generator(outcome: Init) -> list[str]:
    reasons = []
    for candidate in outcome.generators:
        figures = (
            f"reconstructions of {candidate.psnr:.1f} dB cost the network {format_estimate(candidate.lost)} points of "
            f"accuracy; {1000 * candidate.seconds:.0f} ms a step."
        )
        reasons.append(_reason(candidate, outcome.generator, figures))
    return reasons


def _of_oracle(outcome: Init) -> list[str]:
    reasons = []
    for entry in outcome.oracles:
        share = format_estimate(entry.accuracy)
        figures = f"right on {share} % of images that it has not seen{_of_members(entry.members)}."
        reasons.append(_reason(entry, outcome.oracle, figures))
    if outcome.oracle in TRAINED_HERE:
        knows = "only your images"
        if outcome.oracle != PANEL:
            knows = "your images, and the features of a network that was trained on others"
        reasons.append(f"It knows {knows}. Another: zero_shot:REPO, clip:REPO, or any better network.")
    return reasons


def _reason(entry: Candidate | Judged, chosen: str, figures: str) -> str:
    """Return what a generator or an oracle showed, or why it could not be tried."""
    mark = "Taken" if entry.name == chosen else "Tried"
    return f"{mark}: {entry.name}: {entry.why_not or figures}"


def _of_members(members: Mapping[str, float] | None) -> str:
    if not members:
        return ""
    return f" ({', '.join(f'{name} {share:.0f}' for name, share in members.items())})"


def _of_perturb(outcome: Init) -> list[str]:
    chosen = next(entry for entry in outcome.oracles if entry.name == outcome.oracle)
    reasons = [
        f"min_probability: the highest at which the oracle accepts 80 % of the originals, raised until it accepts "
        f"at most 2 % as another class. It accepts {format_estimate(chosen.kept)} %, and "
        f"{format_estimate(chosen.wrong)} % as another. Of images that are half another class it accepts "
        f"{format_estimate(chosen.mixes)} %, of shuffled pixels {format_estimate(chosen.shuffled)} %.",
    ]
    if outcome.inspection is not None:
        reasons.append(
            f"step_size: the longest tried of 5 steps or more on average; on {outcome.inspection.images} images "
            f"{outcome.at_step}."
        )
    reasons.append("keep: the first image that fools the network, not the last that the oracle accepts.")
    return reasons


def init_report(outcome: Init, split: str) -> Report:
    """Return the report of an `init`: what was chosen, by which figures, and how far to trust it."""
    sections = []
    conclusions = []
    if outcome.trust is not None:
        conclusions = outcome.trust.lines(split, by_panel=outcome.oracle in TRAINED_HERE)
        rows = [
            ["originals", str(outcome.trust.originals.images), _share(outcome.trust.originals.named)],
            ["accepted, not fooling", str(outcome.trust.accepted.images), _share(outcome.trust.accepted.named)],
            ["accepted and fooling", str(outcome.trust.fooling.images), _share(outcome.trust.fooling.named)],
        ]
        about = f"What {outcome.trust.reader} names as labelled."
        table = Table(["images", "n", "named as labelled, %"], rows)
        pictures = []
        if outcome.pairs:
            pictures.append(Picture("Images that fool the network", partial(_sheet, outcome), of_photos=True))
        sections.append(Section("trust", "Trust", about, [table], pictures=pictures))
    sections.append(Section("images", "Images", lines=list(outcome.images)))
    if outcome.sizes:
        rows = [[f"{entry.size} px", _share(entry.accuracy)] for entry in outcome.sizes]
        sections.append(Section("size", "Size", tables=[Table(["images of", "accuracy, %"], rows)]))
    sections += [_generators(outcome), _oracles(outcome)]
    rows = [[name, f"{seconds:.0f}"] for name, seconds in outcome.seconds.items()]
    sections.append(Section("time", "Time", tables=[Table(["stage", "seconds"], rows)]))
    data = {name: value for name, value in vars(outcome).items() if name not in ("recipe", "pairs")}
    return Report(
        "init",
        "A recipe for your images",
        sections,
        data,
        conclusions=conclusions,
        warnings=list(outcome.warnings),
        badge=_badge(outcome),
        figures=_key_figures(outcome),
        allow_nan=True,
    )


def _badge(outcome: Init) -> Badge:
    """Return whether the images that the recipe makes still show their class, as far as the reader can tell."""
    legible = None if outcome.trust is None else outcome.trust.legible
    if legible is None:
        return Badge("Look at the images", "unclear")
    about, low = legible
    words = f"About {about:.0f} % still show their class"
    return Badge(words, "good" if low >= _LEGIBLE else "unclear")


def _key_figures(outcome: Init) -> list[KeyFigure]:
    if outcome.trust is None:
        return []
    figures = []
    readings = {"originals": outcome.trust.originals, "accepted and fooling": outcome.trust.fooling}
    for name, reading in readings.items():
        if reading.named is not None:
            figures.append(KeyFigure(f"{name}, named as labelled", reading.named))
    return figures


def _sheet(outcome: Init) -> "Plot":
    """Return pairs of an original and what became of it."""
    from fmrgen.report.sheet import pair_sheet

    return pair_sheet(outcome.pairs)


def _share(estimate: Estimate | None) -> str:
    return "n/a" if estimate is None else format_estimate(estimate)


def _generators(outcome: Init) -> Section:
    rows = []
    for candidate in outcome.generators:
        figures = [f"{candidate.psnr:.1f}", _share(candidate.accuracy), _share(candidate.lost)]
        rows.append(_row(candidate, outcome.generator, [*figures, f"{1000 * candidate.seconds:.0f}"]))
    header = ["generator", "reconstructions, dB", "the network's accuracy on them, %", "points lost", "ms a step"]
    return Section("generators", "Generators", tables=[Table(header, rows)])


def _oracles(outcome: Init) -> Section:
    rows = []
    for entry in outcome.oracles:
        shares = [entry.kept, entry.wrong, entry.mixes, entry.shuffled]
        figures = [_share(entry.accuracy), f"{entry.threshold:g}", *map(_share, shares)]
        rows.append(_row(entry, outcome.oracle, figures))
    accepted = ["originals", "as another class", "mixtures", "shuffled pixels"]
    header = ["oracle", "accuracy, %", "threshold", *[f"{images} accepted, %" for images in accepted]]
    about = "A mixture is half an image of another class: a careful oracle accepts few, and no shuffled pixels."
    return Section("oracles", "Oracles", about, [Table(header, rows)])


def _row(entry: Candidate | Judged, chosen: str, figures: list[str]) -> list[str]:
    """Return the row of a generator or an oracle: its figures, or why there are none."""
    name = f"{entry.name} (taken)" if entry.name == chosen else entry.name
    if entry.why_not:
        figures = [entry.why_not, *[""] * (len(figures) - 1)]
    return [name, *figures]
