"""Shows progress to callers from Python, in a terminal or a notebook."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm

from fmrgen.distributed.rank import is_first_process
from fmrgen.progress.job import Progress
from fmrgen.recipe.job import Recipe

OnRows = Callable[[str, int, int | None], None]
"""Called with (name, images done, images in all or None)."""


@contextmanager
def image_bars(show: bool) -> Iterator[OnRows]:
    """Yield a function that draws a bar in images for each name, in the first process, from its first call on."""
    bars: dict[str, Any] = {}

    def update(name: str, done: int, total: int | None) -> None:
        if name not in bars:
            bars[name] = tqdm(total=total, initial=done, desc=name, unit="image")
        bars[name].update(done - bars[name].n)

    def ignore(name: str, done: int, total: int | None) -> None:
        pass

    try:
        yield update if show and is_first_process() else ignore
    finally:
        for bar in bars.values():
            bar.close()


@contextmanager
def job_bar(show: bool, recipe: Recipe) -> Iterator[Callable[[Progress], None]]:
    """Yield a function that draws the bar of the split that a recipe makes."""
    name = f"{recipe.output.config}/{recipe.output.split}"
    with image_bars(show) as on_rows:
        yield lambda progress: on_rows(name, progress.done, progress.total)
