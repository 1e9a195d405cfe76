"""Trackers of a training run: what accelerate knows, TensorBoard, Weights & Biases and others, where asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fmrgen.errors import UserError, one_line
from fmrgen.training.recipe import TrainRecipe

Log = Callable[[Mapping[str, float], int], None]


@contextmanager
def tracking(names: Sequence[str], recipe: TrainRecipe, folder: Path, is_first: bool) -> Iterator[Log]:
    """What takes (figures, step); on the first process alone it does something.

    Raises UserError for a tracker that accelerate doesn't know, is not installed, or can't start.
    """
    if not names or not is_first:
        yield lambda figures, step: None
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = {str(name): tracker for name, tracker in LOGGER_TYPE_TO_CLASS.items()}
    available = [str(name) for name in get_available_trackers()]
    begun = []
    for name in names:
        if name not in known:
            raise UserError(f"--log-with: no tracker {name}; there are {', '.join(sorted(known))}")
        if name not in available:
            raise UserError(f"--log-with: {name} is not installed; pip install {name}")
        try:
            needs_folder = known[name].requires_logging_directory
            tracker = known[name]("fmrgen", logging_dir=str(folder / "logs")) if needs_folder else known[name]("fmrgen")
            tracker.start()
            tracker.store_init_configuration(_flat(recipe.model_dump(mode="json")))
        except Exception as error:  # each tracker fails in its own way, without a login or a server
            raise UserError(f"--log-with: {name} can't start: {one_line(error)}") from error
        begun.append(tracker)

    def log(figures: Mapping[str, float], step: int) -> None:
        for tracker in begun:
            tracker.log(dict(figures), step=step)

    try:
        yield log
    finally:
        for tracker in begun:
            tracker.finish()


def _flat(tree: Mapping[str, object], place: str = "") -> dict[str, str]:
    """A recipe's keys as `section.key`, its values as words: what all trackers take."""
    found: dict[str, str] = {}
    for name, value in tree.items():
        inner = f"{place}{name}"
        found |= _flat(value, f"{inner}.") if isinstance(value, Mapping) else {inner: str(value)}
    return found
