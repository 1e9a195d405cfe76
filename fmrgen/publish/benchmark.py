"""`eval.yaml`, which makes a dataset repo a benchmark of the Hub: a task, with its own leaderboard, for each split."""

from pathlib import Path
from typing import Any

from fmrgen.errors import UserError, one_line
from fmrgen.files import parse_yaml, read_plain, to_yaml, write_atomically
from fmrgen.storage.paths import BENCHMARK
from fmrgen.storage.provenance import read_all


class BenchmarkError(UserError):
    """The `eval.yaml` of a repo or folder is invalid."""


def task_id(config: str, split: str) -> str:
    """Return the id of a split's task, which no other has: names of splits have no dashes."""
    return f"{config}-{split}"


def write_benchmark(root: Path, repo: str) -> None:
    """Add a task for each finished split of a folder to its `eval.yaml`; all else in it stays.

    `root` is the dataset folder, or the small files of a repo; `repo` is the dataset's name on the Hub. Raises
    BenchmarkError if there is an invalid `eval.yaml`.
    """
    path = root / BENCHMARK
    existing = _read(path, f"{repo}: {BENCHMARK}")
    tasks = {task["id"]: task for task in existing.get("tasks") or []}
    own: dict[str, dict[str, Any]] = {}
    for (config, split), provenance in read_all(root).items():
        if provenance.is_finished:
            name = task_id(config, split)
            own[name] = {**tasks.get(name, {}), "id": name, "config": config, "split": split}
    others = [task for task in existing.get("tasks") or [] if task["id"] not in own]
    benchmark: dict[str, Any] = {
        "name": repo.rpartition("/")[2],
        "description": "Test images perturbed against one classifier each (Foundation Model-oriented Robustness). The "
        "score of a task is FMR: accuracy on the perturbed images as a percentage of that on the originals.",
        "evaluation_framework": "fmrgen",
        **existing,
        "tasks": [*others, *own.values()],
    }
    if benchmark != existing:
        write_atomically(path, to_yaml(benchmark, width=110).encode())


def _read(path: Path, where: str) -> dict[str, Any]:
    """Return the content of an `eval.yaml`, {} if there is none. Raises BenchmarkError if it is invalid."""
    if not path.exists():
        return {}
    try:
        content = parse_yaml(read_plain(path).decode(), where)
    except (UserError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{where}: can't be read, fix it by hand: {one_line(error)}") from None
    if not _has_tasks(content):
        raise BenchmarkError(
            f"{where}: is not a benchmark file: it needs tasks, a list of mappings with an id; fix it by hand"
        )
    return dict(content)


def _has_tasks(content: Any) -> bool:
    """Return whether the content of a file is a mapping whose tasks, if any, are mappings with an id."""
    if not isinstance(content, dict):
        return False
    tasks = content.get("tasks") or []
    return isinstance(tasks, list) and all(isinstance(task, dict) and isinstance(task.get("id"), str) for task in tasks)
