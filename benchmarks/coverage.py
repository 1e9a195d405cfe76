"""How often intervals cover the truth, by simulation with the package's own functions. Nominal: 95 %.

    python -m benchmarks.coverage     # a minute: every interval at 30 to 1,000 images, and kinds of several trainings

`PYTHONPATH` of an older version gives what that one covers.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from fmrgen.metrics.intervals import (
    Estimate,
    foundation_model_robustness,
    grouped_proportion,
    mean,
    mean_of_ratio,
    paired_difference,
    proportion,
    ratio_and_influence,
)
from fmrgen.results.rankings import difference
from fmrgen.results.trainings import compare_trainings

_SIZES = (30, 100, 300, 1000)  # images
_STEPS, _LEVELS = 10, 5  # of a row; accuracies by budget
_ROWS = 300
_PERTURBED, _STANDARD = 0.73, 0.987  # accuracies of every kind
_TRUE_FMR = 100 * _PERTURBED / _STANDARD
# Trainings of each kind, and the standard deviation of FMR between them, in points.
_STUDIES: dict[str, tuple[list[int], list[float]]] = {
    "5 + 2, the 2 wild": ([5, 2], [1, 8]),
    "5 + 2, the 5 wild": ([5, 2], [8, 1]),
    "5 + 1, the 1 wild": ([5, 1], [1, 8]),
    "5 + 5 + 1, the 1 wild": ([5, 5, 1], [1, 1, 8]),
    "5 + 5 + 1, a 5 wild": ([5, 5, 1], [1, 8, 1]),
    "3 + 3 + 3 + 3, one wild": ([3, 3, 3, 3], [1, 1, 1, 8]),
    "2 + 2 alike": ([2, 2], [3, 3]),
    "3 + 3 alike": ([3, 3], [3, 3]),
    "2 + 2, one wild": ([2, 2], [1, 8]),
    "3 + 3, one wild": ([3, 3], [1, 8]),
    "2 + 2 + 2 + 2 alike": ([2, 2, 2, 2], [3, 3, 3, 3]),
    "3 + 3 + 3 + 3 alike": ([3, 3, 3, 3], [3, 3, 3, 3]),
    "5 + 2, no spread": ([5, 2], [0, 0]),
}


def kinds_alike(
    random: np.random.Generator, trainings: Sequence[int], spreads: Sequence[float]
) -> tuple[dict[str, tuple[float, np.ndarray]], dict[str, list[str]]]:
    """FMR and influences of networks of several kinds, all equal on average, that share the images' difficulty."""
    difficulty = random.random(_ROWS)
    fmr: dict[str, tuple[float, np.ndarray]] = {}
    groups: dict[str, list[str]] = {}
    for kind, (number, spread) in enumerate(zip(trainings, spreads, strict=True)):
        groups[str(kind)] = [f"{kind}-{training}" for training in range(number)]
        for name in groups[str(kind)]:
            accuracy = _PERTURBED + random.normal(0, _STANDARD * spread / 100)
            own = np.where(random.random(_ROWS) < 0.5, difficulty, random.random(_ROWS))
            valid, original = random.random(_ROWS) < 0.9, random.random(_ROWS) < _STANDARD
            figure = ratio_and_influence(own < accuracy, valid, original)
            assert figure is not None
            fmr[name] = figure
    return fmr, groups


def covers(estimate: Estimate, truth: float) -> bool | None:
    """Whether an interval holds the truth; None where there is no interval."""
    if estimate.low is None or estimate.high is None:
        return None
    return bool(estimate.low <= truth <= estimate.high)


