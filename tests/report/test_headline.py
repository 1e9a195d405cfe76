"""The first screen of an evaluation."""

from dataclasses import replace

import pytest

from fmrgen.metrics.intervals import Estimate
from fmrgen.report.headline import headline
from fmrgen.results.rankings import RankedClassifier


def with_result(evaluation, name, **changes):
    """The evaluation with one classifier's result changed."""
    results = []
    for result in evaluation.results:
        results.append(replace(result, **changes) if result.classifier == name else result)
    return replace(evaluation, results=results)


def test_one_network_on_its_own_split(evaluation):
    first = headline(evaluation)
    total = evaluation.result("first", "lenet").total
    fmr = total.fmr
    assert first.conclusions == [
        f"on images generated against it, lenet keeps at most {fmr.value:.1f} % of its accuracy"
    ]
    assert first.badge.words == f"At most {fmr.value:.0f} % kept"
    assert [figure.name for figure in first.figures] == ["FMR", "PA", "SA"]
    assert not any("explain" in step for step in first.next_steps)  # so few rows can show nothing
    large = headline(with_result(evaluation, "lenet", total=replace(total, rows=400)))
    assert large.next_steps[-1] == "find out where it fails: fmrgen explain first"


def test_a_network_at_chance_is_to_be_doubted_and_another_is_not_doubted_for_it(evaluation):
    assert evaluation.result("first", "none").total.at_chance
    assert headline(evaluation).badge.tone == "plain"
    guesses = replace(evaluation.result("first", "lenet").total, at_chance=True)
    assert headline(with_result(evaluation, "lenet", total=guesses)).badge.words == "Read the doubts first"
    assert headline(with_result(evaluation, "lenet", masked=True)).badge.tone == "unclear"
    assert headline(with_result(evaluation, "lenet", rough=True)).badge.tone == "plain"


@pytest.mark.parametrize(("tied", "words"), [(False, "a ranks first on these images"), (True, "No clear first")])
def test_two_networks_on_one_split_are_told_apart_or_not(evaluation, tied, words):
    ranking = [RankedClassifier(1, "a", None, tied), RankedClassifier(2, "b", None, None)]
    base = replace(evaluation.results[0], conditioned=False)
    results = []
    for name, value in (("a", 90.0), ("b", 70.0)):
        total = replace(base.total, fmr=Estimate(value, value - 2, value + 2))
        results.append(replace(base, classifier=name, total=total))
    both = replace(
        evaluation,
        classifiers=[replace(evaluation.classifiers[0], name=name) for name in "ab"],
        results=results,
        comparisons=[replace(evaluation.comparisons[0], ranking=ranking)],
    )
    first = headline(both)
    assert first.badge.words == words
    assert "90.0 %" in first.conclusions[0]
    assert [figure.text for figure in first.figures] == ["90.0 %", "70.0 %"]
