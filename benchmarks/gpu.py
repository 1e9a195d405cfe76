"""A card's figures in some minutes: of the bare models by precision and batch, of the engine, of whole jobs.

    python -m benchmarks.gpu --minutes 8                  # models of ImageNet's sizes, random weights
    python -m benchmarks.gpu --minutes 2 --recipe _mnist          # runs on a CPU too

Of each way to compute: image-passes per second at the best batch, TFLOP/s as torch counts the operations of one pass,
the share of the card's peak (dense, of its data sheet), and memory. Then engine against the bare models in turns, a job
with its files against the engine, `verify`, two processes that share the card, and how far rows in bf16 are those in
fp32.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.throughput import BareModels, InTurns, agreement, load_examples, run_engine, seconds
from fmrgen.recipe.build import Components
from fmrgen.recipe.job import Recipe, load_recipe
from fmrgen.records import Example

_WAYS = ("fp32", "tf32", "bf16", "bf16 compiled")
_PEAKS = {  # TFLOP/s: fp32, tf32, bf16
    "H100": (67, 494, 989),
    "H200": (67, 494, 989),
    "A100": (19.5, 156, 312),
    "L40S": (91.6, 183, 362),
    "A10": (31.2, 62.5, 125),
    "L4": (30.3, 60, 121),
}
_BATCHES = tuple(2**power for power in range(11))
_SHARES = {"sweep": 0.4, "engine": 0.2, "jobs": 0.3, "agreement": 0.1}  # of the time
_PAST = 0.8  # of the best rate: larger batches are no better


@contextmanager
def way(name: str, recipe: Recipe) -> Iterator[Recipe]:
    """The recipe in that precision, with TF32 where that is asked for."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
    options = replace(
        recipe.perturb, precision="bf16" if "bf16" in name else "fp32", compile="compiled" in name, slots=1
    )
    try:
        yield recipe.model_copy(update={"perturb": options})
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def flops_of_a_pass(recipe: Recipe, components: Components, examples: list[Example], device: torch.device) -> float:
    """Of one image: decoded and classified, the gradient to its latent, judged."""
    bare = BareModels(recipe, components, examples, 1, device)
    free = bare.latents.free.detach().clone().requires_grad_(True)
    with FlopCounterMode(display=False) as counter:
        images, loss = bare.forward(free)
        torch.autograd.backward(loss)  # the counter does not know of `grad`
        with torch.no_grad():
            bare.oracle.judge(images.detach())
    return float(counter.get_total_flops())


def sweep(
    recipe: Recipe, components: Components, examples: list[Example], device: torch.device, budget: float
) -> tuple[float, int, float]:
    """Image-passes per second at the best batch, that batch, and GiB at its peak."""
    best, began = (0.0, 0, 0.0), time.perf_counter()
    for size in _BATCHES:
        if time.perf_counter() - began > budget:
            break
        try:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            bare = BareModels(recipe, components, examples, size, device)
            bare.passes(2)  # kernels are chosen, and compiled
            once, _ = seconds(device, bare.one_pass)
            count = max(2, min(50, round(budget / 20 / once)))
            took, _ = seconds(device, bare.passes, count)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        rate = count * size / took
        memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else float("nan")
        if rate > best[0]:
            best = rate, size, memory
        elif rate < _PAST * best[0]:
            break
    return best


def _peak(card: str, name: str) -> float | None:
    kind = {"fp32": 0, "tf32": 1}.get(name, 2)
    return next((peaks[kind] for model, peaks in _PEAKS.items() if model in card), None)


def _gib(memory: float) -> str:
    return "n/a" if math.isnan(memory) else f"{memory:.1f}"


def _engine(
    recipe: Recipe, components: Components, examples: list[Example], device: torch.device, size: int
) -> dict[str, Any]:
    """The engine beside the bare models, in turns, both at the best batch."""
    bare = BareModels(recipe, components, examples, size, device)
    bare.passes(2)
    turns = InTurns(bare, device)
    passes: list[int] = []

    def on_pass(active: int) -> None:
        passes.append(active)
        turns.on_pass(active)

    recipe = recipe.model_copy(update={"perturb": replace(recipe.perturb, slots=size)})
    took, _ = seconds(device, run_engine, recipe, components, examples, device, on_pass)
    took -= turns.spent
    turns.catch_up()
    return {"images": len(examples), "image_passes_per_second": round(sum(passes) / took, 2)} | {
        "engine/limit": round(turns.seconds / took, 3)
    }


