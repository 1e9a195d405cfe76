"""Where a classifier fails on a split: attributes that differ where it is fooled, each tried on originals that were
not looked at before."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fmrgen.apps.explain.attributes import ATTRIBUTES, Attribute, measured
from fmrgen.apps.explain.interventions import AMOUNTS, DOSES, Trial, confirmed, fewest_errors, try_out
from fmrgen.apps.explain.rows import DrawnRows
from fmrgen.engine.images import on_byte_grid, to_bytes
from fmrgen.engine.models import row_seed
from fmrgen.errors import UserError
from fmrgen.image_files import png_bytes
from fmrgen.jobs.verify import load_judges
from fmrgen.metrics.intervals import Estimate, paired_difference, proportion
from fmrgen.progress.bars import report
from fmrgen.recipe.build import build_component
from fmrgen.recipe.objects import AnyClassifier, classifier_section
from fmrgen.report.sheet import ImagePair
from fmrgen.split.open import open_own_split

_PAIRS_SHOWN = 8  # of a finding
_FEWEST = 20  # originals to test on


@dataclass(frozen=True)
class Finding:
    """One hypothesis and the outcome of its trial. Shares are percent of the originals.

    `in_split` is by how much more the attribute moves this way in the split's images that fool the classifier than in
    those that do not, in standard deviations; None if either are too few to tell, or if the change goes either way.
    """

    words: str  # how images look on which the classifier would err
    attribute: str
    amounts: tuple[float, float]  # from the least to the most that it was changed by, as `RandomChange` takes them
    is_confirmed: bool  # among all that were tried (Holm): any is false with a probability of 5 % at most
    p_value: float  # of McNemar's exact test against the control with more errors
    errors: dict[str, Estimate]  # for each way of a trial, the share wrong at the last dose that the oracle accepts
    effect: Estimate  # errors along it minus those of the control with more
    area: float  # see `Trial.area`; confirmed findings are ranked by it
    in_split: float | None
    doses: dict[str, list[tuple[float, int, int]]]  # for each way: dose, images that the oracle accepts, wrong ones
    classes: list[tuple[str, int, int]]  # class, originals, and how many of these it has wrong along it, the most first
    pairs: list[tuple[str, str, int]]  # true class, prediction and number of images, the most frequent first
    shown: list[ImagePair]  # examples, if it is confirmed


@dataclass(frozen=True)
class Explanation:
    """All hypotheses that were tested on a split, and which of them are significant.

    Attributes:
        split: reference of the split.
        files: the digest of its files.
        rows: number of valid rows that suggested hypotheses.
        fooled: how many of these fool the classifier.
        originals: number of originals, from other rows, that hypotheses were tested on. The classifier is right on
            them, and the oracle sees their class.
        fewest_errors: how many originals a change must make wrong, and its controls none, to be significant; None if no
            number is enough.
        findings: significant ones first, by area; then the others, by p-value.
    """

    split: str
    files: str
    rows: int
    fooled: int
    originals: int
    fewest_errors: int | None
    findings: list[Finding]

    @property
    def confirmed(self) -> list[Finding]:
        """The significant findings, the largest area first."""
        return [finding for finding in self.findings if finding.is_confirmed]

    @property
    def reported(self) -> list[Finding]:
        """One significant finding per attribute: one with a direction if there is one, else that for either way."""
        by_attribute: dict[str, Finding] = {}
        for finding in sorted(self.confirmed, key=lambda finding: "against" not in finding.errors):
            by_attribute.setdefault(finding.attribute, finding)
        return [finding for finding in self.confirmed if by_attribute[finding.attribute] is finding]


def explain(
    split: str,
    *,
    classifier: AnyClassifier | None = None,
    attributes: Sequence[Attribute] = ATTRIBUTES,
    rows: int = 1000,
    trust: bool = False,
    device: torch.device | str | None = None,
) -> Explanation:
    """Find attributes that differ where a classifier is fooled, and test which of them make it fail.

    Hypotheses from one half of the rows are tested on the originals of the other half.

    Args:
        split: a reference, `PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]`, of a split that fmrgen generated, with originals.
        classifier: the classifier to explain, as for `evaluate`; by default that of the split's recipe.
        attributes: the attributes to test.
        rows: number of rows in both halves together, drawn at random if there are more. All their images stay in
            memory.
        trust: let the split's recipe, which may be a stranger's, run the code and read the places that it names.
        device: of the models; by default a GPU if there is one.

    Returns:
        The findings and what they rest on.

    Raises:
        UserError: the split or its models can't be loaded, it has no originals, or too few usable ones.
    """
    opened, provenance = open_own_split(split)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if "original" not in opened.features:
        raise UserError(f"{split}: has no originals (output.keep_original), which explain changes")
    other, may_differ = None, []
    if classifier is not None:
        other = build_component(classifier_section(classifier), "classifier", nn.Module, device)
        may_differ = ["classifier"]
    judges, _, _ = load_judges(split, provenance, classifier=other, may_differ=may_differ, trust=trust, device=device)
    sample = DrawnRows.of_split(opened, provenance, judges, rows, device)
    is_observed = np.array([row_seed(0, example_id, "explain") % 2 for example_id in sample.ids]) == 0
    observed = sample.at(is_observed & sample.columns["valid"])
    if not len(observed) or is_observed.all():
        raise UserError(
            f"{split}: its {len(sample)} rows are too few, for one half proposes where it fails and the other confirms "
            "it; generate a larger split"
        )
    fooled = observed.predictions(observed.images) != observed.labels
    in_split = {}
    for attribute in attributes:
        change = measured(attribute, observed.images) - measured(attribute, observed.originals)
        in_split[attribute.name] = _standardised_difference(change, fooled)

    others = sample.at(~is_observed)
    is_right = others.predictions(others.originals) == others.labels
    tested = others.at(is_right & others.accepts(others.originals))
    if len(tested) < _FEWEST:
        raise UserError(
            f"{split}: {len(tested)} originals are left to confirm on (held out, classified correctly, accepted by the "
            f"oracle), and {_FEWEST} are needed; generate a larger split"
        )
    trials: list[Trial] = []
    for done, attribute in enumerate(attributes, start=1):
        trials += try_out(tested, attribute)
        report("explain", done, len(attributes))
    confirmed_trials = confirmed(trials)
    names = list(provenance.labels)
    findings = [_finding(trial, trial in confirmed_trials, tested, names, in_split) for trial in trials]
    return Explanation(
        split=split,
        files=provenance.files_digest,
        rows=len(observed),
        fooled=int(fooled.sum()),
        originals=len(tested),
        fewest_errors=fewest_errors(len(tested), len(trials)),
        findings=sorted(
            findings, key=lambda entry: (not entry.is_confirmed, -entry.area if entry.is_confirmed else entry.p_value)
        ),
    )


def _standardised_difference(change: np.ndarray, fooled: np.ndarray) -> float | None:
    """Return the mean of `change` [N] where the classifier is fooled minus that elsewhere, in standard deviations."""
    if min(fooled.sum(), (~fooled).sum()) < 2 or change.std() == 0:
        return None
    return float((change[fooled].mean() - change[~fooled].mean()) / change.std())


def _finding(
    trial: Trial, is_confirmed: bool, rows: DrawnRows, names: Sequence[str], in_split: Mapping[str, float | None]
) -> Finding:
    """Return what a trial on `rows` shows; `in_split` has the standardised difference of each attribute."""
    along = trial.moved["along"]
    wrong: dict[str, np.ndarray] = {}
    errors: dict[str, Estimate] = {}
    for way, moved in trial.moved.items():
        wrong[way] = moved.last != rows.labels
        share = proportion(wrong[way])
        if share is not None:
            errors[way] = share
    wrong_along = wrong.pop("along")
    rival = max(wrong.values(), key=np.count_nonzero)
    difference = in_split[trial.attribute.name]
    if difference is not None:  # a change either way has no direction
        difference = trial.sign * difference if trial.sign else None
    wrong_labels = rows.labels[wrong_along].tolist()
    originals_by_class, wrong_by_class = Counter(rows.labels.tolist()), Counter(wrong_labels)
    classes = [(names[label], count, wrong_by_class[label]) for label, count in sorted(originals_by_class.items())]
    pairs = Counter(zip(wrong_labels, along.last[wrong_along].tolist(), strict=True))
    return Finding(
        words=trial.words,
        attribute=trial.attribute.name,
        amounts=AMOUNTS[trial.sign],
        is_confirmed=is_confirmed,
        p_value=trial.p_value,
        errors=errors,
        effect=paired_difference(wrong_along, rival),
        area=trial.area,
        in_split=difference,
        doses={way: moved.by_dose for way, moved in trial.moved.items()},
        classes=sorted(classes, key=lambda counts: -counts[2]),
        pairs=[(names[label], names[prediction], count) for (label, prediction), count in pairs.most_common()],
        shown=_example_pairs(trial, rows, names, pairs) if is_confirmed else [],
    )


def _example_pairs(
    trial: Trial, rows: DrawnRows, names: Sequence[str], counts: Mapping[tuple[int, int], int]
) -> list[ImagePair]:
    """Return some of the originals that the change makes wrong, of the most frequent pairs of classes first."""
    along = trial.moved["along"]
    label_pairs = list(zip(rows.labels.tolist(), along.last.tolist(), strict=True))
    wrong = np.flatnonzero(along.last != rows.labels)
    examples = []
    for place in sorted(wrong, key=lambda place: -counts[label_pairs[place]])[:_PAIRS_SHOWN]:
        original = rows.originals[place : place + 1]
        amount = float(trial.signs[place] * DOSES[along.doses[place] - 1])
        changed = on_byte_grid(trial.attribute.change(original, amount))
        label, prediction = label_pairs[place]
        examples.append(ImagePair(_png(original), _png(changed), names[label], names[prediction], is_wrong=True))
    return examples


def _png(image: Tensor) -> bytes:
    """Return an image [1, 3, H, W] in [0, 1] as the bytes of a PNG file."""
    return png_bytes(to_bytes(image)[0].permute(1, 2, 0).cpu().numpy())
