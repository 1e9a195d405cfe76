"""Does what `fmrgen diff` finds on 500 photos flip later, on photos that it has not seen?

    python -m benchmarks.reality -o reality --train gtsrb-train.parquet --test gtsrb-test.parquet --part choose
    python -m benchmarks.reality -o reality --test usps-test.parquet --part digits
    python -m benchmarks.reality -o reality --test cifar10-test-1000.parquet --weights cifar10-resnet20.th \\
        --recipe fmrgen.yaml --part cifar

Makes the pairs of networks (benchmarks/reality_pairs.py), goes on where it was stopped, writes answers-PART.json, and
prints tables. The plan is docs/results/reality.md.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import rankdata
from scipy.stats import t as student
from torch.nn.functional import avg_pool2d

import fmrgen
from benchmarks import regressions
from benchmarks.reality_domains import DOMAINS, Files
from benchmarks.reality_figures import draw_answers
from benchmarks.reality_pairs import PARTS, Pair, answers_of, make, net_flips, pairs
from benchmarks.regressions import Images
from fmrgen.apps.pilot.photos import components

_FEWEST_TESTED, _FEWEST_TRACKS = 20, 5  # photos and tracks of a class
_FIRST = 3  # classes
_TIES = 50  # random orders of equal figures
_PHOTOS = (500, 750, 1000, 1500, 2000, 3000)
_DRAWS = 20
_FALSE_LINKS = 0.05  # of photos of the training set, to another track
_GRID = 8  # pixels, of the images by which tracks are told apart
_CONTROLS = ("originals", "softmax")
_WITHOUT_MAKING = ("softmax", "corrupted", "moved, geometric", "moved, photometric")  # chosen on *choose*


class Case(NamedTuple):
    """A pair with its figures.

    Attributes:
        pair: the networks.
        diff: what `compare` wrote.
        old, new: answers to the test photos.
        real: net flips of the test photos in points, by class.
        predictors: figures by class that may foretell it.
        on_seen: the verdict of a diff on the 500 photos alone.
    """

    pair: Pair
    diff: Mapping[str, Any]
    old: np.ndarray
    new: np.ndarray
    real: np.ndarray
    predictors: dict[str, np.ndarray]
    on_seen: str

    @property
    def is_twin(self) -> bool:
        return self.pair.name.startswith("twin")


def tracks_of(test: Images, train: Images, train_tracks: Sequence[str]) -> np.ndarray:
    """Returns a number for each test photo, [N], that near copies share: the tracks of the test set are not published.

    Photos of a class are linked if they are closer than all but a twentieth of the training photos are to another
    track. Of the training set this links few frames of a track that are six frames apart.
    """
    of_train, of_test = _small(train), _small(test)
    train_labels, test_labels = train.labels.numpy(), test.labels.numpy()
    tracks = np.array(train_tracks)
    nearest = []
    for label in np.unique(train_labels):
        members = np.flatnonzero(train_labels == label)
        distances = _distances(of_train[members])
        distances[tracks[members][:, None] == tracks[members]] = np.inf
        nearest += distances.min(1).tolist()
    limit = np.quantile(nearest, _FALSE_LINKS)
    links: list[tuple[int, int]] = []
    for label in np.unique(test_labels):
        members = np.flatnonzero(test_labels == label)
        near = np.argwhere(_distances(of_test[members]) < limit)
        links += [(int(members[first]), int(members[second])) for first, second in near]
    return components(len(test.labels), links)


def _small(images: Images) -> np.ndarray:
    """Returns unit vectors [N, D] of grey images of 8 pixels."""
    side = images.pixels.shape[-1] // _GRID
    grey = avg_pool2d(images.pixels.mean(1, keepdim=True), side).flatten(1).numpy()
    grey = grey - grey.mean(1, keepdims=True)
    vectors: np.ndarray = grey / np.maximum(np.linalg.norm(grey, axis=1, keepdims=True), 1e-6)
    return vectors


def _distances(vectors: np.ndarray) -> np.ndarray:
    distances: np.ndarray = np.sqrt(np.maximum(2 - 2 * vectors @ vectors.T, 0))
    return distances


def _by_class(values: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns the mean of values [N] for each class, in points; nan for a class that does not occur."""
    means = np.full(classes, np.nan)
    for label in np.unique(labels):
        means[label] = 100 * values[labels == label].mean()
    return means


