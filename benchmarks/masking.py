"""Which networks are called masked or rough, on all rows of their splits and on parts of 100.

    PYTHONPATH=tests/support python -m benchmarks.masking make -o out     # splits of all networks of masked_networks.py
    python -m benchmarks.masking judge out STUDY/attacked …               # the verdicts, of any folders of splits

A second run of `make` goes on where the first ended.
"""

import argparse
import importlib
from collections import Counter
from pathlib import Path

import numpy as np

import fmrgen
from fmrgen.jobs.generate import make_split
from fmrgen.metrics.gradients import has_masked_gradient, has_rough_gradient
from fmrgen.metrics.intervals import Estimate
from fmrgen.metrics.rows import SUMMARY_COLUMNS
from fmrgen.metrics.summary import Summary, summarise
from fmrgen.storage.paths import splits_in
from fmrgen.storage.provenance import read_provenance
from fmrgen.storage.shards import SplitFolder

_ROWS = 300
_PART = 100  # rows
_GROUPS = ("MASKED", "LATER", "ROUGH", "HONEST")


def make(output: Path) -> None:
    """Makes a split of 300 digits against each network."""
    networks = importlib.import_module("masked_networks")
    for group in _GROUPS:
        for name in getattr(networks, group):
            classifier = f"{{kind: module, target: 'masked_networks:{name}', checkpoint: null, class_names: null}}"
            changes = [f"source.limit={_ROWS}", f"classifier={classifier}", f"output.split={name.lower()}"]
            summary = make_split(fmrgen.load_recipe("_mnist", changes), output / group.lower())
            print(f"{group.lower()} {name}: FMR {summary.fmr}", flush=True)


def judge(folders: list[Path]) -> None:
    """Prints the figures and the verdict of each split, and how often parts of 100 rows get which."""
    for folder in folders:
        print(f"\n{folder}\n\n| network | FMR | 1st step up | steps up | guided – random | slope | verdict | parts |")
        print("|---|--:|--:|--:|--:|--:|---|---|")
        of_parts: Counter[str] = Counter()
        for paths in splits_in(folder):
            provenance = read_provenance(paths)
            table = SplitFolder.of(paths, provenance).read_columns(SUMMARY_COLUMNS)
            columns = {name: table[name].to_numpy() for name in table.column_names}
            verdicts: Counter[str] = Counter()
            count = len(table) // _PART
            for number in range(count):  # every part has all classes, which take turns
                rows = np.arange(len(table)) // 10 % count == number
                part = {name: values[rows] for name, values in columns.items()}
                verdicts[_verdict(summarise(part))] += 1
            of_parts += verdicts
            summary = summarise(columns)
            figures = [summary.first_attack_fmr or summary.fmr, summary.first_steps_up, summary.steps_up]
            figures.append(summary.guided_less_random)
            cells = [paths.split, *map(_cell, figures), "" if provenance.slope is None else f"{provenance.slope:.2f}"]
            cells += [_verdict(summary), ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())]
            print(f"| {' | '.join(cells)} |", flush=True)
        print(f"\nparts of {_PART}: {dict(of_parts)}")


def _verdict(summary: Summary) -> str:
    if has_rough_gradient(summary):
        return "rough"
    return "masked" if has_masked_gradient(summary) else "honest"


def _cell(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.value:.1f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make").add_argument("-o", "--output", type=Path, required=True)
    commands.add_parser("judge").add_argument("folders", type=Path, nargs="+")
    arguments = parser.parse_args()
    if arguments.command == "make":
        make(arguments.output)
    else:
        judge(arguments.folders)
