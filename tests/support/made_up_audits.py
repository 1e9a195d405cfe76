"""Splits that are made up, an audit of each, and whether the intervals of corrected FMR hold the truth.

An image shows its class no more with a given probability, oftener where it took many steps. A person names what is to
be seen and errs one time in twenty. 300 of the valid images are looked at: a stratified sample as `judge --sheet` draws
it, or a simple random one. The truth is known from ten million rows.
"""

from dataclasses import dataclass, replace

import numpy as np

from fmrgen.apps.judging.sample import draw, strata_of
from fmrgen.metrics.intervals import Estimate
from fmrgen.results.corrected import Verdicts, corrected

CLASSES, ROWS, LOOKED, ERRORS, CONTROLS = 10, 1000, 300, 0.05, 30


@dataclass(frozen=True)
class Rows:
    """Rows that are made up: whether each image still `shows` its class, and what a `machine` says of that."""

    columns: dict[str, np.ndarray]
    shows: np.ndarray
    original_right: np.ndarray
    machine: np.ndarray

    @property
    def right(self) -> np.ndarray:
        found: np.ndarray = self.columns["prediction"] == self.columns["label"]
        return found


def make_rows(count: int, changed: float, random: np.random.Generator) -> Rows:
    """`changed` is the share of valid images that show their class no more."""
    label = random.integers(0, CLASSES, count)
    iterations = random.integers(1, 51, count)
    odds = (0.4 + 1.2 * iterations / 50) * changed
    shows = random.random(count) >= odds
    original_right = random.random(count) < 0.93
    robust = random.random(count) < 0.75 - 0.25 * iterations / 50
    right = np.where(shows, original_right & robust, random.random(count) < 0.15)
    other = (label + random.integers(1, CLASSES, count)) % CLASSES
    columns = {
        "id": np.arange(count),
        "label": label,
        "valid": random.random(count) < 0.9,
        "iterations": iterations,
        "prediction": np.where(right, label, other),
    }
    machine = np.where(random.random(count) < 0.85, shows, ~shows).astype(float)
    return Rows(columns, shows, original_right, machine)


def person(shows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Whether a person who errs says the label: misses it, or hits on it where it is not to be seen."""
    errs = random.random(len(shows)) < ERRORS
    return np.where(shows, ~errs, errs & (random.random(len(shows)) < 1 / CLASSES))


def audit(rows: Rows, random: np.random.Generator, stratified: bool) -> Verdicts:
    """What the person says of a sample."""
    valid, stratum = rows.columns["valid"], np.zeros(len(rows.shows), dtype=int)
    if stratified:
        sample = draw(rows.columns, LOOKED, int(random.integers(1 << 31)))
        looked = np.array([entry.id for entry in sample if entry.which == "image"])
        for number, places in enumerate(strata_of(rows.columns).values()):
            stratum[places] = number
    else:
        looked = random.choice(np.flatnonzero(valid), LOOKED, replace=False)
    audited = np.zeros(len(rows.shows), dtype=bool)
    audited[looked] = True
    seen = np.where(audited, person(rows.shows, random), 0.0)
    controls = person(np.ones(CONTROLS, dtype=bool), random)
    sensitivity = float(controls.mean())
    return Verdicts(audited, seen, stratum, sensitivity, CONTROLS, (1 - sensitivity) / CLASSES)


def measure(changed: float, runs: int) -> dict[str, dict[str, float]]:
    """Coverage in percent and mean width of the 95 % intervals of FMR, and of the rate of preserved labels, by way."""
    many = make_rows(10_000_000, changed, np.random.default_rng(1))
    counted = many.columns["valid"] & many.shows
    truth = 100 * many.right[counted].mean() / many.original_right.mean()
    preserved = 100 * many.shows[many.columns["valid"]].mean()
    found: dict[str, list[tuple[bool, float, bool, float, float]]] = {}
    for run in range(runs):
        random = np.random.default_rng([run, int(1000 * changed)])
        rows = make_rows(ROWS, changed, random)
        for way, stratified, machine in (
            ("stratified", True, None),
            ("stratified, with a machine's verdicts", True, rows.machine),
            ("simple random", False, None),
        ):
            verdicts = audit(rows, random, stratified)
            of = corrected(rows.columns["valid"], rows.right, rows.original_right, verdicts, machine)
            assert of is not None
            assert of.fmr is not None
            told = (_holds(of.fmr, truth), _width(of.fmr), _holds(of.preserved, preserved), of.fmr.value)
            found.setdefault(way, []).append((*told, _width(of.preserved)))
    plain = 100 * many.right[many.columns["valid"]].mean() / many.original_right.mean()
    report = {"truth": {"FMR": truth, "FMR without correction": plain, "labels preserved": preserved}}
    for way, entries in found.items():
        of_runs = (np.array(of_run, dtype=float) for of_run in zip(*entries, strict=True))
        held, widths, also_held, values, other_widths = of_runs
        report[way] = {
            "coverage of FMR": 100 * held.mean(),
            "mean width": widths.mean(),
            "bias": values.mean() - truth,
            "coverage of labels preserved": 100 * also_held.mean(),
            "its mean width": other_widths.mean(),
        }
    return report


def measure_unequal(misses: tuple[float, float, float], runs: int) -> dict[str, float]:
    """The same where a person misses another share of the images that are right, that fool, and of originals, and sees
    nothing that is not there: coverage of FMR and of its range, and their mean widths."""
    of_right, of_fooled, of_originals = misses
    many = make_rows(10_000_000, 0.12, np.random.default_rng(1))
    counted = many.columns["valid"] & many.shows
    truth = 100 * many.right[counted].mean() / many.original_right.mean()
    found = []
    for run in range(runs):
        random = np.random.default_rng([run, 7])
        rows = make_rows(ROWS, 0.12, random)
        verdicts = audit(rows, random, stratified=True)
        missed = random.random(ROWS) < np.where(rows.right, of_right, of_fooled)
        sensitivity = 1 - float((random.random(CONTROLS) < of_originals).mean())
        seen = np.where(verdicts.audited, rows.shows & ~missed, 0.0).astype(float)
        verdicts = replace(verdicts, seen=seen, sensitivity=sensitivity, false_positives=0.0)
        of = corrected(rows.columns["valid"], rows.right, rows.original_right, verdicts)
        assert of is not None
        assert of.fmr is not None
        assert of.fmr_range is not None
        found.append((_holds(of.fmr, truth), _holds(of.fmr_range, truth), _width(of.fmr), _width(of.fmr_range)))
    names = ("coverage of FMR", "coverage of the range", "width", "width of the range")
    return dict(zip(names, (np.array(found, dtype=float).mean(0) * [100, 100, 1, 1]).tolist(), strict=True))


def _holds(estimate: Estimate, truth: float) -> bool:
    return estimate.low is not None and estimate.high is not None and estimate.low <= truth <= estimate.high


def _width(estimate: Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low
