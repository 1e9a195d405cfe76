"""Ratios of speed, a file for each commit, and whether they have fallen.

    python -m benchmarks.record run --record FOLDER           # eight minutes; writes FOLDER/DATE-COMMIT.json
    python -m benchmarks.record check [FILE] --record FOLDER  # exit status 1 where a ratio fell by more than its noise
    python -m benchmarks.record plot --record FOLDER --figure F.svg

Each ratio compares two things that ran in turn on one machine, fmrgen's time below: more is faster. It has no seconds,
which say more of the neighbours than of the code. FOLDER is `benchmarks/records` if it is not given.
"""

import argparse
import csv
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

RECORDS = Path(__file__).parent / "records"
_COMPARED = 5  # records of earlier commits
_ROUNDS = 3
_LEAST_NOISE = 0.05  # share of a ratio: few records span less than many
_IMAGES = 300
_TORCH = ("-c", "import torch")
Rounds = dict[str, list[float]]


def engine_ratios() -> Rounds:
    """The engine against the models alone, and against batches that wait for their slowest image."""
    import torch

    from benchmarks.throughput import load_examples, measure
    from fmrgen import load_recipe

    recipe = load_recipe("_mnist", [f"source.limit={_IMAGES}"])
    device = torch.device("cpu")
    components = recipe.build(device)
    result = measure(recipe, components, load_examples(components), True, 0, _ROUNDS, device)
    names = {"engine/limit": "engine to bare models", "engine/static": "engine to waiting batches"}
    return {name: result["ratios"][ratio]["rounds"] for ratio, name in names.items()}


def job_ratios() -> Rounds:
    """The engine against the whole job, and an image of a small job against one of a job four times as large."""
    from benchmarks.job import growth, overhead

    whole = overhead("_mnist", _IMAGES, _ROUNDS, [])
    ratios = {"engine to whole job": [1 / ratio for ratio in whole["rounds"]], "small job to large": []}
    for _ in range(_ROUNDS):
        small, large = growth("_mnist", [100, 400], ["source.split=train"])
        ratios["small job to large"].append(small["ms_per_image"] / large["ms_per_image"])
    return ratios


def evaluation_ratios(split: str) -> Rounds:
    """A plain loop over three classifiers against `evaluate` on all of them."""
    from benchmarks.evaluation import bare_loop, decoded_batches, rows_of
    from fmrgen import evaluate, load_classifier

    stored = rows_of(split, _IMAGES)
    batches = decoded_batches(stored, 64)
    classifiers = {name: load_classifier("asset:mnist/lenet").eval() for name in "abc"}
    ratios = []
    for number in range(_ROUNDS + 1):
        looped = sum(bare_loop(classifier, batches) for classifier in classifiers.values())
        started = time.perf_counter()
        evaluate({"split": stored}, classifiers, batch_size=64)
        if number:  # the first warms both
            ratios.append(looped / (time.perf_counter() - started))
    return {"loop over three classifiers to evaluate": ratios}


def command_ratios(folder: Path) -> Rounds:
    """The CPU time of `import torch` against that of commands, each in a process of its own."""
    for name, wrong in (("last", 3), ("next", 5)):
        with (folder / f"{name}.csv").open("w") as file:
            rows = [(number, number % 10, (number + (number % 100 < wrong)) % 10) for number in range(1000)]
            csv.writer(file).writerows([("id", "label", "prediction"), *rows])
    commands = {
        "import fmrgen": ("-c", "import fmrgen"),
        "fmrgen recipes": ("-m", "fmrgen", "recipes"),
        "fmrgen diff": ("-m", "fmrgen", "diff", "--old", "last.csv", "--new", "next.csv", "-o", "diff", "-q"),
        "fmrgen generate": ("-m", "fmrgen", "generate", "_mnist", "source.limit=20", "-o", "made", "-q"),
        "fmrgen verify": ("-m", "fmrgen", "verify", "out"),
        "fmrgen show": ("-m", "fmrgen", "show", "out", "-o", "shown"),
        "fmrgen evaluate": ("-m", "fmrgen", "evaluate", "out", "-c", "asset:mnist/lenet", "-o", "evaluation", "-q"),
    }
    ratios: Rounds = {f"import torch to {name}": [] for name in commands}
    for _ in range(_ROUNDS):
        yardstick = _cpu_seconds(_TORCH, folder)
        for name, arguments in commands.items():
            for output in ("made", "diff", "shown", "evaluation"):
                shutil.rmtree(folder / output, ignore_errors=True)
            ratios[f"import torch to {name}"].append(yardstick / _cpu_seconds(arguments, folder))
    return ratios


