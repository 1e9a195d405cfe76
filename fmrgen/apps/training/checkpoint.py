"""The state of a training run: what it needs to resume to the same weights, and what it leaves when it has ended."""

import io
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fmrgen.apps.training.recipe import TrainRecipe
from fmrgen.distributed.launch import Processes
from fmrgen.distributed.rank import note
from fmrgen.errors import UserError, one_line, option
from fmrgen.files import fingerprint, json_text, parse_json
from fmrgen.storage.bucket import open_store
from fmrgen.storage.claims import Claims
from fmrgen.storage.store import read

_STATE, RECORD, _CLAIM = "checkpoint.pt", "training.json", ".training.claim"


class TrainingFolder:
    """The folder of a run: a checkpoint while it runs, and `training.json` with its recipe and figures at its end.

    It can be in an object store; then its files are on this machine too. Raises UserError if the folder can't be made,
    or is another run's.
    """

    def __init__(self, output: str | Path, recipe: TrainRecipe) -> None:
        self.output, self.tree = output, recipe.model_dump(mode="json")
        self._store = open_store(output)
        self.folder, self._claims = self._store.root, Claims(self._store)
        identity = {name: value for name, value in self.tree.items() if name != "description"}
        classes = self.tree["source"].get("classes")  # their order numbers the labels
        self.fingerprint = fingerprint([identity, list(classes or ())])
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{output}: can't be a folder for the weights: {error.strerror}") from None
        record = self._record()
        if record is not None and record.get("fingerprint") != self.fingerprint:
            raise UserError(f"{output}: holds weights of another recipe; give another {option('output')}")

    @contextmanager
    def alone(self, processes: Processes) -> Iterator[None]:
        """Claim the folder for the work inside; wait while another run has it."""
        claim, has_noted = self.folder / _CLAIM, False
        while not processes.gather(processes.is_first and (self.metrics() is not None or self._claims.take(claim)))[0]:
            if not has_noted:
                note(f"{self.output}: another run is training there, or was killed there just now; waits for it")
            has_noted = True
            time.sleep(self._store.poll)
        try:
            yield
        finally:
            if processes.is_first:
                with suppress(UserError):  # an error of the run itself is the one to report
                    self._claims.release(claim)

    def metrics(self) -> dict[str, float] | None:
        """Return the figures of a run that has ended here; None if none has."""
        record = self._record()
        if record is None:
            return None
        metrics = record.get("metrics", {})
        return {name: math.nan if value is None else value for name, value in metrics.items()}  # JSON has no NaN

    def load(self) -> dict[str, Any] | None:
        """Return the last state that was saved, on the CPU; None if there is none.

        Raises UserError for the checkpoint of another run, or a broken one.
        """
        content = read(self._store, self.folder / _STATE)
        if content is None:
            return None
        path = f"{self.output}/{_STATE}"
        try:
            state: dict[str, Any] = torch.load(io.BytesIO(content), "cpu", weights_only=True)
            state_fingerprint = state["fingerprint"]
        except Exception as error:  # a broken file can fail anywhere in the reader, which runs no code of it
            raise UserError(f"{path}: not a readable checkpoint ({one_line(error)}); delete it to start over") from None
        if state_fingerprint != self.fingerprint:
            raise UserError(
                f"{path}: is the checkpoint of another recipe; give another {option('output')}, or delete it"
            )
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint of what the run needs to resume."""
        buffer = io.BytesIO()
        torch.save({**state, "fingerprint": self.fingerprint}, buffer)
        self._write(_STATE, buffer.getvalue())

    def save_weights(self, save: Callable[[Path], None]) -> None:
        """Write the weights: the files that `save` writes into a folder."""
        with TemporaryDirectory(prefix=".", dir=self.folder) as partial:
            save(Path(partial))
            for path in sorted(Path(partial).rglob("*")):
                if path.is_file():
                    self._write(path.relative_to(partial).as_posix(), path.read_bytes())

    def end(self, metrics: dict[str, float]) -> None:
        """Write the recipe and the figures, and delete the checkpoint."""
        numbers = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        content = {"fingerprint": self.fingerprint, "metrics": numbers, "recipe": self.tree}
        self._write(RECORD, json_text(content, strict=True).encode())
        self._store.remove(self.folder / _STATE)

    def _record(self) -> dict[str, Any] | None:
        content = read(self._store, self.folder / RECORD)
        return None if content is None else parse_json(content, f"{self.output}/{RECORD}")

    def _write(self, name: str, content: bytes) -> None:
        self._store.write(self.folder / name, content)