def _case(output: Path, pair: Pair, seen: np.ndarray, test: np.ndarray) -> Case:
    """Returns a pair with its figures; `seen` and `test` are the labels."""
    diff = json.loads((output / "diffs" / f"{pair.title}.json").read_text())
    old, new = (answers_of(output, network) for network in (pair.old, pair))
    places = np.arange(len(seen))
    half = len(old.moved) // 2
    of_old, of_new = old.seen.argmax(1), new.seen.argmax(1)
    both_right = (of_old == seen) & (of_new == seen)
    made = np.isin(places, diff["broke"]).astype(float) - np.isin(places, diff["fixed"])
    values = {
        "originals": net_flips(of_old, of_new, seen),
        "softmax": old.seen[places, seen] - new.seen[places, seen],
        "corrupted": net_flips(old.corrupted, new.corrupted, seen).mean(0),
        "moved, geometric": net_flips(old.moved[:half], new.moved[:half], seen).mean(0),
        "moved, photometric": net_flips(old.moved[half:], new.moved[half:], seen).mean(0),
        "distance": new.distance - old.distance,
        "loss of OLD": 1 - old.seen[places, seen],
    }
    predictors = {name: _by_class(of_photos, seen, pair.domain.classes) for name, of_photos in values.items()}
    predictors["made"] = np.nan_to_num(_by_class(made[both_right], seen[both_right], pair.domain.classes))
    predictors["made and originals"] = predictors["made"] + predictors["originals"]
    predictors["softmax, corrupted and moved"] = np.mean([predictors[name] for name in _WITHOUT_MAKING], axis=0)
    real = _by_class(net_flips(old.test, new.test, test), test, pair.domain.classes)
    on_seen = fmrgen.diff(of_old, of_new, seen).verdict
    return Case(pair, diff, old.test, new.test, real, predictors, on_seen)


def _partial(case: Case, name: str, classes: np.ndarray) -> float:
    """Returns the rank correlation over classes of a predictor with what really broke, given the free figures."""
    controls = [case.predictors[control][classes] for control in _CONTROLS if control != name]
    ranks = [rankdata(column) for column in controls]
    design = np.column_stack([np.ones(len(classes)), *ranks])
    residuals = []
    for column in (case.predictors[name][classes], case.real[classes]):
        rank = rankdata(column)
        residuals.append(rank - design @ np.linalg.lstsq(design, rank, rcond=None)[0])
    norm = float(np.linalg.norm(residuals[0]) * np.linalg.norm(residuals[1]))
    return float(residuals[0] @ residuals[1]) / norm if norm > 1e-6 else 0.0


def _captured(case: Case, name: str, classes: np.ndarray) -> float:
    """Returns the loss of the first three classes by a predictor, as a share of that of the worst three, in percent.

    The order of equal figures is drawn.
    """
    real = np.maximum(case.real[classes], 0)
    worst = np.sort(real)[::-1][:_FIRST].sum()
    if not worst:
        return 0.0
    predictor = case.predictors[name][classes]
    shares = []
    for draw in range(_TIES):
        order = np.lexsort([np.random.default_rng(draw).random(len(classes)), -predictor])
        shares.append(real[order[:_FIRST]].sum() / worst)
    return 100 * float(np.mean(shares))