def _jobs(recipe: str, images: int, size: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Seconds of whole jobs as a user runs them, of one process and of two that share the card, and of `verify`."""
    command = [sys.executable, "-m", "fmrgen"]
    settings = [f"source.limit={images}", f"perturb.slots={size}", "output.shard_size=auto", *overrides]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([".", os.environ.get("PYTHONPATH", "")])}
    found: dict[str, Any] = {"images": images}
    with tempfile.TemporaryDirectory() as folder:
        for processes in (1, 2):
            output = f"{folder}/{processes}"
            began = time.perf_counter()
            jobs = [
                subprocess.Popen([*command, "generate", recipe, *settings, "-o", output, "-q"], env=env)
                for _ in range(processes)
            ]
            if any(job.wait() for job in jobs):
                raise SystemExit("a job failed")
            found[f"seconds of {processes}"] = round(time.perf_counter() - began, 1)
            (file,) = Path(output).glob("provenance/*/*.json")
            found[f"seconds of {processes} without the start"] = max(
                run["seconds"] for run in json.loads(file.read_text())["runs"]
            )
        began = time.perf_counter()
        done = subprocess.run([*command, "verify", f"{folder}/1", "--trust", "-q"], env=env, check=False)
        found["verify"] = {"seconds": round(time.perf_counter() - began, 1), "exit status": done.returncode}
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--recipe", default="benchmarks/imagenet_shapes.yaml")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    given = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    time_of = {name: 60 * given.minutes * share for name, share in _SHARES.items()}
    recipe = load_recipe(given.recipe, ["source.limit=1024", *given.overrides])
    components = recipe.build(device)
    examples = load_examples(components)
    with way("fp32", recipe) as one:
        flops = flops_of_a_pass(one, components, examples, device)
    print(f"{card}, torch {torch.__version__}; {flops / 1e9:.1f} GFLOP a pass of one image\n")
    print("| | image-passes/s | at a batch of | TFLOP/s | of the peak | GiB |\n|---|---|---|---|---|---|")
    figures: dict[str, Any] = {"device": card, "torch": torch.__version__, "gflop": flops / 1e9, "models": {}}
    for name in _WAYS if device.type == "cuda" else ("fp32", "bf16"):
        with way(name, recipe) as chosen:
            rate, size, memory = sweep(chosen, components, examples, device, time_of["sweep"] / len(_WAYS))
        peak = _peak(card, name)
        share = "n/a" if peak is None else f"{rate * flops / peak / 1e10:.0f} %"
        print(f"| {name} | {rate:.1f} | {size} | {rate * flops / 1e12:.2f} | {share} | {_gib(memory)} |", flush=True)
        figures["models"][name] = {"image_passes_per_second": rate, "batch": size, "gib": memory}
    best = figures["models"]["fp32"]
    a_row = recipe.perturb.budget / best["image_passes_per_second"]  # seconds at most
    with way("fp32", recipe) as chosen:
        few = examples[: max(16, min(1024, int(time_of["engine"] / a_row / 2)))]
        size = min(best["batch"], len(few) // 4)  # else most of it would be the last rows
        figures["engine"] = _engine(chosen, components, few, device, size) | {"slots": size}
        print(f"\nengine: {figures['engine']}", flush=True)
        together = chosen.model_copy(update={"perturb": replace(chosen.perturb, slots=best["batch"])})
        alike = examples[: max(8, min(256, int(time_of["agreement"] / a_row / 2)))]
        ours = run_engine(together, components, alike, device)
        with way("bf16", together) as other:
            other = other.model_copy(update={"perturb": replace(other.perturb, slots=best["batch"])})
            found = agreement(run_engine(other, components, alike, device), ours)
        figures["bf16 and fp32"] = vars(found)
        print(f"bf16 and fp32: of {found.rows} rows {found.same_end} end alike, {found.same_bytes} in every byte")
    del components
    if device.type == "cuda":
        torch.cuda.empty_cache()
    images = max(10, min(1000, int(time_of["jobs"] / a_row / 4)))
    figures["jobs"] = _jobs(given.recipe, images, best["batch"], given.overrides)
    print(f"jobs: {figures['jobs']}")
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
