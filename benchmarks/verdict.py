"""How often `diff` says what, by simulation: files of predictions with a known truth.

    python -m benchmarks.verdict                 # 200 pairs a row
    python -m benchmarks.verdict --pairs 1000

1,000 images in 43 classes as frequent as German traffic signs, on which each network errs in 5 % independently, unless
the row says otherwise. Beside the verdict: McNemar's exact test over all images, and over each class with Benjamini and
Hochberg's correction, both one-sided at 5 %.
"""

import argparse
from collections import Counter
from collections.abc import Callable

import numpy as np
from scipy.stats import binom, false_discovery_control

from fmrgen.apps.release.diff import diff

# Of the classes of GTSRB's test set, in images.
_SIGNS = np.array([
    60, 720, 750, 450, 660, 630, 150, 450, 450, 480, 660, 420, 690, 720, 270, 210, 150, 360, 390, 60, 90, 90, 120, 150,
    90, 480, 180, 60, 150, 90, 150, 270, 60, 210, 120, 390, 120, 60, 690, 90, 90, 60, 90,
])  # fmt: skip
_STOP, _FREQUENT, _RARE = 14, 1, 0
_MARGIN = 0.0
Errors = Callable[[np.ndarray], np.ndarray]


def _more(points: float, label: int | None = None) -> Errors:
    """Errors of NEW, by label: 5 %, and so many points more on all classes or on one."""
    return lambda labels: 0.05 + points / 100 * (labels == (labels if label is None else label))


def _better_but(points: float, label: int) -> Errors:
    return lambda labels: np.where(labels == label, 0.05 + points / 100, 0.03)


# What is true: the errors of NEW by label, the number of images, and the share of labels that are wrong.
_TRUTHS: dict[str, tuple[Errors, int, float]] = {
    "equal": (_more(0), 1000, 0),
    "equal, 20 % of labels wrong": (_more(0), 1000, 0.2),
    "1 point worse": (_more(1), 1000, 0),
    "2 points worse": (_more(2), 1000, 0),
    "3 points worse": (_more(3), 1000, 0),
    "3 worse, 20 % of labels wrong": (_more(3), 1000, 0.2),
    "1 worse, 5,000 images": (_more(1), 5000, 0),
    "a frequent class -40": (_more(40, _FREQUENT), 1000, 0),
    "*stop* (2 % of images) -60": (_more(60, _STOP), 1000, 0),
    "a class of 0.5 % lost wholly": (_more(95, _RARE), 1000, 0),
    "2 better, *stop* -60": (_better_but(60, _STOP), 1000, 0),
    "2 better, a frequent class -30": (_better_but(30, _FREQUENT), 1000, 0),
    "2 better, *stop* -60, 5,000 images": (_better_but(60, _STOP), 5000, 0),
    "2 better": (_more(-2), 1000, 0),
    "4 better": (_more(-4), 1000, 0),
}


def _answers(labels: np.ndarray, errors: np.ndarray, random: np.random.Generator) -> np.ndarray:
    is_wrong = random.random(len(labels)) < errors
    return np.where(is_wrong, (labels + random.integers(1, 43, len(labels))) % 43, labels)


def _mcnemar(negative: np.ndarray, positive: np.ndarray) -> np.ndarray:
    return np.asarray(binom.sf(negative - 1, np.maximum(negative + positive, 1), 0.5))


def run(truth: str, pairs: int) -> dict[str, float]:
    """Return percent of pairs by verdict, and what the plain tests find."""
    errors, images, wrong = _TRUTHS[truth]
    random = np.random.default_rng(0)
    counts: Counter[str] = Counter()
    for _ in range(pairs):
        labels = np.repeat(np.arange(43), random.multinomial(images, _SIGNS / _SIGNS.sum()))
        old = _answers(labels, np.full(images, 0.05), random)
        new = _answers(labels, errors(labels), random)
        stored = np.where(random.random(images) < wrong, random.integers(0, 43, images), labels)
        counts[diff(old, new, stored, margin=_MARGIN).verdict] += 1
        negative, positive = (old == stored) & (new != stored), (old != stored) & (new == stored)
        counts["McNemar"] += int(_mcnemar(negative.sum(), positive.sum()) <= 0.05)
        by_class = _mcnemar(np.bincount(stored[negative], minlength=43), np.bincount(stored[positive], minlength=43))
        counts["by class"] += int(false_discovery_control(by_class).min() <= 0.05)
    return {name: 100 * count / pairs for name, count in counts.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    pairs = parser.parse_args().pairs
    columns = ("worse", "no worse", "better", "undecided", "McNemar", "by class")
    print(f"| truth | {' | '.join(columns)} |\n|---|{'--:|' * len(columns)}")
    for truth in _TRUTHS:
        shares = run(truth, pairs)
        print(f"| {truth} | {' | '.join(f'{shares.get(name, 0.0):.1f}' for name in columns)} |", flush=True)


if __name__ == "__main__":
    main()