def answer(files: Files, part: str) -> dict[str, Any]:
    """Returns all answers of a part, and writes them."""
    _, seen, test = DOMAINS[part].photos(files)
    labels = test.labels.numpy()
    tracks = np.arange(len(labels))
    if files.train is not None:
        train = regressions.signs(files.train)
        tracks = tracks_of(test, train, pq.read_table(files.train, columns=["track"])["track"].to_pylist())
    classes = _classes_to_look_at(labels, tracks)
    cases = [_case(files.output, pair, seen.labels.numpy(), labels) for pair in pairs() if pair.part == part]
    _add_mean_of_others(cases)
    spreads = _spreads(cases, labels)
    real = {case.pair.title: _is_real(case, labels, spreads) for case in cases}
    worse = [case for case in cases if real[case.pair.title] and not case.is_twin]
    faults = [case for case in cases if not case.is_twin]
    twins = [case for case in cases if case.is_twin]
    names = list(cases[0].predictors)
    answers: dict[str, Any] = {
        "tracks": int(tracks.max()) + 1,
        "classes": len(classes),
        "twins are apart, points": spreads,
        "regressions": len(worse),
        "1 partial correlation": _of_names(worse, names, lambda case, name: _partial(case, name, classes)),
        "1 without a regression": _of_names(
            [case for case in faults if case not in worse], names, lambda case, name: _partial(case, name, classes)
        ),
        "2 captured": _of_names(worse, names, lambda case, name: _captured(case, name, classes)),
        "2 captured, less the originals": _of_names(
            worse,
            names,
            lambda case, name: _captured(case, name, classes) - _captured(case, "originals", classes),
        ),
        "images made, of 500": [
            float(np.mean([len(case.diff["broke"]) for case in of_kind])) for of_kind in (worse, twins)
        ],
        "3 regressions called worse": _share([case.diff["verdict"] == "broke more" for case in worse]),
        "3 by the photos alone": _share([case.on_seen == "broke more" for case in worse]),
        "3 twins called worse": _share([case.diff["verdict"] == "broke more" for case in twins]),
        "3 twins by the photos alone": _share([case.on_seen == "broke more" for case in twins]),
        "4 photos": _photos_needed(cases, labels, tracks, spreads),
        "5 near": _near(worse),
        "pairs": [_row(case, test, classes, real[case.pair.title]) for case in cases],
    }
    (files.output / f"answers-{part}.json").write_text(json.dumps(answers, indent=1))
    return answers


def _classes_to_look_at(labels: np.ndarray, tracks: np.ndarray) -> np.ndarray:
    """Returns the classes with enough test photos of enough tracks."""
    chosen = []
    for label in range(labels.max() + 1):
        members = labels == label
        if members.sum() >= _FEWEST_TESTED and len(set(tracks[members].tolist())) >= _FEWEST_TRACKS:
            chosen.append(label)
    return np.array(chosen)


def _add_mean_of_others(cases: Sequence[Case]) -> None:
    """Adds a predictor that knows nothing of NEW: the mean of *made* over the other pairs of the family."""
    for case in cases:
        others = []
        for other in cases:
            if other is not case and other.pair.family == case.pair.family:
                others.append(other.predictors["made"])
        if others:
            case.predictors["made of others"] = np.mean(others, axis=0)


def _spreads(cases: Sequence[Case], labels: np.ndarray) -> dict[str, float]:
    """Returns how far twins of each family are from OLD on the test photos, at most, in points."""
    spreads: dict[str, float] = {}
    for case in cases:
        if case.is_twin:
            apart = 100 * abs(float(net_flips(case.old, case.new, labels).mean()))
            spreads[case.pair.family] = max(apart, spreads.get(case.pair.family, 0.0))
    return spreads


def _is_real(case: Case, labels: np.ndarray, spreads: Mapping[str, float], rows: np.ndarray | None = None) -> bool:
    """Returns whether NEW loses more than a twin may on test photos, all or some."""
    places = np.arange(len(labels)) if rows is None else rows
    margin = spreads.get(case.pair.family, 0.0)
    outcome = fmrgen.diff(case.old[places], case.new[places], labels[places], margin=margin)
    return outcome.verdict == "broke more"


def _of_names(
    cases: Sequence[Case], names: Sequence[str], figure: Callable[[Case, str], float]
) -> dict[str, list[float] | None]:
    return {name: _mean([figure(case, name) for case in cases]) for name in names}


def _mean(values: Sequence[float]) -> list[float] | None:
    """Returns the mean of values of pairs, with Student's interval of 95 %; None for fewer than three."""
    if len(values) < 3:
        return None
    array = np.array(values)
    width = float(student.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))
    mean = float(array.mean())
    return [mean, mean - width, mean + width]


def _share(hits: Sequence[bool]) -> list[float] | None:
    """Returns the share of hits in percent with its interval (Wilson), and their number."""
    estimate = fmrgen.proportion(np.array(hits, dtype=bool))
    return None if estimate is None else [estimate.value, *estimate.ends, len(hits)]


