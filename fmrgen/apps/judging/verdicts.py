"""What a rater has said so far, kept beside the split after each answer: nothing is lost when a window is closed."""

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
from fmrgen.split.judgements import (
    TABLE,
    UNSURE,
    Subject,
    about_path,
    judge_file,
    judges_of,
    read_judgements,
    table_path,
    to_parquet,
    write_judgements,
)
from fmrgen.storage.provenance import now

_MOST_SECONDS = 1e9


class NotAskedError(UserError):
    """An answer that can't be taken now, or is invalid."""


@dataclass(frozen=True)
class Audited(Subject):
    """A split that is audited: where its judgements go, what it is, and which of its images are shown.

    `images` are the bytes of each, by id and which, `labels` those of the split, by id.
    """

    sample: Sample
    images: dict[tuple[int, str], bytes]
    labels: dict[int, int]

    @property
    def section(self) -> dict[str, Any]:
        """What is to be known of the sample by whoever makes figures of the answers."""
        shown = len([entry for entry in self.sample.shown if entry.which == "image" and not entry.repeat])
        return {"shown": shown, "seed": self.sample.seed, "strata": self.sample.strata}


class Rater:
    """One person's answers, in the order in which they are asked for.

    Raises UserError where there are answers of that name to other questions.
    """

    def __init__(self, name: str, audited: Audited) -> None:
        self.name, self.audited = name, audited
        self.tasks = audited.sample.order(name)
        self.answers: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        if table_path(audited.paths, name).exists() or about_path(audited.paths, name).exists():
            self._read()

    def _read(self) -> None:
        paths = self.audited.paths
        about = judges_of(paths).get(self.name)
        where = table_path(paths, self.name)
        if about is None or not where.exists():
            raise UserError(f"{where}: is incomplete; delete what is left of it, or choose another rater name")
        if about.kind != "person":
            raise UserError(f"{where}: holds judgements by an {about.kind}; choose another rater name")
        if about.files != self.audited.provenance.files_digest or about.section != self.audited.section:
            raise UserError(
                f"{where}: was begun on other images (--n, --seed or the split itself differed); choose another "
                "rater name, or pass the same options"
            )
        # The table is written first: a kill before the file about it leaves the newest answer in the table alone.
        here = replace(about, sha256=sha256_of(where), rows=len(self.tasks))
        found = read_judgements(where, here).table.to_pylist()
        begun = [(entry["id"], entry["which"], entry["repeat"]) for entry in found]
        if begun != [(task.id, task.which, task.repeat) for task in self.tasks[: len(begun)]]:
            raise UserError(f"{where}: its answers do not match the images of this audit in order")
        self.answers = found

    @property
    def done(self) -> int:
        return len(self.answers)

    @property
    def originals_right(self) -> Estimate | None:
        """The share of the originals among the images so far whose label was named; None before the first."""
        asked = [answer for answer in self.answers if answer["which"] == "original"]
        return proportion(np.array([answer["label"] == self.audited.labels[answer["id"]] for answer in asked]))

    def task(self, number: int) -> Shown | None:
        """What is asked as the number-th, from 0; None behind the last."""
        return self.tasks[number] if 0 <= number < len(self.tasks) else None

    def answer(self, number: int, label: int, seconds: float | None) -> int:
        """Takes the answer to a task, the next one or one that was answered before; returns how many there are.

        Raises NotAskedError for one whose turn it is not, and UserError where it can't be kept.
        """
        with self._lock:
            if not 0 <= number <= len(self.answers) or number >= len(self.tasks):
                raise NotAskedError(f"image {number + 1} is not asked for now")
            self._keep([*self.answers[:number], self._row(number, label, seconds), *self.answers[number + 1 :]])
            return len(self.answers)

    def take(self, answers: Sequence[tuple[int, float | None]]) -> int:
        """Takes all answers (label, seconds) to the first tasks, which replace those that there are, or none of them;
        returns how many there are.

        Raises UserError where they are fewer than those, or more than there are tasks.
        """
        with self._lock:
            if len(answers) > len(self.tasks):
                raise UserError(f"{len(answers)} answers to {len(self.tasks)} images")
            if len(answers) < len(self.answers):
                raise UserError(
                    f"{len(answers)} answers, but {len(self.answers)} by {self.name} are already kept; delete "
                    f"{table_path(self.audited.paths, self.name)} and the .json beside it to count only the new ones"
                )
            self._keep([self._row(number, *answer) for number, answer in enumerate(answers)])
            return len(self.answers)

    def _row(self, number: int, label: int, seconds: float | None) -> dict[str, Any]:
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
        """Takes the answer to the last task back, which is `number`; done already, it does nothing. Returns how many
        there are.

        Raises NotAskedError where it is not the last, and UserError where that can't be kept.
        """
        with self._lock:
            if number not in (len(self.answers) - 1, len(self.answers)):
                raise NotAskedError(f"image {number + 1} is not the last that was answered")
            if number < len(self.answers):
                self._keep(self.answers[:number])
            return len(self.answers)

    def _keep(self, answers: list[dict[str, Any]]) -> None:
        """Writes answers; those that could not be written do not count."""
        content = to_parquet(pa.Table.from_pylist(answers, schema=TABLE))
        about = judge_file(self.name, "person", self.audited.section, None, self.audited, content)
        write_judgements(self.audited.paths, about, content)
        self.answers = answers


def parse_answer(answer: Any, classes: int) -> tuple[int, float | None]:
    """The label of an answer in JSON, and the seconds that it took. Raises UserError where it is none."""
    label, seconds = (answer.get(name) if isinstance(answer, dict) else None for name in ("label", "seconds"))
    if type(label) is not int or not UNSURE <= label < classes:  # to isinstance, True is one
        raise UserError(f"label {label!r:.40} is not one of the classes")
    if seconds is not None and (type(seconds) not in (int, float) or not 0 <= seconds < _MOST_SECONDS):
        raise UserError(f"{seconds!r:.40} is not a number of seconds")
    return label, None if seconds is None else float(seconds)
