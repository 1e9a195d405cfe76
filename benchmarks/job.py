"""The whole job (source, PNG, parquet, checks) against the engine alone, and how it grows with images and processes.

    python -m benchmarks.job overhead --limit 1000
    python -m benchmarks.job growth --limits 250 1000 4000
    python -m benchmarks.job processes --limit 1000

Seconds of a job do not count the start of Python and the building of the models; `growth` and `processes` take those of
its run record, from the first image to the last shard.
`processes` gives one process one core, then two processes two.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

_RECIPE = "_mnist"


def job(recipe: str, limit: int, overrides: list[str], processes: int = 1, cores: int | None = None) -> dict[str, Any]:
    """Runs `fmrgen generate` in processes of their own; its seconds, and the peak memory of the largest one."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", __spec__.name, "one", "--recipe", recipe, "--output", folder]
        command += [f"source.limit={limit}", *overrides]
        if processes > 1:
            launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", f"--num_processes={processes}"]
            command[1:1] = launcher
        mask = set(sorted(os.sched_getaffinity(0))[:cores])
        done = subprocess.run(
            command,
            env={**os.environ, "ACCELERATE_USE_CPU": "true"},
            preexec_fn=lambda: os.sched_setaffinity(0, mask),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
        peaks = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("peak_MiB")]
        (provenance,) = Path(folder).glob("provenance/*/*.json")
        runs = json.loads(provenance.read_text())["runs"]
        return {"seconds": max(run["seconds"] for run in runs), "peak_MiB": max(peaks)}


def one(recipe: str, output: str, overrides: list[str]) -> None:
    from fmrgen import load_recipe
    from fmrgen.jobs.generate import make_split

    make_split(load_recipe(recipe, overrides), output)
    print("peak_MiB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, flush=True)


def overhead(recipe: str, limit: int, rounds: int, overrides: list[str]) -> dict[str, Any]:
    """Seconds of the whole job and of the engine over the same images, in turn, in this process."""
    import torch

    from benchmarks.throughput import load_examples, run_engine
    from fmrgen import load_recipe
    from fmrgen.distributed.launch import start_process
    from fmrgen.jobs.generate import make_split

    loaded = load_recipe(recipe, [f"source.limit={limit}", *overrides])
    device = start_process()  # with the threads of a job
    components = loaded.build(device)
    examples = load_examples(components)
    run_engine(loaded, components, examples[:64], device)
    jobs, engines = [], []

    def run_job() -> None:
        started = time.perf_counter()
        loaded.build(device)
        building = time.perf_counter() - started
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            make_split(loaded, folder)
            jobs.append(time.perf_counter() - started - building)

    def run_alone() -> None:
        started = time.perf_counter()
        run_engine(loaded, components, examples, device)
        engines.append(time.perf_counter() - started)

    for number in range(rounds):
        for run in (run_job, run_alone) if number % 2 else (run_alone, run_job):
            run()
        print(f"job {jobs[-1]:.2f} s, engine {engines[-1]:.2f} s", flush=True)
    ratios = [round(whole / alone, 3) for whole, alone in zip(jobs, engines, strict=True)]
    return {"images": limit, "threads": torch.get_num_threads(), "job/engine": median(ratios), "rounds": ratios}


def growth(recipe: str, limits: list[int], overrides: list[str]) -> list[dict[str, Any]]:
    found = []
    for limit in limits:
        run = job(recipe, limit, overrides)
        found.append(
            {"images": limit, "ms_per_image": round(1000 * run["seconds"] / limit, 2)} | {"peak_MiB": run["peak_MiB"]}
        )
        print(found[-1], flush=True)
    return found


def processes(recipe: str, limit: int, rounds: int, overrides: list[str]) -> dict[str, Any]:
    alone, together = [], []
    for _ in range(rounds):
        alone.append(job(recipe, limit, overrides, processes=1, cores=1)["seconds"])
        together.append(job(recipe, limit, overrides, processes=2, cores=2)["seconds"])
        print(f"one {alone[-1]} s, two {together[-1]} s", flush=True)
    ratios = [round(one / two, 3) for one, two in zip(alone, together, strict=True)]
    return {"images": limit, "two/one": median(ratios), "rounds": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overhead", "growth", "processes", "one"])
    parser.add_argument("--recipe", default=_RECIPE)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--limits", type=int, nargs="+", default=[250, 1000, 4000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", default="out")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    options, more = parser.parse_known_args()
    overrides = options.overrides + more
    if options.what == "one":
        one(options.recipe, options.output, overrides)
        return
    if options.what == "overhead":
        result: Any = overhead(options.recipe, options.limit, options.rounds, overrides)
    elif options.what == "growth":
        result = growth(options.recipe, options.limits, ["source.split=train", *overrides])
    else:
        result = processes(options.recipe, options.limit, options.rounds, overrides)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
