"""Where a training run stands: what it needs to go on to the same weights, and what is left of it when it has ended."""

import io
import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fmrgen.apps.training.recipe import THREADS, TrainRecipe
from fmrgen.errors import UserError, one_line, option
from fmrgen.files import fingerprint, parse_json, write_atomically
from fmrgen.storage.shared_bucket import shared_folder

_STATE, _RECORD, _CLAIM = "checkpoint.pt", "training.json", ".training.lock"


class TrainingFolder:
    """The folder of a run: a checkpoint while it goes on, and `training.json`, its recipe and figures, at its end.

    Args:
        output: the folder, or the address of one in an object store, whose files lie on this machine too.
        recipe: of the run.

    Raises:
        UserError: it can't be one, or is another run's.
    """

    def __init__(self, output: str | Path, recipe: TrainRecipe) -> None:
        self.output, self.tree = output, recipe.model_dump(mode="json")
        self._shared, self.folder = shared_folder(output)
        self._is_taken = False
        identity = {name: value for name, value in self.tree.items() if name != "description"}
        if recipe.schedule.threads == THREADS:  # earlier versions knew none
            identity["schedule"] = {name: value for name, value in identity["schedule"].items() if name != "threads"}
        classes = self.tree["source"].get("classes")  # their order numbers the labels
        self.fingerprint = fingerprint([identity, list(classes or ())])
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{output}: can't be a folder for the weights: {error.strerror}") from None
        if (record := self._record()) is not None and record.get("fingerprint") != self.fingerprint:
            raise UserError(f"{output}: holds weights of another recipe; give another {option('output')}")

    @property
    def poll(self) -> float:
        """The seconds between two looks at whether another run has left the folder."""
        return self._shared.poll

    def take(self) -> bool:
        """Whether this run is the one that works in the folder from now on; of several processes the first asks."""
        self._is_taken = self._shared.take(self.folder / _CLAIM)
        return self._is_taken

    def leave(self) -> None:
        """Lets others work in it."""
        if not self._is_taken:
            return
        with suppress(UserError):  # what went wrong with the run is reported
            if self._record() is not None:  # nobody has anything left to do
                self._shared.remove(self.folder / _CLAIM)
            self._shared.release(self.folder / _CLAIM)

    def metrics(self) -> dict[str, float] | None:
        """The figures of a run that has ended here."""
        if (record := self._record()) is None:
            return None
        found = record.get("metrics", {})
        return {name: math.nan if value is None else value for name, value in found.items()}

    def load(self) -> dict[str, Any] | None:
        """What `save` was given last, on the CPU; None where nothing is there.

        Raises UserError for another run's, or a broken one.
        """
        if (content := self._read(_STATE)) is None:
            return None
        path = f"{self.output}/{_STATE}"
        try:
            state: dict[str, Any] = torch.load(io.BytesIO(content), "cpu", weights_only=True)
            fingerprint = state["fingerprint"]
        except Exception as error:  # a broken file can fail anywhere in the reader, which runs nothing of it
            raise UserError(f"{path}: not a readable checkpoint ({one_line(error)}); delete it to start over") from None
        if fingerprint != self.fingerprint:
            raise UserError(
                f"{path}: is the checkpoint of another recipe; give another {option('output')}, or delete it"
            )
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Keeps what the run needs to go on."""
        buffer = io.BytesIO()
        torch.save({**state, "fingerprint": self.fingerprint}, buffer)
        self._write(_STATE, buffer.getvalue())

    def keep(self, save: Callable[[Path], None]) -> None:
        """Keeps the weights: the files that `save` writes into a folder."""
        with TemporaryDirectory(prefix=".", dir=self.folder) as partial:
            save(Path(partial))
            for path in sorted(filter(Path.is_file, Path(partial).rglob("*"))):
                self._write(path.relative_to(partial).as_posix(), path.read_bytes())

    def end(self, metrics: dict[str, float]) -> None:
        """Keeps the recipe and the figures, and lets the checkpoint go."""
        numbers = {name: value if math.isfinite(value) else None for name, value in metrics.items()}  # JSON has no NaN
        content = {"fingerprint": self.fingerprint, "metrics": numbers, "recipe": self.tree}
        self._write(_RECORD, (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
        self._shared.remove(self.folder / _STATE)

    def _record(self) -> dict[str, Any] | None:
        content = self._read(_RECORD)
        return None if content is None else parse_json(content, f"{self.output}/{_RECORD}")

    def _read(self, name: str) -> bytes | None:
        path = self.folder / name
        if not self._shared.exists(path):
            return None
        try:
            with self._shared.open(path) as file:
                return bytes(file.read())
        except OSError as error:
            raise UserError(f"{self.output}/{name}: can't be read: {error.strerror or error}") from None

    def _write(self, name: str, content: bytes) -> None:
        write_atomically(self.folder / name, content)
        self._shared.publish(self.folder / name, replace=True)
