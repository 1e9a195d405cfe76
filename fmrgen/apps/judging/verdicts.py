"""The answers of a rater, stored beside the split after each one: nothing is lost when a window is closed."""

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from fmrgen.apps.judging.sample import Sample, Shown
from fmrgen.errors import UserError
from fmrgen.files import sha256_of
from fmrgen.metrics.intervals import Estimate, proportion
from fmrgen.split.judgements import TABLE, UNSURE, JudgeFile, JudgementsFolder, to_parquet
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import Provenance, now

_MAX_SECONDS = 1e9


class NotAskedError(UserError):
    """The answer can't be taken now."""


@dataclass(frozen=True)
class Audited:
    """A split that is audited, with the sample of its images.

    Attributes:
        paths: of the split, in the folder where its judgements go.
        provenance: of the split.
        sample: the images that are shown.
        images: the bytes of each, by id and which.
        labels: of the split, by id.
    """

    paths: SplitPaths
    provenance: Provenance
    sample: Sample
    images: dict[tuple[int, str], bytes]
    labels: dict[int, int]

    @property
    def section(self) -> dict[str, Any]:
        """The facts about the sample that figures are computed with."""
        shown = [entry for entry in self.sample.shown if entry.which == "image" and not entry.repeat]
        return {"shown": len(shown), "seed": self.sample.seed, "strata": self.sample.strata}


class Rater:
    """One person's answers, in the order of the tasks.

    Raises UserError if there are stored answers under that name to other tasks.
    """

    def __init__(self, name: str, audited: Audited) -> None:
        self.name, self.audited = name, audited
        self.tasks = audited.sample.order(name)
        self.answers: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._folder = JudgementsFolder(audited.paths)
        if self._folder.table_path(name).exists() or self._folder.about_path(name).exists():
            self._read()

    def _read(self) -> None:
        """Read the stored answers. Raises UserError unless they are a person's, to the first tasks in order."""
        about = self._folder.judges().get(self.name)
        path = self._folder.table_path(self.name)
        if about is None or not path.exists():
            raise UserError(f"{path}: is incomplete; delete what is left of it, or choose another rater name")
        if about.kind != "person":
            raise UserError(f"{path}: holds judgements by an {about.kind}; choose another rater name")
        if about.files != self.audited.provenance.files_digest or about.section != self.audited.section:
            raise UserError(
                f"{path}: was begun on other images (--n, --seed or the split itself differed); choose another "
                "rater name, or pass the same options"
            )
        # The table is written first: a kill before the file about it leaves the newest answer in the table alone. So
        # the digest of the file on disk is expected here, not the recorded one.
        expected = replace(about, sha256=sha256_of(path), rows=len(self.tasks))
        answers = self._folder.read(expected).table.to_pylist()
        answered = [(answer["id"], answer["which"], answer["repeat"]) for answer in answers]
        if answered != [(task.id, task.which, task.repeat) for task in self.tasks[: len(answers)]]:
            raise UserError(f"{path}: its answers do not match the images of this audit in order")
        self.answers = answers

    @property
    def done(self) -> int:
        """The number of answers."""
        return len(self.answers)

    @property
    def originals_right(self) -> Estimate | None:
        """The share of originals answered so far whose label was named; None before the first."""
        is_right = []
        for answer in self.answers:
            if answer["which"] == "original":
                is_right.append(answer["label"] == self.audited.labels[answer["id"]])
        return proportion(np.array(is_right))

    def task(self, number: int) -> Shown | None:
        """Return the task of a number, from 0; None after the last."""
        return self.tasks[number] if 0 <= number < len(self.tasks) else None

    def answer(self, number: int, label: int, seconds: float | None) -> int:
        """Store the answer to a task, the next one or one that was answered before; return the number of answers.

        Args:
            number: of the task.
            label: the class that was named, or `UNSURE`.
            seconds: that it took; None if unknown.

        Raises:
            NotAskedError: it is not the turn of this task.
            UserError: the answer can't be stored.
        """
        with self._lock:
            if not 0 <= number <= len(self.answers) or number >= len(self.tasks):
                raise NotAskedError(f"image {number + 1} is not asked for now")
            row = self._row(number, label, seconds)
            self._store([*self.answers[:number], row, *self.answers[number + 1 :]])
            return len(self.answers)

    def take(self, answers: Sequence[tuple[int, float | None]]) -> int:
        """Replace all answers by those (label, seconds) to the first tasks; return their number.

        Raises UserError, and replaces none, if they are fewer than the stored ones or more than there are tasks.
        """
        with self._lock:
            if len(answers) > len(self.tasks):
                raise UserError(f"{len(answers)} answers to {len(self.tasks)} images")
            if len(answers) < len(self.answers):
                raise UserError(
                    f"{len(answers)} answers, but {len(self.answers)} by {self.name} are already kept; delete "
                    f"{self._folder.table_path(self.name)} and the .json beside it to count only the new ones"
                )
            self._store([self._row(number, *answer) for number, answer in enumerate(answers)])
            return len(self.answers)

    def _row(self, number: int, label: int, seconds: float | None) -> dict[str, Any]:
        """Return the row of the table for an answer."""
        task = self.tasks[number]
        return {
            "judge": self.name,
            "id": task.id,
            "which": task.which,
            "label": label,
            "probability": None,
            "score": None,
            "when": now(),
            "image_sha256": hashlib.sha256(self.audited.images[task.id, task.which]).hexdigest(),
            "weights_sha256": None,
            "repeat": task.repeat,
            "stratum": task.stratum,
            "seconds": seconds,
        }

    def undo(self, number: int) -> int:
        """Delete the answer to the last task that was answered, `number`; return the number of answers.

        Does nothing if that was done before. Raises NotAskedError if it is not the last, and UserError if the change
        can't be stored.
        """
        with self._lock:
            if number not in (len(self.answers) - 1, len(self.answers)):
                raise NotAskedError(f"image {number + 1} is not the last that was answered")
            if number < len(self.answers):
                self._store(self.answers[:number])
            return len(self.answers)

    def _store(self, answers: list[dict[str, Any]]) -> None:
        """Write answers; they count only if they could be written."""
        content = to_parquet(pa.Table.from_pylist(answers, schema=TABLE))
        split, provenance = self.audited.paths.name, self.audited.provenance
        about = JudgeFile.of(self.name, "person", self.audited.section, None, split, provenance, content)
        self._folder.write(about, content)
        self.answers = answers


def parse_answer(answer: Any, classes: int) -> tuple[int, float | None]:
    """Return the label of an answer in JSON, and the seconds that it took. Raises UserError for an invalid one."""
    if not isinstance(answer, dict):
        answer = {}
    label, seconds = answer.get("label"), answer.get("seconds")
    if type(label) is not int or not UNSURE <= label < classes:  # isinstance takes True for a number
        raise UserError(f"label {label!r:.40} is not one of the classes")
    if seconds is not None and (type(seconds) not in (int, float) or not 0 <= seconds < _MAX_SECONDS):
        raise UserError(f"{seconds!r:.40} is not a number of seconds")
    return label, None if seconds is None else float(seconds)
