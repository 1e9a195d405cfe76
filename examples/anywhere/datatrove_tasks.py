"""fmrgen in datatrove's executors: on this machine here; SlurmPipelineExecutor and the others take the same pipeline.

python examples/anywhere/datatrove_tasks.py imagenet-resnet50 out --tasks 2
"""

import argparse
from collections.abc import Iterator
from functools import partial

from datatrove.executor import LocalPipelineExecutor


def make(data: object, rank: int = 0, world_size: int = 1, *, recipe: str, output: str) -> Iterator[object]:
    import fmrgen

    fmrgen.generate(recipe, output=output, progress=False)  # tasks share the shards by themselves
    yield from ()


if __name__ == "__main__":  # tasks are processes that import this file
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("output")
    parser.add_argument("--tasks", type=int, default=1)
    given = parser.parse_args()
    pipeline = [partial(make, recipe=given.recipe, output=given.output)]
    LocalPipelineExecutor(pipeline, tasks=given.tasks, workers=given.tasks, skip_completed=False).run()
