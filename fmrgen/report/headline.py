"""The first screen of an evaluation's page: the answer in a sentence, two or three figures, and what to do next."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fmrgen.metrics.intervals import Estimate, as_percent
from fmrgen.metrics.summary import MAIN_METRICS
from fmrgen.report.report import Badge, KeyFigure
from fmrgen.results.evaluation import Evaluation, Result

_MOST_FIGURES = 3
_JUDGE = "zero_shot:google/siglip2-base-patch16-224"  # knows most classes by their names


class Headline(NamedTuple):
    """What stands at the top."""

    conclusions: list[str]  # a sentence, or none if there are fixed sets alone
    badge: Badge | None  # the answer in a few words
    figures: list[KeyFigure]  # the two or three that a reader should take away
    next_steps: list[str]


def headline(evaluation: Evaluation) -> Headline:
    """Return the first screen of an evaluation."""
    own = [result for result in evaluation.results if result.conditioned][:1]
    if evaluation.own is not None:
        own = [evaluation.result(place.split, place.classifier) for place in evaluation.own.ranking]
    shared = []  # the classifiers that are ranked on the first split
    if evaluation.comparisons:
        comparison = evaluation.comparisons[0]
        shared = [evaluation.result(comparison.split, place.classifier) for place in comparison.ranking]
    if len(own) > 1 and evaluation.own is not None:
        first = evaluation.own.ranking[0]
        where = "images generated against each of them"
        headline = _of_several(own, where, is_clear=(first.best, first.worst) == (1, 1))
    elif own:
        headline = _of_one(own[0], "images generated against it")
    elif len(shared) > 1:
        is_clear = evaluation.comparisons[0].ranking[0].tied_with_next is False
        headline = _of_several(shared, "the same perturbed images", is_clear=is_clear)
    elif evaluation.results:
        headline = _of_one(evaluation.results[0], "images generated against another network")
    else:
        return Headline([], None, [], [])
    related = {split.name for split in evaluation.splits if split.related is not None}
    for result in (own or shared or evaluation.results)[:_MOST_FIGURES]:
        if result.total.at_chance or result.masked or (result.conditioned and result.split in related):
            return headline._replace(badge=Badge("Read the doubts first", "unclear"))
    return headline


def _of_one(result: Result, where: str) -> Headline:
    """Return the first screen of one classifier on images that `where` names."""
    total = result.total
    figures = _figures((metric.name, total[metric]) for metric in reversed(MAIN_METRICS))
    if total.fmr is None:
        line = f"of {where} {result.classifier} has {as_percent(total.perturbed_accuracy)} right"
        return Headline([line], None, figures, _next_steps(result))
    at_most = _at_most(result)
    line = f"on {where}, {result.classifier} keeps {at_most}{as_percent(total.fmr)} of its accuracy"
    badge = Badge(f"{at_most}{total.fmr.value:.0f} % kept".capitalize())
    return Headline([line], badge, figures, _next_steps(result))


def _of_several(results: Sequence[Result], where: str, *, is_clear: bool) -> Headline:
    """Return the first screen of several classifiers, the best first."""
    figures = _figures((f"{result.classifier} keeps", result.total.fmr) for result in results[:_MOST_FIGURES])
    first, second = results[:2]
    shares = [f"{_at_most(result)}{as_percent(result.total.fmr)}" for result in (first, second)]
    line = (
        f"{where} do not show whether {first.classifier} or {second.classifier} is more robust; they keep {shares[0]} "
        f"and {shares[1]} of their accuracy"
    )
    badge = Badge("No clear first", "unclear")
    if is_clear:
        line = (
            f"on {where}, {first.classifier} keeps the largest share of its accuracy, {shares[0]}; next comes "
            f"{second.classifier} with {shares[1]}; another seed of one recipe may lie further apart than that (name "
            "several trainings as NAME=A,B,C)"
        )
        badge = Badge(f"{first.classifier} ranks first on these images")
    return Headline([line], badge, figures, _next_steps(first))


def _figures(estimates: Iterable[tuple[str, Estimate | None]]) -> list[KeyFigure]:
    """Return figures by their names; a bar ends at 100 percent unless its figure is higher."""
    present = [(name, estimate) for name, estimate in estimates if estimate is not None]
    return [KeyFigure(name, estimate, high=max(100.0, estimate.value)) for name, estimate in present]


def _at_most(result: Result) -> str:
    """Return the words before an FMR that more attacks may lower; empty for another."""
    return "at most " if result.bound is not None and not result.total.has_converged else ""


def _next_steps(first: Result) -> list[str]:
    """Return what to do with the figures of the first classifier."""
    steps = ["look at the images that fool it, below: is the class still there?"]
    if not first.judged:
        steps.append(f"query a second judge: fmrgen judge {first.split} --oracle {_JUDGE}")
    if first.conditioned and first.total.rows >= 400:  # half of fewer show no change that makes under 10 % wrong
        steps.append(f"find out where it fails: fmrgen explain {first.split}")
    return steps
