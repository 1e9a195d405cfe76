"""Sparse generators against dense ones (the paper's Tables 11 and 12), on the same images, in turn.

    python -m benchmarks.sparse --recipe _mnist --samples 1000 --from source.split=train --limit 300

Masks are found on other images than those that are perturbed: `--from` says where. Every mask also has a control, a
random one of as many dimensions. `--steps` multiplies the step size: a step in few dimensions is a short one, and what
a mask gains has to be more than what the dense generator gains by longer steps. Time is that of the engine, to the same
number of valid images for all ways.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.throughput import load_examples, wait_for
from fmrgen import Perturbed, perturb
from fmrgen.apps.pilot.sparsify import SparseMask, fit_mask, latent_pairs
from fmrgen.errors import UserError
from fmrgen.metrics.intervals import Estimate
from fmrgen.metrics.summary import SUMMARY_COLUMNS, Summary, summarise
from fmrgen.recipe.job import Recipe, load_recipe

_PAPER = 36.36  # its regularisation strength


@dataclass
class Way:
    """One way to perturb the images: a recipe, and what came of it."""

    name: str
    recipe: Recipe
    dimensions: int
    valid_after: list[list[float]] = field(default_factory=list)  # by round, the seconds until each valid image
    rows: dict[int, Perturbed] = field(default_factory=dict)

    def run(self, device: torch.device) -> None:
        components = self.recipe.build(device)
        examples = load_examples(components)
        _, classifier, generator, oracle = components
        wait_for(device)
        started, after = time.perf_counter(), []
        for row in perturb(iter(examples), classifier, generator, oracle, self.recipe.perturb, device=device):
            self.rows[row.id] = row
            if row.valid:
                after.append(time.perf_counter() - started)
        self.valid_after.append(after)

    @property
    def valid(self) -> int:
        return len(self.valid_after[0])

    def summary(self) -> Summary:
        rows = [self.rows[i] for i in sorted(self.rows)]
        return summarise({name: np.array([getattr(row, name) for row in rows]) for name in SUMMARY_COLUMNS})

    def seconds_to(self, valid: int) -> float:
        """To so many valid images, at the mean pace of a round: the last images of a stream end together."""
        return median(after[-1] * valid / len(after) for after in self.valid_after)


def find_masks(recipe: Recipe, device: torch.device) -> dict[str, SparseMask]:
    started = time.perf_counter()
    pairs = latent_pairs(recipe, recipe.build(device), device)
    masks = {}
    for name, strength in {"path": None, "paper": _PAPER}.items():
        fitting = time.perf_counter()
        try:
            found = masks[name] = fit_mask(pairs, strength)
        except UserError as error:  # of few images, a strength may leave nothing
            print(f"mask {name}: {error}", flush=True)
            continue
        print(
            f"mask {name}: lambda {found.regularization:.4g}, sparsity {found.sparsity:.2%}, "
            f"test score {found.test_score:.2%}, {int(found.mask.sum())} of {found.mask.numel()} dimensions, "
            f"{found.images} images, fitted in {time.perf_counter() - fitting:.1f} s",
            flush=True,
        )
    print(f"latents and masks: {time.perf_counter() - started:.0f} s", flush=True)
    return masks


def random_mask(like: torch.Tensor) -> torch.Tensor:
    order = torch.randperm(like.numel(), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(like.numel(), dtype=torch.bool)
    mask[order[: int(like.sum())]] = True
    return mask.view(like.shape)


def ways_of(
    recipe: str, overrides: list[str], masks: dict[str, SparseMask], steps: list[float], folder: Path
) -> list[Way]:
    """Dense first; every mask beside its control, at every step size."""
    step_size = load_recipe(recipe, overrides).perturb.step
    whole = torch.ones_like(next(iter(masks.values())).mask)
    by_name: dict[str, torch.Tensor] = {"dense": whole}
    for name, found in masks.items():
        by_name |= {name: found.mask, f"random for {name}": random_mask(found.mask)}
    ways = []
    for name, mask in by_name.items():
        path = folder / f"{name.replace(' ', '-')}.safetensors"
        save_file({"mask": mask}, path)
        masked = [] if mask is whole else [f"generator.mask={path}"]
        for factor in steps:
            loaded = load_recipe(recipe, [*overrides, *masked, f"perturb.step_size={factor * step_size:g}"])
            ways.append(Way(f"{name}, step x{factor:g}", loaded, int(mask.sum())))
    return ways


def cell(value: Estimate | None, digits: int = 1) -> str:
    return "n/a" if value is None else f"{value.value:.{digits}f}"


def print_table(ways: list[Way]) -> None:
    valid = min(way.valid for way in ways)
    print(f"\nseconds for {valid} valid images, at the pace of each way")
    head = (
        f"{'':32}{'dims':>6}{'seconds':>9}{'/ dense':>9}{'VR':>7}{'PA':>7}{'FMR':>7}  {'FMR 95 %':14}{'iterations':>10}"
    )
    print(head)
    dense = ways[0].seconds_to(valid)
    for way in ways:
        took, summary = way.seconds_to(valid), way.summary()
        fmr = summary.fmr
        interval = "" if fmr is None else f"{fmr.low:.1f}-{fmr.high:.1f}"
        print(
            f"{way.name:32}{way.dimensions:>6}{took:>9.2f}{took / dense:>9.3f}{cell(summary.validation_rate):>7}"
            f"{cell(summary.perturbed_accuracy):>7}{cell(fmr):>7}  {interval:14}{cell(summary.mean_iterations, 2):>7}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="_mnist")
    parser.add_argument("--samples", type=int, default=1000, help="images that the masks are found on")
    parser.add_argument("--from", dest="origin", nargs="*", default=["source.split=train"], metavar="section.key=value")
    parser.add_argument("--limit", type=int, default=300, help="images that are perturbed")
    parser.add_argument("--steps", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    origin = [*options.overrides, f"source.limit={options.samples}", *options.origin]
    masks = find_masks(load_recipe(options.recipe, origin), device)
    with tempfile.TemporaryDirectory() as folder:
        overrides = [*options.overrides, f"source.limit={options.limit}"]
        ways = ways_of(options.recipe, overrides, masks, options.steps, Path(folder))
        for number in range(options.rounds):
            for way in ways if number % 2 == 0 else reversed(ways):
                way.run(device)
                if not way.valid:
                    raise SystemExit(f"{way.name}: no valid image; choose smaller --steps")
                print(
                    f"round {number + 1}: {way.name}: {way.valid} valid in {way.valid_after[-1][-1]:.1f} s", flush=True
                )
    print_table(ways)
    if options.json:
        figures: dict[str, Any] = {
            "masks": {
                name: {"sparsity": found.sparsity, "test_score": found.test_score, "lambda": found.regularization}
                for name, found in masks.items()
            },
            "ways": {
                way.name: {"dimensions": way.dimensions, "valid_after": way.valid_after, "of": asdict(way.summary())}
                for way in ways
            },
        }
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
