"""Whether generators agree on a ranking (paper §4.3, Table 3): Kendall's tau of each pair, and W of all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import rankdata

from fmrgen.errors import UserError
from fmrgen.evaluation.results import EvaluationData
from fmrgen.intervals import CONFIDENCE, Estimate, foundation_model_robustness

_RESAMPLES = 2_000
_FEWEST_CLASSIFIERS = 3  # two have but one order and the other


@dataclass(frozen=True)
class PairAgreement:
    """Kendall's tau of the rankings under two generators, from -1 to 1 (1: the same order)."""

    first: str
    second: str
    tau: Estimate


@dataclass(frozen=True)
class Agreement:
    """Classifiers on their own splits under several generators.

    Attributes:
        generators: by the names of their recipes.
        classifiers: that all of them were used on.
        rows: images that all splits have.
        fmr: of each generator the classifiers' FMR, in percent.
        pairs: tau of each two generators.
        concordance: Kendall's W of all rankings, from 0 to 1 (1: one order under all).
    """

    generators: list[str]
    classifiers: list[str]
    rows: int
    fmr: list[list[Estimate]]
    pairs: list[PairAgreement]
    concordance: Estimate

    def ranks(self) -> list[list[int]]:
        """Of each generator the classifiers' ranks, the highest FMR first."""
        return [[1 + sum(other.value > one.value for other in row) for one in row] for row in self.fmr]


def agreement(evaluations: Mapping[str, EvaluationData], *, resamples: int = _RESAMPLES, seed: int = 0) -> Agreement:
    """How far the generators agree.

    The intervals are percentiles of a bootstrap of images, the same ones under all generators and for all classifiers.
    Chance in a resample disorders what is close, so they are wide rather than narrow. Those of FMR are as everywhere.

    Args:
        evaluations: of each generator, by its name: what `compare` returned, of one source and the same classifiers.
        resamples: of the bootstrap.
        seed: of its draws.

    Returns:
        Figures of the classifiers that have an FMR under all of them.

    Raises:
        UserError: fewer than two generators or three such classifiers, or no images in common.
    """
    own = {name: _own_splits(found) for name, found in evaluations.items()}
    classifiers = [name for name in next(iter(own.values()), {}) if all(name in of for of in own.values())]
    check_many_enough(len(evaluations), len(classifiers))
    tables = [
        [_rows(found.predictions, own[name][classifier], classifier) for classifier in classifiers]
        for name, found in evaluations.items()
    ]
    common = tables[0][0]["id"]
    for row in tables:
        for table in row:
            common = np.intersect1d(common, table["id"])
    if not len(common):
        raise UserError("the splits have no images in common; let their recipes have one source")
    labels = [_of_ids(table, common)["label"] for row in tables for table in row]
    if any(not np.array_equal(other, labels[0]) for other in labels[1:]):
        raise UserError("the splits have other labels for the same ids; let their recipes have one source")
    drawn = np.random.default_rng(seed).multinomial(len(common), np.full(len(common), 1 / len(common)), resamples)
    weights = np.vstack([np.ones(len(common)), drawn])  # what was observed comes first
    answers = [[_answers(table, common) for table in row] for row in tables]
    fmr = np.stack([[_robustness(weights, *told) for told in row] for row in answers])  # [G, C, 1 + R]
    if np.isnan(fmr[..., 0]).any():
        raise UserError("a classifier has no FMR on the images in common; none of its rows there is valid")
    fmr = fmr[..., ~np.isnan(fmr).any((0, 1))]
    pairs = combinations(zip(evaluations, fmr, strict=True), 2)
    return Agreement(
        generators=list(evaluations),
        classifiers=classifiers,
        rows=len(common),
        fmr=[[_fmr(*told) for told in row] for row in answers],
        pairs=[PairAgreement(first, second, _estimate(_taus(one, other))) for (first, one), (second, other) in pairs],
        concordance=_estimate(_concordance(fmr)),
    )


