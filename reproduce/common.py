"""What the scripts of the paper's tables share: options, trained networks, splits, tables, and statements' verdicts."""

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import norm, t

import fmrgen
from fmrgen.metrics.intervals import Estimate
from fmrgen.results.evaluation import Evaluation

Models = Mapping[str, str | list[str]]  # by name: a network, or several trainings of it


class Run:
    """A script's run.

    Attributes:
        is_small: digits and the shipped oracle on a CPU; else the paper's data and weights.
        output: the folder of networks and splits.
    """

    def __init__(self, about: str, images: int = 300) -> None:
        parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--scale", choices=("small", "full"), default="small")
        parser.add_argument("--output", type=Path, default=Path("reproduced"))
        parser.add_argument("--limit", type=int, help="images of each split (small: %(default)s)", default=None)
        parser.add_argument("--steps", type=int, help="steps of each training, to try a script", default=None)
        parser.add_argument("--trainings", type=int, help="of each network, at small scale", default=3)
        arguments = parser.parse_args()
        self.is_small, self.output = arguments.scale == "small", arguments.output
        self._limit = arguments.limit or (images if self.is_small else None)
        self._steps, self._trainings = arguments.steps, arguments.trainings if self.is_small else 1
        print(about)

    def trained(self, name: str, recipe: str, *changes: str, several: bool = True) -> str | list[str]:
        """Train a network, several times at small scale, unless that was done before; return its folders.

        `{training}` in a change stands for the number of the training.
        """
        folders = []
        for number in range(1, (self._trainings if several else 1) + 1):
            folder = self.output / "models" / f"{name}-{number}"
            own = [change.replace("{training}", str(number)) for change in changes]
            own = [f"schedule.seed={number}", *own, *([f"schedule.steps={self._steps}"] if self._steps else [])]
            fmrgen.train(fmrgen.load_train_recipe(f"train/{recipe}", own), folder)
            folders.append(str(folder))
        return folders if len(folders) > 1 else folders[0]

    def recipe(self, name: str, *changes: str) -> fmrgen.Recipe:
        """Return a recipe with the limit of this run."""
        return fmrgen.load_recipe(name, [*([f"source.limit={self._limit}"] if self._limit else []), *changes])

    def compared(self, recipe: str, models: Models, *changes: str, name: str = "splits", attack: str | None = None):
        """Generate a split for each network, evaluate all on all, and print the table."""
        evaluation = fmrgen.compare(self.recipe(recipe, *changes), models, self.output / name, attack=attack)
        print_table(evaluation, name)
        return evaluation


def own_splits(evaluation: Evaluation) -> dict[str, str]:
    """Return the split that was generated for each network, by the network's name."""
    return {result.classifier: result.split for result in evaluation.results if result.conditioned}


def print_table(evaluation: Evaluation, name: str) -> None:
    """Print every network on every split, as the paper's tables have them."""
    generated_for = {split: model for model, split in own_splits(evaluation).items()}
    print(f"\n## Here: {name}\n\n| generated for | model | SA | VR | PA | FMR |\n|---|---|---|---|---|---|")
    for result in evaluation.results:
        total = result.total
        figures = (total.standard_accuracy, total.validation_rate, total.perturbed_accuracy, total.fmr)
        cells = ["n/a" if figure is None else f"{figure.value:.2f}" for figure in figures]
        print("|", " | ".join([generated_for.get(result.split, result.split), result.classifier, *cells]), "|")
    print()


def figures(evaluation: Evaluation, model: str, on: str | None = None, metric: str = "fmr") -> list[Estimate]:
    """Return a metric of each training of a network, on the splits generated for `on`, by default for itself."""
    splits, values = own_splits(evaluation), []
    trainings = _trainings(evaluation, model)
    targets = _trainings(evaluation, on or model)
    for place, training in enumerate(trainings):
        total = evaluation.result(splits[targets[place % len(targets)]], training).total
        value = getattr(total, metric)
        if value is not None:
            values.append(value)
    return values


def _trainings(evaluation: Evaluation, model: str) -> list[str]:
    return [classifier.name for classifier in evaluation.classifiers if classifier.training_of == model] or [model]


def says(text: str, first: Sequence[Estimate], second: Sequence[Estimate], within: float | None = None) -> None:
    """Print a statement of the paper with its verdict: that the first is higher; with `within`, that both are alike.

    The interval of the difference of means covers the images (as if each figure had its own) and, of two or more
    trainings, how far these differ (Student's).
    """
    if not first or not second:
        print(f"* {text}: not tested, a figure is missing")
        return
    values = [np.array([figure.value for figure in figures]) for figures in (first, second)]
    apart, variance, freedom = float(values[0].mean() - values[1].mean()), 0.0, 0
    for of_model, estimates in zip(values, (first, second), strict=True):
        variance += float(
            np.mean([((estimate.ends[1] - estimate.ends[0]) / 2 / norm.ppf(0.975)) ** 2 for estimate in estimates])
        )
        if len(of_model) > 1:
            variance, freedom = variance + float(of_model.var(ddof=1)) / len(of_model), freedom + len(of_model) - 1
    reach = float(t.ppf(0.975, freedom) if freedom else norm.ppf(0.975)) * math.sqrt(variance)
    low, high = apart - reach, apart + reach
    verdict = "not decided"
    if within is None and not low <= 0 <= high:
        verdict = "holds" if low > 0 else "DOES NOT HOLD"
    elif within is not None and (low > within or high < -within):
        verdict = "DOES NOT HOLD"
    elif within is not None and -within <= low and high <= within:
        verdict = "holds"
    means = f"{values[0].mean():.1f} and {values[1].mean():.1f}"
    print(f"* {text}: **{verdict}**: {means}, {apart:.1f} apart ({low:.1f} to {high:.1f})")
