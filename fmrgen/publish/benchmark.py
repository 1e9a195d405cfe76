"""`eval.yaml`, which makes a dataset repo one of the Hub's benchmarks: a task, with a board of its own, per split."""

from pathlib import Path
from typing import Any

from fmrgen.errors import UserError, one_line
from fmrgen.files import parse_yaml, read_plain, to_yaml, write_atomically
from fmrgen.storage.paths import BENCHMARK
from fmrgen.storage.provenance import read_all

_FRAMEWORK = "fmrgen"


class BenchmarkError(UserError):
    """A repo's or folder's `eval.yaml` is none."""


def task_id(config: str, split: str) -> str:
    """The id of a split's task; the names of splits have no dashes, so no two splits share one."""
    return f"{config}-{split}"


def write_benchmark(root: Path, repo: str) -> None:
    """Adds a task for each finished split of a folder to its `eval.yaml`; whatever else stands in it stays.

    Args:
        root: the dataset folder, or the small files of a repo.
        repo: what the dataset is called on the Hub.

    Raises:
        BenchmarkError: there is an invalid `eval.yaml`.
    """
    path = root / BENCHMARK
    existing = _read(path, f"{repo}: {BENCHMARK}")
    names = [name for name, provenance in read_all(root).items() if provenance.is_finished]
    tasks = {task_id(*name): {"id": task_id(*name), "config": name[0], "split": name[1]} for name in names}
    known = existing.get("tasks") or []
    others = [task for task in known if task["id"] not in tasks]
    kept = {task["id"]: {**task, **tasks[task["id"]]} for task in known if task["id"] in tasks}
    described: dict[str, Any] = {
        "name": repo.rpartition("/")[2],
        "description": "Test images perturbed against one classifier each (Foundation Model-oriented Robustness). The "
        "score of a task is FMR: accuracy on the perturbed images as a percentage of that on the originals.",
        "evaluation_framework": _FRAMEWORK,
        **existing,
        "tasks": [*others, *(kept.get(name, task) for name, task in tasks.items())],
    }
    if described != existing:
        write_atomically(path, to_yaml(described, width=110).encode())


def _read(path: Path, where: str) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = parse_yaml(read_plain(path).decode(), where)
    except (UserError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{where}: can't be read, fix it by hand: {one_line(error)}") from None
    tasks = content.get("tasks") or [] if isinstance(content, dict) else None
    if not isinstance(tasks, list) or not all(
        isinstance(task, dict) and isinstance(task.get("id"), str) for task in tasks
    ):
        raise BenchmarkError(
            f"{where}: is not a benchmark file: it needs tasks, a list of mappings with an id; fix it by hand"
        )
    return dict(content)
