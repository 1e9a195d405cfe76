"""A long job of tiny images in one process: memory and open files must not grow with the images that are done."""

import argparse
import io
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage

from fmrgen.cli.display import quiet_libraries
from fmrgen.jobs.generate import make_split
from fmrgen.progress.job import Progress
from fmrgen.recipe.job import Recipe

_LOOKS = 10


def main() -> None:
    """Prints resident memory and open files at each tenth of the job."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--shard-size", type=int, default=50)
    arguments = parser.parse_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_images(folder / "data" / "test.parquet", arguments.images)
        looks: dict[int, tuple[float, int, float]] = {}
        started = time.monotonic()

        def look(progress: Progress) -> None:
            tenth = _LOOKS * progress.done // progress.total
            if tenth not in looks:
                files = len(os.listdir("/proc/self/fd"))
                looks[tenth] = _resident_mib(), files, time.monotonic() - started
                print(f"{progress.done:6d} images: {looks[tenth][0]:6.1f} MiB, {files} open files", flush=True)

        summary = make_split(_recipe(folder / "data", arguments.shard_size), folder / "out", on_progress=look)
        assert summary.rows == arguments.images
    (first, few, begun), (last, many, ended) = looks[1], looks[_LOOKS]
    print(
        f"from the first tenth to the end: {last - first:+.1f} MiB ({(last / first - 1):+.1%}), {many - few:+d} open "
        f"files; {0.9 * arguments.images / (ended - begun):.0f} images/s"
    )


def _write_images(path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    images = []
    for _ in range(count):
        buffer = io.BytesIO()
        PILImage.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
        images.append({"bytes": buffer.getvalue(), "path": None})
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    Dataset.from_dict({"image": images, "label": [i % 2 for i in range(count)]}, features).to_parquet(path)


def _recipe(data: Path, shard_size: int) -> Recipe:
    lenet = {"kind": "lenet", "num_classes": 2}
    return Recipe.model_validate(
        {
            "source": {"kind": "datasets", "path": str(data)},
            "classifier": lenet,
            "generator": {"kind": "transform", "image_size": 32},
            "oracle": {"kind": "classifier", "classifier": lenet},
            "perturb": {"budget": 2, "step_size": 0.01, "slots": 64, "oracle_rule": "consistent"},
            "output": {"config": "soak", "split": "lenet", "shard_size": shard_size},
        }
    )


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