def _cpu_seconds(arguments: Sequence[str], folder: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "FMRGEN_CACHE": str(folder / "cache"), "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ratio_of_tests() -> Rounds:
    """The CPU time of `import torch` against that of README's tests."""
    root = Path(__file__).parents[1]
    yardstick = _cpu_seconds(_TORCH, root)
    return {"import torch to README's tests": [yardstick / _cpu_seconds(("-m", "pytest", "-q", "-n", "2"), root)]}


def run(record: Path, with_tests: bool) -> Path:
    """Measures everything and writes the file of this commit."""
    from fmrgen import load_recipe
    from fmrgen.jobs.generate import make_split

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_split(load_recipe("_mnist", [f"source.limit={_IMAGES}"]), folder / "out")
        ratios = command_ratios(folder) | evaluation_ratios(f"{folder / 'out'}:mnist/lenet")
    ratios |= engine_ratios() | job_ratios()
    if with_tests:
        ratios |= ratio_of_tests()
    commit = _git("rev-parse", "--short", "HEAD")
    tree: dict[str, Any] = {
        "commit": commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else ""),
        "date": _git("log", "-1", "--format=%cd", "--date=format-local:%Y-%m-%dT%H:%M"),  # of the commit
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "ratios": {name: [round(value, 4) for value in rounds] for name, rounds in ratios.items()},
    }
    record.mkdir(exist_ok=True, parents=True)
    path = record / f"{tree['date'].replace(':', '')}-{commit}.json"
    path.write_text(json.dumps(tree, indent=1) + "\n")
    return path


def _git(*arguments: str) -> str:
    git = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()


def records_in(folder: Path) -> list[dict[str, Any]]:
    """Return the records, oldest first."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def fallen(new: Mapping[str, list[float]], earlier: Sequence[Mapping[str, list[float]]]) -> list[str]:
    """Return a line for each ratio that fell by more than its noise.

    That is: its best round is below the worst of all rounds of the earlier records, by more than half of what these
    rounds span, and by more than 5 % of their median.
    """
    lines = []
    for name, rounds in new.items():
        before = [value for ratios in earlier for value in ratios.get(name, [])]
        if not before:
            continue
        noise = max((max(before) - min(before)) / 2, _LEAST_NOISE * median(before))
        least = min(before) - noise
        if max(rounds) < least:
            lines.append(f"{name}: {median(rounds):.3f}, was {median(before):.3f} (its noise ends at {least:.3f})")
    return lines


def plot(records: Sequence[Mapping[str, Any]], figure: Path) -> None:
    """Draw each ratio over the records, with the span of its rounds."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "fmrgen"  # the same file for the same records
    import matplotlib.pyplot as plt

    names = sorted({name for record in records for name in record["ratios"]})
    rows = -(-len(names) // 3)
    drawn, axes = plt.subplots(rows, 3, figsize=(11, 2.1 * rows), squeeze=False, constrained_layout=True)
    places = range(len(records))
    for axis, name in zip(axes.flat, names, strict=False):
        spans = [record["ratios"].get(name) for record in records]
        recorded = [place for place in places if spans[place]]
        middles = [median(spans[place]) for place in recorded]
        below = [middle - min(spans[place]) for place, middle in zip(recorded, middles, strict=True)]
        above = [max(spans[place]) - middle for place, middle in zip(recorded, middles, strict=True)]
        axis.errorbar(recorded, middles, [below, above], fmt="o-", color="#00695c", markersize=4, capsize=3)
        axis.set_title(name, fontsize=9)
        axis.set_ylim(0, 1.25 * max(middle + more for middle, more in zip(middles, above, strict=True)))
        axis.set_xlim(-0.5, len(records) - 0.5)
        axis.set_xticks(list(places), [record["commit"] for record in records], fontsize=7, rotation=30, ha="right")
        axis.tick_params(axis="y", labelsize=7)
        axis.grid(axis="y", alpha=0.3)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    drawn.savefig(figure, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "check", "plot"])
    parser.add_argument("file", nargs="?", type=Path, help="of `check`: the new record, if not the last")
    parser.add_argument("--record", type=Path, default=RECORDS, help="the folder of the records")
    parser.add_argument("--tests", action="store_true", help="of `run`: README's tests too, five minutes more")
    parser.add_argument("--figure", type=Path, default=Path("speed.svg"), help="of `plot`: the picture")
    options = parser.parse_args()
    if options.what == "run":
        print(run(options.record, options.tests))
    elif options.what == "plot":
        plot(records_in(options.record), options.figure)
    else:
        file = options.file or max(options.record.glob("*.json"), default=None)
        if file is None:
            raise SystemExit(f"{options.record}: has no record")
        new = json.loads(file.read_text())
        earlier = []
        for record in records_in(options.record):
            if record["machine"] == new["machine"] and record["date"] < new["date"]:
                earlier.append(record)
        earlier = earlier[-_COMPARED:]
        lines = fallen(new["ratios"], [record["ratios"] for record in earlier])
        print("\n".join(lines) or f"no ratio fell, against {len(earlier)} records of such a machine")
        raise SystemExit(bool(lines))


if __name__ == "__main__":
    main()
