"""Where a training run stands: what it needs to go on to the same weights, and what is left of it when it has ended."""

import io
import json
import math
from pathlib import Path
from typing import Any

import torch

from fmrgen.errors import UserError, one_line, option
from fmrgen.files import fingerprint, read_json, write_atomically
from fmrgen.training.recipe import THREADS, TrainRecipe

_STATE, _RECORD = "checkpoint.pt", "training.json"


class TrainingFolder:
    """The folder of a run: a checkpoint while it goes on, and `training.json`, its recipe and figures, at its end."""

    def __init__(self, folder: Path, recipe: TrainRecipe) -> None:
        """Raises UserError where the folder can't be one, or is another run's."""
        self.folder, self.tree = folder, recipe.model_dump(mode="json")
        identity = {name: value for name, value in self.tree.items() if name != "description"}
        if recipe.schedule.threads == THREADS:  # earlier versions knew none
            identity["schedule"] = {name: value for name, value in identity["schedule"].items() if name != "threads"}
        classes = self.tree["source"].get("classes")  # their order numbers the labels
        self.fingerprint = fingerprint([identity, list(classes or ())])
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: can't be a folder for the weights: {error.strerror}") from None
        if (folder / _RECORD).exists() and read_json(folder / _RECORD).get("fingerprint") != self.fingerprint:
            raise UserError(f"{folder}: holds weights of another recipe; give another {option('output')}")

    def metrics(self) -> dict[str, float] | None:
        """The figures of a run that has ended here."""
        if not (self.folder / _RECORD).exists():
            return None
        found = read_json(self.folder / _RECORD).get("metrics", {})
        return {name: math.nan if value is None else value for name, value in found.items()}

    def load(self) -> dict[str, Any] | None:
        """What `save` was given last, on the CPU; None where nothing is there.

        Raises UserError for another run's, or a broken one.
        """
        path = self.folder / _STATE
        if not path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(path, "cpu", weights_only=True)
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
        write_atomically(self.folder / _STATE, buffer.getbuffer())

    def end(self, metrics: dict[str, float]) -> None:
        """Keeps the recipe and the figures, and lets the checkpoint go."""
        numbers = {name: value if math.isfinite(value) else None for name, value in metrics.items()}  # JSON has no NaN
        content = {"fingerprint": self.fingerprint, "metrics": numbers, "recipe": self.tree}
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomically(self.folder / _RECORD, text.encode())
        (self.folder / _STATE).unlink(missing_ok=True)
