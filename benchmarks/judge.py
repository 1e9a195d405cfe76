"""What `fmrgen judge` takes beside the bare oracle on images that are decoded already.

    python -m benchmarks.judge out:mnist/lenet --oracle asset:mnist/clip --rounds 3

Both do the same images in the same batches, in turns. The models are loaded before the clock runs; reading, decoding,
and writing the verdicts are the job's.
"""

import argparse
import os
import tempfile
import time
from statistics import median

import numpy as np
import torch

from fmrgen.apps.judging.judge import Job
from fmrgen.distributed.launch import Processes
from fmrgen.engine.images import to_batch
from fmrgen.engine.interfaces import Originals
from fmrgen.files import CACHE_FOLDER
from fmrgen.recipe.job import parse_oracle
from fmrgen.split.open import open_own_split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("split")
    parser.add_argument("--oracle", default="asset:mnist/clip")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()
    opened, provenance = open_own_split(options.split)
    name, section = parse_oracle(options.oracle)
    processes = Processes()
    columns = [column for column in ("image", "original") if column in opened.features]
    batches = []
    for batch in opened.undecoded(columns).iter(options.batch_size):
        labels = torch.tensor(batch["label"], device=processes.device)
        for column in columns:
            pixels = np.stack([np.asarray(opened.decode(stored, column)) for stored in batch[column]])
            batches.append((to_batch(pixels, processes.device), labels))
    ratios = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            os.environ[CACHE_FOLDER] = folder
            job = Job(name, section, opened, provenance, processes, options.batch_size)
            started = time.perf_counter()
            table = job.run(lambda done, rows: None)
            whole = time.perf_counter() - started
        started = time.perf_counter()
        with torch.no_grad():
            for images, labels in batches:
                job.oracle.judge(images, Originals(images, labels)).decided.sum().item()
        bare = time.perf_counter() - started
        ratios.append(whole / bare)
        print(f"job {whole:.1f} s, bare oracle {bare:.1f} s, {len(table)} images: {ratios[-1]:.3f}", flush=True)
    print(f"job / bare oracle: {median(ratios):.3f}")


if __name__ == "__main__":
    main()
