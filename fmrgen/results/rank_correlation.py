"""How far two measures rank the same classifiers alike."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class RankCorrelation:
    """The rank correlation of two measures over the classifiers that have both.

    Attributes:
        first, second: the measures.
        classifiers: that have both.
        spearman, kendall: Spearman's rho and Kendall's tau, from -1 to 1 (1: the same order); 0 if a measure is the
            same for all.
        p_value: the chance of a tau at least as far from 0 if the measures had nothing to do with each other, over all
            orders of so many classifiers: exact without ties.
    """

    first: str
    second: str
    classifiers: list[str]
    spearman: float
    kendall: float
    p_value: float


def rank_correlation(first: str, second: str, values: Mapping[str, Mapping[str, float]]) -> RankCorrelation:
    """Return the rank correlation of two measures.

    Args:
        first: a measure.
        second: another one.
        values: of each measure, by classifier.
    """
    from scipy.stats import kendalltau, spearmanr  # a second's import, which most jobs do without

    classifiers = [classifier for classifier in values[first] if classifier in values[second]]
    x = [values[first][classifier] for classifier in classifiers]
    y = [values[second][classifier] for classifier in classifiers]
    if len(set(x)) < 2 or len(set(y)) < 2:
        return RankCorrelation(first, second, classifiers, 0.0, 0.0, 1.0)
    kendall = kendalltau(x, y)
    return RankCorrelation(
        first=first,
        second=second,
        classifiers=classifiers,
        spearman=float(spearmanr(x, y).statistic),
        kendall=float(kendall.statistic),
        p_value=float(kendall.pvalue),
    )
