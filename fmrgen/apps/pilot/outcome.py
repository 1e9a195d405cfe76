"""What `init` chose, and what it measured on the way."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fmrgen.apps.pilot.candidates import Candidate
from fmrgen.apps.pilot.inspect import Inspection
from fmrgen.apps.pilot.panel import Judged
from fmrgen.apps.pilot.trust import Trust
from fmrgen.metrics.intervals import Estimate
from fmrgen.metrics.summary import Summary
from fmrgen.recipe.job import Recipe

if TYPE_CHECKING:
    from fmrgen.report.sheet import ImagePair


# Names of oracles.
PANEL = "panel of three networks"
PANEL_AND_PROBE = "panel and a linear probe"
PROBE = "linear probe"
TRAINED_HERE = (PANEL, PANEL_AND_PROBE, PROBE)


@dataclass(frozen=True)
class SizeTried:
    """The tested network's accuracy on images of a size, in percent; None if it does not take that size."""

    size: int
    accuracy: Estimate | None


@dataclass
class Init:
    """What `init` chose, and what it measured on the way.

    Attributes:
        path: of the recipe.
        images: what the images are like, line by line.
        counts: of images in each part.
        model: how the tested network was named; None for a stand-in.
        sizes: that were tried.
        size: that was chosen.
        generators: that were tried.
        generator: name of the chosen one.
        oracles: that were tried.
        oracle: name of the chosen one.
        inspection: the pilot by which the step was chosen.
        step_size: that was chosen.
        at_step: what it did in the pilot, in words.
        limit: how many images a split has, by the time that they take.
        summary: figures of the images that were perturbed on trial.
        trust: how far to trust what is made.
        pairs: images of the trial that fool the network, beside their originals.
        recipe: that is written: `fmrgen.generate(outcome.recipe, output=…)` makes its split.
        warnings: what looks wrong, each with its cure.
        seconds: of each stage, by its name.
    """

    path: str
    images: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    model: str | None = None
    sizes: list[SizeTried] = field(default_factory=list)
    size: int = 0
    generators: list[Candidate] = field(default_factory=list)
    generator: str = ""
    oracles: list[Judged] = field(default_factory=list)
    oracle: str = ""
    inspection: Inspection | None = None
    step_size: float = 0.0
    at_step: str = ""
    limit: int = 0
    summary: Summary | None = None
    trust: Trust | None = None
    pairs: "list[ImagePair]" = field(default_factory=list)
    recipe: Recipe | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
