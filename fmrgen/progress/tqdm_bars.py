"""How far work is, for those who call it from Python."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm

from fmrgen.distributed.rank import is_first_process
from fmrgen.progress.job import Progress
from fmrgen.recipe.job import Recipe

OnRows = Callable[[str, int, int | None], None]
"""Called with (what, images done, images in all or None)."""


@contextmanager
def image_bars(show: bool) -> Iterator[OnRows]:
    """A bar in images for each thing that reports progress, drawn by the first process from its first news on."""
    bars: dict[str, Any] = {}

    def update(what: str, done: int, total: int | None) -> None:
        if what not in bars:
            bars[what] = tqdm(total=total, initial=done, desc=what, unit="image")
        bars[what].update(done - bars[what].n)

    def ignore(what: str, done: int, total: int | None) -> None:
        pass

    try:
        yield update if show and is_first_process() else ignore
    finally:
        for bar in bars.values():
            bar.close()


@contextmanager
def job_bar(show: bool, recipe: Recipe) -> Iterator[Callable[[Progress], None]]:
    """The bar of the split that a recipe makes."""
    name = f"{recipe.output.config}/{recipe.output.split}"
    with image_bars(show) as on_rows:
        yield lambda progress: on_rows(name, progress.done, progress.total)