def _photos_needed(
    cases: Sequence[Case], labels: np.ndarray, tracks: np.ndarray, spreads: Mapping[str, float]
) -> dict[str, dict[str, list[float] | None]]:
    """Returns how often so many labelled photos alone say *broke more*, of real regressions and of twins, in percent.

    Whether a regression is real is said by half of the tracks, and the photos are drawn from the other.
    """
    is_truth = np.random.default_rng(0).random(int(tracks.max()) + 1) < 0.5
    truth, pool = np.flatnonzero(is_truth[tracks]), np.flatnonzero(~is_truth[tracks])
    regressions_of_half = [case for case in cases if not case.is_twin and _is_real(case, labels, spreads, truth)]
    kinds = {"regressions": regressions_of_half, "twins": [case for case in cases if case.is_twin]}
    shown: dict[str, dict[str, list[float] | None]] = {}
    for kind, of_kind in kinds.items():
        shown[kind] = {
            "diff on 500": _share([case.diff["verdict"] == "broke more" for case in of_kind]),
            "the 500 alone": _share([case.on_seen == "broke more" for case in of_kind]),
        }
        for count in _PHOTOS:
            if count < len(pool):
                shown[kind][str(count)] = _mean([_share_of_draws(case, labels, pool, count) for case in of_kind])
    return shown


def _share_of_draws(case: Case, labels: np.ndarray, pool: np.ndarray, count: int) -> float:
    """Returns how many in a hundred draws of so many photos of a pool say *broke more*."""
    verdicts = []
    for draw in range(_DRAWS):
        rows = np.random.default_rng(draw).choice(pool, count, replace=False)
        verdicts.append(fmrgen.diff(case.old[rows], case.new[rows], labels[rows]).verdict == "broke more")
    return 100 * float(np.mean(verdicts))


def _near(cases: Sequence[Case]) -> dict[str, list[float] | None]:
    near = [case.diff["near"] for case in cases if case.diff["near"] is not None]
    return {
        "kept": _mean([entry["kept"] for entry in near]),
        "originals": _mean([entry["originals"] for entry in near]),
        "class": _mean([entry["class"] for entry in near]),
        "kept less originals": _mean([entry["kept"] - entry["originals"] for entry in near]),
    }


def _row(case: Case, test: Images, classes: np.ndarray, is_real: bool) -> dict[str, Any]:
    net = net_flips(case.old, case.new, test.labels.numpy())
    light = test.pixels.mean((1, 2, 3))
    is_dark = (light <= light.quantile(0.2)).numpy()
    is_far = (test.widths < 30).numpy() if test.widths is not None else None
    return {
        "family": case.pair.family,
        "name": case.pair.name,
        "points lost": 100 * float(net.mean()),
        "far": None if is_far is None else 100 * float(net[is_far].mean()),
        "dark": 100 * float(net[is_dark].mean()),
        "is a regression": is_real,
        "diff": case.diff["verdict"],
        "the 500 alone": case.on_seen,
        "partial correlation": _partial(case, "made", classes),
        "captured": _captured(case, "made and originals", classes),
        "captured by the originals": _captured(case, "originals", classes),
        "remedies": case.diff["remedies"],
        "confusions": case.diff["confusions"],
        "traits": case.diff["traits"],
    }


def _shown(figures: Any) -> str:
    if isinstance(figures, list):
        return " | ".join(f"{value:.2f}" for value in figures)
    return str(figures)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--train", type=Path, help="gtsrb-train.parquet")
    parser.add_argument("--test", type=Path, required=True, help="gtsrb-test.parquet, usps-test.parquet, or photos")
    parser.add_argument("--weights", type=Path, help="cifar10-resnet20.th")
    parser.add_argument("--recipe", help="by which images are made")
    parser.add_argument("--figure", type=Path, help="a PNG to draw")
    parser.add_argument("--part", choices=PARTS, default=PARTS[0])
    options = parser.parse_args(arguments)
    if options.part == "cifar" and (options.weights is None or options.recipe is None):
        parser.error("cifar takes --weights and --recipe")
    files = Files(options.output, options.train, options.test, options.weights, options.recipe)
    make(files, options.part)
    answers = answer(files, options.part)
    if options.figure is not None:
        draw_answers(answers, options.figure)
    for name, figures in answers.items():
        if name == "pairs":
            for row in figures:
                print(" | ".join(f"{value:.1f}" if isinstance(value, float) else str(value) for value in row.values()))
        elif isinstance(figures, dict):
            for key, value in figures.items():
                print(f"{name}: {key}: {_shown(value)}")
        else:
            print(f"{name}: {figures}")


if __name__ == "__main__":
    main()