def check_many_enough(generators: int, classifiers: int) -> None:
    """Raises UserError where there are too few for rankings to agree or differ."""
    if generators < 2:
        raise UserError("generators: an agreement needs at least two")
    if classifiers < _FEWEST_CLASSIFIERS:
        raise UserError(
            f"classifiers: rankings of {classifiers} can't be told to agree; give {_FEWEST_CLASSIFIERS} or more that "
            "have an FMR under all generators"
        )


def _own_splits(evaluation: EvaluationData) -> dict[str, str]:
    """The own split of each classifier that has an FMR on it."""
    ranking = [] if evaluation.own is None else evaluation.own.ranking
    return {place.classifier: place.split for place in ranking if place.best is not None}


def _rows(predictions: pa.Table, split: str, classifier: str) -> dict[str, np.ndarray]:
    mine = pc.and_(
        pc.equal(predictions["split"].cast(pa.string()), split),
        pc.equal(predictions["classifier"].cast(pa.string()), classifier),
    )
    found = predictions.filter(mine)
    names = ("id", "label", "valid", "original_prediction", "prediction")
    return {name: found[name].to_numpy(zero_copy_only=False) for name in names}


def _answers(table: Mapping[str, np.ndarray], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the rows of `ids`, in their order: valid, right on the perturbed image, right on the original."""
    rows = _of_ids(table, ids)
    label, valid = rows["label"], rows["valid"].astype(bool)
    return valid, valid & (rows["prediction"] == label), rows["original_prediction"] == label


def _of_ids(table: Mapping[str, np.ndarray], ids: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of `ids`, in their order."""
    order = np.argsort(table["id"])
    rows = order[np.searchsorted(table["id"], ids, sorter=order)]
    return {name: values[rows] for name, values in table.items()}


def _fmr(valid: np.ndarray, perturbed: np.ndarray, original: np.ndarray) -> Estimate:
    """As everywhere, with an interval where none or all are right too."""
    found, _ = foundation_model_robustness(perturbed, valid, original)
    assert found is not None  # else the classifier would have no rank
    return found


def _robustness(weights: np.ndarray, valid: np.ndarray, perturbed: np.ndarray, original: np.ndarray) -> np.ndarray:
    """FMR in percent under each row of weights [R, N]; NaN where nothing is valid or right."""
    of_valid, of_all = weights @ valid, weights @ original
    accuracy = np.divide(weights @ perturbed, of_valid, out=np.full(len(weights), np.nan), where=of_valid > 0)
    standard = of_all / weights.sum(1)
    return 100 * np.divide(accuracy, standard, out=np.full(len(weights), np.nan), where=standard > 0)


def _taus(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Kendall's tau of two columns of FMR [C], under each resample [C, R]; tau-b, which ties do not make less."""
    pairs = list(combinations(range(len(one)), 2))
    signs = [np.stack([np.sign(values[a] - values[b]) for a, b in pairs]) for values in (one, other)]
    apart = np.sqrt(np.abs(signs[0]).sum(0) * np.abs(signs[1]).sum(0))
    together: np.ndarray = (signs[0] * signs[1]).sum(0)
    return np.divide(together, apart, out=np.zeros_like(apart), where=apart > 0)


def _concordance(fmr: np.ndarray) -> np.ndarray:
    """Kendall's W of G rankings of C classifiers, under each resample [G, C, R], corrected for ties."""
    generators, classifiers, _ = fmr.shape
    sums = rankdata(fmr, axis=1).sum(0)
    apart = ((sums - sums.mean(0)) ** 2).sum(0)
    alike = (fmr[:, :, None] == fmr[:, None]).sum(2)  # how many have each one's figure
    ties = (alike**2 - 1).sum((0, 1))
    most = generators**2 * (classifiers**3 - classifiers) - generators * ties
    return np.divide(12 * apart, most, out=np.zeros_like(apart), where=most > 0)


def _estimate(values: Sequence[float] | np.ndarray) -> Estimate:
    """What was observed, and percentiles of what was drawn after it."""
    observed, *drawn = values
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Estimate(float(observed), float(low), float(high))