def one_study(random: np.random.Generator, rows: int) -> dict[str, tuple[Estimate | None, float]]:
    """Every interval of one study of two networks of equal accuracy, with what is true.

    Half of the images are as hard for one network as for the other.
    """
    difficulty, label = random.random(rows), np.zeros(rows, dtype=int)
    networks = []
    for _ in range(2):
        own = np.where(random.random(rows) < 0.5, difficulty, random.random(rows))
        valid, original = random.random(rows) < 0.9, random.random(rows) < _STANDARD
        networks.append({"label": label, "valid": valid, "hit": own < _PERTURBED, "original": original, "own": own})
    first, second = networks
    tables = []
    for network in networks:
        wrong = {"prediction": ~network["hit"], "original_prediction": ~network["original"]}
        tables.append({"label": label, "valid": network["valid"]} | wrong)
    pair = difference("first", "second", *tables)
    up = random.random((rows, _STEPS)) < (0.6 + 0.3 * difficulty)[:, None]
    by_budget = (first["own"][:, None] < np.linspace(_STANDARD, _PERTURBED, _LEVELS)).mean(1)
    return {
        "SA, Wilson": (proportion(first["original"]), 100 * _STANDARD),
        "PA, Wilson": (proportion(first["hit"][first["valid"]]), 100 * _PERTURBED),
        "FMR, joined Wilson": (
            foundation_model_robustness(first["hit"], first["valid"], first["original"]),
            _TRUE_FMR,
        ),
        "FMR by budget, delta method": (
            mean_of_ratio(by_budget, first["valid"], first["original"]),
            50 + 50 * _PERTURBED / _STANDARD,
        ),
        "steps, Student": (mean(random.gamma(2, 5, rows)), 10),
        "steps up, Wilson over rows": (grouped_proportion(up.ravel(), np.repeat(np.arange(rows), _STEPS)), 75),
        "OLD less NEW, Agresti and Min": (paired_difference(first["hit"], second["hit"]), 0),
        "difference of FMR, paired delta method": (pair.fmr, 0),
        "difference of PA, paired delta method": (pair.perturbed_accuracy, 0),
    }


def figures(studies: int) -> None:
    """Coverage of every interval over images."""
    held: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for rows in _SIZES:
        random, hits = np.random.default_rng(0), defaultdict(list)
        for _ in range(studies):
            for name, (estimate, truth) in one_study(random, rows).items():
                if estimate is not None and (is_held := covers(estimate, truth)) is not None:
                    hits[name].append(is_held)
        for name, of_name in hits.items():
            held[name][rows] = _percent(of_name)
    print(f"| interval | {' | '.join(f'{rows:,} images' for rows in _SIZES)} |\n|---|{'--:|' * len(_SIZES)}")
    for name, by_rows in held.items():
        print(f"| {name} | {' | '.join(by_rows[rows] for rows in _SIZES)} |", flush=True)


def _percent(hits: Sequence[bool]) -> str:
    return f"{100 * np.mean(hits):.1f}" if hits else "no interval"


def trainings(studies: int) -> None:
    """Coverage of differences and means of equal kinds, and how many studies rank one of them wrongly."""
    print("| trainings of each kind | difference | least of a pair | mean | false ranks |\n|---|---|---|---|---|")
    for name, (numbers, spreads) in _STUDIES.items():
        random = np.random.default_rng(0)
        means: list[bool] = []
        pairs: dict[frozenset[str], list[bool]] = {}
        false_ranks: list[bool] = []
        for _ in range(studies):
            comparison = compare_trainings(*kinds_alike(random, numbers, spreads))
            assert comparison is not None
            for pair in comparison.differences:
                if (held := covers(pair.fmr, 0)) is not None:
                    pairs.setdefault(frozenset((pair.first, pair.second)), []).append(held)
            for group in comparison.groups:
                if (held := covers(group.mean, _TRUE_FMR)) is not None:
                    means.append(held)
            ranks = [(group.best, group.worst) for group in comparison.groups if group.best is not None]
            false_ranks.append(any(rank != (1, len(ranks)) for rank in ranks))
        every = [held for of_pair in pairs.values() for held in of_pair]
        least = f"{100 * min(map(np.mean, pairs.values())):.1f}" if pairs else "no interval"
        print(f"| {name} | {_percent(every)} | {least} | {_percent(means)} | {_percent(false_ranks)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    studies = parser.parse_args().studies
    figures(studies)
    print()
    trainings(studies)
