"""Why a classifier fails on a split: attributes that differ where it is fooled, each tried on originals that were not
looked at before."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fmrgen.apps.explain.attributes import ATTRIBUTES, Attribute, measured
from fmrgen.apps.explain.directions import failure_directions
from fmrgen.apps.explain.interventions import DOSES, Change, Originals, Trial, fewest_errors, proven
from fmrgen.apps.explain.phrases import Word, read_phrases
from fmrgen.apps.explain.rows import JudgedImages
from fmrgen.config import ComponentConfig
from fmrgen.engine.images import on_byte_grid, to_bytes
from fmrgen.engine.models import row_seed
from fmrgen.errors import UserError
from fmrgen.image_files import png_bytes
from fmrgen.jobs.verify import load_judges
from fmrgen.metrics.intervals import Estimate, paired_difference, proportion
from fmrgen.recipe.build import build_component, build_recorded_generator
from fmrgen.recipe.objects import AnyClassifier, classifier_section
from fmrgen.split.open import open_own_split
from fmrgen.storage.provenance import Provenance

_SHOWN = 8  # pairs of a finding
_FEWEST = 20  # originals to prove something on


@dataclass(frozen=True)
class Pair:
    """An original and what it was changed to, which the classifier has wrong: the files of PNGs."""

    id: int
    label: str
    answer: str
    original: bytes
    image: bytes


@dataclass(frozen=True)
class Finding:
    """One hypothesis and what its trial said. Shares are percent of the originals.

    Attributes:
        words: how images look on which the classifier would err.
        attribute: that was changed.
        is_proven: whether it stands among all that were tried, of which at most 5 % are false on average.
        e_value: the evidence; 20 for each hypothesis that was tried prove one alone.
        errors: of each way of a trial, how many of the originals it has wrong at the last dose that the oracle accepts.
        effect: errors along it less those of whichever other way has more.
        area: how far its curve, errors by dose, lies above that of the control that errs more: the mean over all doses,
            in points. What is proven is ranked by it.
        in_split: by how much more the attribute moves this way in the split's images that fool the classifier than in
            those that do not, in standard deviations; None where either are too few to tell.
        doses: of each dose, how many images the oracle accepts, and how many of these are wrong, for each way.
        classes: class, originals, and how many of these it has wrong along it, the most first.
        pairs: true class, answer and images, the most first.
        shown: some of them.
    """

    words: str
    attribute: str
    is_proven: bool
    e_value: float
    errors: dict[str, Estimate]
    effect: Estimate
    area: float
    in_split: float | None
    doses: dict[str, list[tuple[float, int, int]]]
    classes: list[tuple[str, int, int]]
    pairs: list[tuple[str, str, int]]
    shown: list[Pair]


@dataclass(frozen=True)
class Explanation:
    """What was tried, and what stands.

    Attributes:
        split: that was explained.
        files: the digest of its files.
        rows: valid rows that were looked at, `fooled` of which fool the classifier.
        fooled: as said.
        originals: of other rows, on which hypotheses were tried: those that the classifier has right, and the oracle
            sees.
        fewest_errors: how many of these a change must make wrong, where nothing else does, to be proven; None where
            that can't be.
        words: that a model proposes for what differs where the classifier is fooled; none of them is proven.
        findings: proven ones first, those of the largest area first; then the strongest evidence first.
    """

    split: str
    files: str
    rows: int
    fooled: int
    originals: int
    fewest_errors: int | None
    findings: list[Finding]
    words: list[Word]

    @property
    def proven(self) -> list[Finding]:
        return [one for one in self.findings if one.is_proven]

    @property
    def reported(self) -> list[Finding]:
        """Of these one of each attribute: the one with a direction, where there is one."""
        by_attribute: dict[str, Finding] = {}
        for one in sorted(self.proven, key=lambda one: "against" not in one.errors):
            by_attribute.setdefault(one.attribute, one)
        return [one for one in self.proven if by_attribute[one.attribute] is one]


def explain(
    split: str,
    *,
    classifier: AnyClassifier | None = None,
    attributes: Sequence[Attribute] = ATTRIBUTES,
    rows: int = 1000,
    phrases: Sequence[str] = (),
    reader: ComponentConfig | None = None,
    trust: bool = False,
    device: torch.device | str | None = None,
    on_attributes: Callable[[int, int], None] = lambda done, total: None,
) -> Explanation:
    """Looks at one half of a split's rows for what differs where the classifier is fooled, and tries every attribute
    on the originals of the other half.

    Args:
        split: a reference, `PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]`, of a split that fmrgen made, with originals.
        classifier: to explain, as for `evaluate`; by default the split's own, of its recipe.
        attributes: to try.
        rows: to look at and to try them on, half and half, drawn by chance where there are more; their images are all
            held in memory.
        phrases: that an image-text model is asked about; what it says is proposed and not proven.
        reader: the section of that model; by default the split's oracle.
        trust: let the recipe, which may be a stranger's, run the code and read the files and addresses that it names.
        device: of the models; a GPU where there is one.
        on_attributes: called with (attributes done, attributes in all).

    Raises:
        UserError: the split or its models can't be loaded, it has no originals, or too few of use.
    """
    opened, provenance = open_own_split(split)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if "original" not in opened.features:
        raise UserError(f"{split}: has no originals (output.keep_original), which explain changes")
    other = None
    if classifier is not None:
        other = build_component(classifier_section(classifier), "classifier", nn.Module, device)
    judges, _, sections = load_judges(
        split,
        provenance,
        classifier=other,
        may_differ=() if other is None else ("classifier",),
        trust=trust,
        device=device,
    )
    drawn = JudgedImages.read(opened, provenance, judges, rows, device)
    proposing = np.array([row_seed(0, int(i), "explain") % 2 for i in drawn.columns["id"]]) == 0
    moved, others = drawn.of(proposing & drawn.columns["valid"].astype(bool)), drawn.of(~proposing)
    fooled = moved.answers(moved.images) != moved.labels
    asked = sections.oracle if reader is None else reader
    words = read_phrases(asked, phrases, moved.originals, moved.images, fooled) if phrases else []
    in_split = {
        one.name: _apart(measured(one, moved.images) - measured(one, moved.originals), fooled) for one in attributes
    }
    known = (others.answers(others.originals) == others.labels) & others.sees(others.originals)
    tried_on = others.of(known)
    if len(tried_on) < _FEWEST:
        raise UserError(
            f"{split}: {len(tried_on)} originals are left to prove something on (not looked at before, right by the "
            f"classifier, seen by the oracle), and {_FEWEST} are needed; make a larger split"
        )
    changes = [Change.of(attribute) for attribute in attributes]
    changes += _directions(moved, fooled, tried_on, provenance, attributes, trust, device)
    originals = Originals(
        tried_on.originals,
        tried_on.columns["id"].tolist(),
        tried_on.labels,
        lambda images, at: tried_on.at(at).answers(images),
        lambda images, at: tried_on.at(at).sees(images),
    )
    trials: list[Trial] = []
    for done, change in enumerate(changes, start=1):
        trials += originals.try_out(change)
        on_attributes(done, len(changes))
    standing = proven(trials)
    names = list(provenance.labels)
    findings = [_finding(trial, trial in standing, tried_on, names, in_split) for trial in trials]
    return Explanation(
        split=split,
        files=provenance.files_digest,
        rows=len(moved),
        fooled=int(fooled.sum()),
        originals=len(tried_on),
        fewest_errors=fewest_errors(len(tried_on), len(trials)),
        findings=sorted(findings, key=lambda one: (not one.is_proven, -(one.area if one.is_proven else one.e_value))),
        words=words,
    )


def _directions(
    moved: JudgedImages,
    fooled: np.ndarray,
    tried_on: JudgedImages,
    provenance: Provenance,
    attributes: Sequence[Attribute],
    trust: bool,
    device: torch.device | str,
) -> list[Change]:
    """The ways in which the split's own failures were moved by its generator, to be tried on other rows; none where it
    takes long to encode an image."""
    if not fooled.any():
        return []
    generator = build_recorded_generator(provenance.recipe.generator.tree, trust=trust, device=device)
    if generator.encode_is_dear:
        return []
    shifts, of_failures = moved.moves_of(generator).shifts(moved.images), torch.from_numpy(fooled).to(device)
    found = failure_directions(shifts[of_failures], shifts[~of_failures])
    return tried_on.moves_of(generator).changes(found, attributes) if found else []


def _apart(change: np.ndarray, fooled: np.ndarray) -> float | None:
    """The mean of `change` [N] where the classifier is fooled less that elsewhere, in standard deviations."""
    if min(fooled.sum(), (~fooled).sum()) < 2 or (deviation := change.std()) == 0:
        return None
    return float((change[fooled].mean() - change[~fooled].mean()) / deviation)


def _finding(
    trial: Trial,
    is_proven: bool,
    rows: JudgedImages,
    names: Sequence[str],
    in_split: Mapping[str, float | None],
) -> Finding:
    hypothesis, along = trial.hypothesis, trial.moved["along"]
    apart = in_split.get(hypothesis.change.name)
    wrong = {way: moved.answers != rows.labels for way, moved in trial.moved.items()}
    rival = max((way for way in wrong if way != "along"), key=lambda way: int(wrong[way].sum()))
    shares = {way: proportion(of) for way, of in wrong.items()}
    counted = Counter(zip(rows.labels[wrong["along"]].tolist(), along.answers[wrong["along"]].tolist(), strict=True))
    classes = [
        (name, int(of.sum()), int(wrong["along"][of].sum()))
        for name, of in ((name, rows.labels == label) for label, name in enumerate(names))
        if of.any()
    ]
    return Finding(
        words=hypothesis.words,
        attribute=hypothesis.change.name,
        is_proven=is_proven,
        e_value=trial.e_value,
        errors={way: share for way, share in shares.items() if share is not None},
        effect=paired_difference(wrong["along"], wrong[rival]),
        area=trial.area,
        in_split=hypothesis.sign * apart if apart is not None and hypothesis.sign else None,
        doses={
            way: [(dose, *of) for dose, of in zip(DOSES, moved.by_dose, strict=True)]
            for way, moved in trial.moved.items()
        },
        classes=sorted(classes, key=lambda one: -one[2]),
        pairs=[(names[label], names[answer], count) for (label, answer), count in counted.most_common()],
        shown=_shown(trial, rows, names) if is_proven else [],
    )


def _shown(trial: Trial, rows: JudgedImages, names: Sequence[str]) -> list[Pair]:
    """Some of the originals that it makes wrong, of the most frequent pairs of classes first."""
    along = trial.moved["along"]
    pairs = list(zip(rows.labels.tolist(), along.answers.tolist(), strict=True))
    wrong = np.flatnonzero(along.answers != rows.labels)
    counted = Counter(pairs[place] for place in wrong)
    found = []
    for place in sorted(wrong, key=lambda place: -counted[pairs[place]])[:_SHOWN]:
        original = rows.originals[place : place + 1]
        amount = float(trial.signs[place] * DOSES[along.doses[place] - 1])
        files = (
            png_bytes(to_bytes(of)[0].permute(1, 2, 0).cpu().numpy())
            for of in (original, on_byte_grid(trial.hypothesis.change.move(original, np.array([place]), amount)))
        )
        label, answer = pairs[place]
        found.append(Pair(int(rows.columns["id"][place]), names[label], names[answer], *files))
    return found
