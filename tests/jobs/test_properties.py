"""Whatever the budget, the slots, the plan, the processes and the moments at which a job is killed: the finished split is
what Algorithm 1, written literally, makes of the source.

The processes are threads here and the kills are exceptions, so that hundreds of jobs take seconds; `test_kills.py` does
the same with real ones. Run more examples with `pytest tests/jobs/test_properties.py --hypothesis-profile thorough`.
"""

import io
import os
import shutil
import tempfile
import threading
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import torch
from fakes import Brightness, Identity, Patient
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks.reference import reference_perturb
from fmrgen.config import ComponentConfig
from fmrgen.errors import UserError
from fmrgen.generators.base import GeneratorConfig
from fmrgen.jobs.generate import make_split
from fmrgen.labels import make_labels
from fmrgen.recipe.job import Recipe
from fmrgen.records import StopReason
from fmrgen.sources.base import RawExample, Source, SourceConfig

SIZE = 16
STEP = 8 / 255
MODELS = {"classifier": Brightness(nan_gradient_above=0.85), "generator": Identity(), "oracle": Patient(0.7)}


class Greys(SourceConfig):
    """Grey images by their levels, -1 for one that can't be read; every fifth has the label that the oracle never sees."""

    kind: str = "test_properties:Greys"
    levels: list[int]

    def build(self, device="cpu"):
        return GreySource(self.levels)


class GreySource(Source):
    def __init__(self, levels):
        self.levels, self.labels = levels, make_labels(["dark", "bright"], None)

    def __len__(self):
        return len(self.levels)

    def read(self, start, stop):
        for i in range(start, min(stop, len(self))):
            image = b"" if self.levels[i] < 0 else Image.new("RGB", (SIZE, SIZE), (self.levels[i],) * 3)
            yield RawExample(1000 + 3 * i, image, int(i % 5 == 4))


class Ready(ComponentConfig):
    """One of the fake models."""

    kind: str = "test_properties:Ready"
    role: str

    def build(self, device="cpu"):
        return MODELS[self.role]


class ReadyGenerator(GeneratorConfig):
    kind: str = "test_properties:ReadyGenerator"
    image_size: int = SIZE

    def build(self, device="cpu"):
        return Identity()


class Killed(BaseException):
    """The end of a process that can't defend itself."""


def run(recipe, folders, processes, kill_after, separate):
    """One run of the job; returns whether it came to its end. What it raises is raised."""
    made, errors, over = [0] * processes, [], threading.Event()

    def process(number):
        def watch(progress):
            made[number] = max(made[number], progress.done - progress.resumed)
            if over.is_set() or (kill_after is not None and max(made) >= kill_after):
                over.set()  # all are killed
                raise Killed

        try:
            part = (number + 1, processes) if separate else None
            make_split(recipe, folders[number if separate else 0], part=part, on_progress=watch)
        except BaseException as error:
            errors.append(error)

    with (
        patch("fmrgen.storage.store.Store.poll", 0.005),
        patch("fmrgen.jobs.show.write_picture"),
        patch("fmrgen.jobs.lifecycle.renew_card"),
    ):
        workers = [threading.Thread(target=process, args=(number,)) for number in range(processes)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
            assert not worker.is_alive()
    mistakes = [error for error in errors if not isinstance(error, Killed)]
    if mistakes:
        raise mistakes[0]
    return not errors


def expected(levels, budget):
    """The reference's rows by id."""
    rows = {}
    for example in GreySource(levels).read(0, len(levels)):
        if not isinstance(example.image, bytes):
            x = torch.from_numpy(np.array(example.image)).permute(2, 0, 1).unsqueeze(0).float() / 255
            rows[example.id] = reference_perturb(x, example.label, **MODELS, budget=budget, step_size=STEP)
    return rows


def stored(folder):
    rows = {}
    for path in sorted(folder.glob("c/s-*.parquet")):
        for row in pq.read_table(path).to_pylist():
            assert row["id"] not in rows, "doubled"
            rows[row["id"]] = row
    return rows


def equals_reference(row, reference):
    image = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))
    stored = (row["valid"], row["iterations"], list(StopReason)[row["stop_reason"]].value)
    made = (reference.valid, reference.iterations, reference.stop_reason)
    return stored == made and np.array_equal(image, reference.image.permute(1, 2, 0).numpy())


A_RUN = st.tuples(st.integers(1, 3), st.integers(1, 9))  # processes and slots


@given(
    levels=st.lists(st.integers(-1, 255), min_size=1, max_size=14),
    budget=st.integers(1, 6),
    shard_size=st.integers(1, 5),
    killed=st.lists(st.tuples(A_RUN, st.integers(0, 12)), max_size=2),
    last=A_RUN,
    separate=st.booleans(),
)
def test_the_finished_split_is_the_references(levels, budget, shard_size, killed, last, separate):
    def recipe(slots):
        tree = {role: {"kind": "test_properties:Ready", "role": role} for role in ("classifier", "oracle")}
        tree |= {
            "source": {"kind": "test_properties:Greys", "levels": levels, "on_error": "skip"},
            "generator": {"kind": "test_properties:ReadyGenerator"},
            "perturb": {"budget": budget, "step_size": STEP, "slots": slots},
            "output": {"config": "c", "split": "s", "shard_size": shard_size},
        }
        return Recipe.model_validate(tree)

    reference = expected(levels, budget)
    hopeless = all(row.stop_reason == "nonfinite" and not row.valid for row in reference.values())
    with tempfile.TemporaryDirectory() as root, patch.object(os, "fsync", lambda file: None):
        folders = [Path(root) / str(number) for number in range(3)]
        try:
            for (processes, slots), kill_after in killed:
                run(recipe(slots), folders, processes, kill_after, separate)
            assert run(recipe(last[1]), folders, last[0], None, separate)
            whole = folders[0]
            if separate:
                whole = Path(root) / "whole"
                for folder in folders:
                    if folder.exists():
                        shutil.copytree(folder, whole, dirs_exist_ok=True)
                run(recipe(last[1]), [whole], 1, None, separate=False)
        except UserError:
            if hopeless:  # nothing was readable, or nothing was a number: the job ends with a line
                return
            raise
        assert not hopeless
        found = stored(whole)
        assert found.keys() == reference.keys(), "lost"
        assert all(equals_reference(found[i], row) for i, row in reference.items())
        assert not list(Path(root).rglob("*.tmp"))
