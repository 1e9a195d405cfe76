"""fmrgen on a Ray cluster: tasks that share one folder which all nodes see, or a bucket.

python examples/anywhere/ray_tasks.py imagenet-resnet50 s3://my-bucket/fmr --tasks 16
"""

import argparse

import ray


def make(recipe: str, output: str) -> dict[str, int]:
    import fmrgen  # on the node, on the device that Ray gives this task

    made = fmrgen.generate(recipe, output=output, progress=False)
    return {"rows": made.summary.rows, "valid": made.summary.valid_rows}


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("recipe")
parser.add_argument("output")
parser.add_argument("--tasks", type=int, default=8)
parser.add_argument("--gpus", type=float, default=1, help="of each task")
given = parser.parse_args()

task = ray.remote(num_gpus=given.gpus, max_retries=-1)(make)  # a lost node costs its unfinished shards
print(ray.get([task.remote(given.recipe, given.output) for _ in range(given.tasks)])[0])
