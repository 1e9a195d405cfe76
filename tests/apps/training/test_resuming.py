"""A training run that is killed goes on to the weights that it would have had, alone and with others."""

import os
import signal

import pytest
import torch
import warm
from commands import fmrgen, launched, wait_for
from object_store import BUCKET, object_store
from safetensors.torch import load_file

from fmrgen.apps.training.images import TrainingImages, load_images
from fmrgen.apps.training.loop import train
from fmrgen.apps.training.recipe import load_train_recipe
from fmrgen.errors import UserError
from fmrgen.recipe.job import load_recipe
from fmrgen.sources.base import LoadedExample, SkippedExample, Source

FEW = ["source.limit=100", "test.limit=20"]
FEW += ["schedule.threads=1", "schedule.batch_size=16", "schedule.checkpoint_every=5"]
AUGMENTED = ["augment.crop=2", "augment.flip=true", "augment.mixup=0.2"]
KINDS = {
    "mnist-lenet": [*AUGMENTED, "schedule.optimizer=sgd", "schedule.decay=cosine"],
    "mnist-vqgan": ["model.widths=[8,16]", "schedule.precision=bf16"],
    "mnist-lenet-adversarial": ["model.rule=trades", "model.attack_steps=1"],
}


class KilledError(Exception):
    pass


def killed_at(last, steps=None):
    """A progress that kills the run at a step, and notes the steps."""

    def progress(step, *_):
        if steps is not None:
            steps.append(step)
        if step == last:
            raise KilledError

    return progress


def weights(folder):
    (path,) = (path for path in folder.rglob("*.safetensors"))
    return load_file(path)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_resumed_run_ends_in_the_same_weights(tmp_path, name):
    recipe = load_train_recipe(f"train/{name}", [*FEW, *KINDS[name], "schedule.steps=12"])
    expected = train(recipe, tmp_path / "whole")
    steps = []
    for last in (7, 11):
        with pytest.raises(KilledError):
            train(recipe, tmp_path / "killed", killed_at(last, steps))
    assert train(recipe, tmp_path / "killed", killed_at(None, steps)) == expected
    assert steps == [*range(1, 8), *range(6, 12), 11, 12]
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    assert not (tmp_path / "killed/checkpoint.pt").exists()
    steps.clear()
    assert train(recipe, tmp_path / "killed", killed_at(None, steps)) == expected  # there is nothing left to do
    assert not steps


@pytest.mark.slow
@pytest.mark.nightly
def test_one_seed_gives_one_network_whatever_the_threads(tmp_path):
    """By the bytes of its file, in processes of their own; another number of threads, where it is asked for, may not."""
    job = ["train", "train/mnist-lenet", "schedule.steps=6", "schedule.batch_size=64", "test.limit=10", "-q"]
    for name, threads in (("one", 1), ("four", 4)):
        result = fmrgen(*job, "--output", tmp_path / name, fresh=True, OMP_NUM_THREADS=str(threads))
        assert result.returncode == 0, result.stderr
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "four")]
    assert files[0] == files[1]


@pytest.mark.slow
def test_two_processes_go_on_after_a_real_kill_and_take_the_steps_of_one(tmp_path):
    """Without what is random in a step they see the batch of one process: the weights differ by rounding alone."""
    changes = [*FEW, "augment.warp=0", "schedule.steps=16"]
    train(load_train_recipe("train/mnist-lenet", changes), tmp_path / "one")
    arguments = ["train", "train/mnist-lenet", *changes]
    whole, second = launched(2, *arguments, "--output", tmp_path / "whole")
    assert (whole.returncode, second.returncode) == (0, 0), whole.stderr
    for name, values in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "whole")[name], values, atol=1e-3, rtol=1e-2)
    killed = warm.start(2, ["-m", "fmrgen", *arguments, "--output", tmp_path / "killed", "-q"], {**os.environ})
    wait_for(lambda: (tmp_path / "killed/checkpoint.pt").exists() or killed[0].poll() is not None)
    for process in killed:
        process.kill()
    assert [process.wait(60) for process in killed] == [-signal.SIGKILL] * 2
    again, second = launched(2, *arguments, "--output", tmp_path / "killed")
    assert (again.returncode, second.returncode) == (0, 0), again.stderr
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    assert again.stdout.replace("killed", "whole") == whole.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", pytest.param("bucket", marks=pytest.mark.nightly)])
def test_a_run_is_waited_for_and_taken_over_where_its_process_is_gone(tmp_path, kind):
    """In a bucket by a machine that has nothing of it but the address."""
    arguments = ["train", "train/mnist-lenet", *FEW, "schedule.steps=200"]
    train(load_train_recipe(arguments[1], arguments[2:]), tmp_path / "whole")
    with object_store() as store:

        def started(machine):
            cache = {"FMRGEN_CACHE": str(tmp_path / machine), "FMRGEN_LEASE_SECONDS": "2"}
            command = ["-m", "fmrgen", *arguments, "-o", output]
            return warm.Process(command, {**os.environ, **store.environment, **cache})

        def is_there(name):
            return name in store.keys("run/") if kind == "bucket" else (tmp_path / "run" / name).exists()

        output = f"s3://{BUCKET}/run" if kind == "bucket" else tmp_path / "run"
        first = started("one")
        wait_for(lambda: is_there("checkpoint.pt"))
        first.send_signal(signal.SIGSTOP)
        second = started("other")
        try:
            wait_for(lambda: "another run is training there" in second.said()[1])
        finally:
            first.kill()
        out, err = second.communicate(timeout=300)
        assert second.returncode == 0, err
        assert out.startswith(f"{output}: accuracy ")
        assert not is_there("checkpoint.pt")
        assert not is_there(".training.claim.0")
        if kind == "bucket":
            made = store.client.get_object(Bucket=BUCKET, Key="run/model.safetensors")["Body"].read()
        else:
            made = (tmp_path / "run/model.safetensors").read_bytes()
    assert made == (tmp_path / "whole/model.safetensors").read_bytes()


def test_another_recipe_and_broken_checkpoints_are_refused(tmp_path):
    recipe = load_train_recipe("train/mnist-lenet", [*FEW, "schedule.steps=12"])
    with pytest.raises(KilledError):
        train(recipe, tmp_path / "own", killed_at(6))
    model = "model={kind: consistency, classifier: {kind: lenet}, image_size: 32}"
    other = load_train_recipe("train/mnist-lenet", [*FEW, "schedule.steps=12", model])
    with pytest.raises(UserError, match=r"checkpoint\.pt: is the checkpoint of another recipe; give another output="):
        train(other, tmp_path / "own")
    (tmp_path / "own/checkpoint.pt").write_bytes(b"cut")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        train(recipe, tmp_path / "own")
    (tmp_path / "own/checkpoint.pt").unlink()
    train(recipe, tmp_path / "own")
    with pytest.raises(UserError, match="holds weights of another recipe; give another output="):
        train(other, tmp_path / "own")


class Counting(Source):
    """Images that tell their position; some can't be read."""

    def __init__(self, count, unreadable=()):
        self.labels, self.count, self.unreadable = load_recipe("mnist-lenet").source.build().labels, count, unreadable
        self.reads = []

    def __len__(self):
        return self.count

    def read(self, start, stop):
        raise NotImplementedError

    def load(self, start, stop, size):
        self.reads.append((start, stop))
        for position in range(start, stop):
            if position in self.unreadable:
                yield SkippedExample(position, "broken")
            else:
                image = torch.full((size, size, 3), position, dtype=torch.uint8).numpy()
                yield LoadedExample(position, image, position % 10)


def drawn(images, first, steps, **options):
    batches = images.batches(first, **{"size": 6, "rank": 0, "processes": 1, **options})
    return [next(batches)[0][:, 0, 0, 0].tolist() for _ in range(steps)]


def test_an_epoch_shows_each_image_once_and_keeps_two_windows_at_most(monkeypatch):
    monkeypatch.setattr("fmrgen.apps.training.images._WINDOW_BYTES", 3 * 4 * 4 * 10)  # ten images
    source = Counting(33)
    images = TrainingImages(source, 4, seed=0)
    batches = drawn(images, 0, 11)  # two epochs
    flat = [position for batch in batches for position in batch]
    assert sorted(flat[:33]) == sorted(flat[33:66]) == list(range(33))
    assert flat[:33] != flat[33:66]
    assert len(images._loaded) <= 2
    assert images._example(1)[0].untyped_storage().nbytes() == 3 * 4 * 4  # its own, and not a window's
    assert len(source.reads) <= 2 * 4 + 1
    assert all(stop - start <= 10 for start, stop in source.reads)
    assert drawn(TrainingImages(source, 4, seed=0), 7, 4) == batches[7:]
    shares = [drawn(TrainingImages(source, 4, seed=0), 0, 3, rank=rank, processes=2) for rank in (0, 1)]
    assert [sorted(one + other) for one, other in zip(*shares, strict=True)] == [sorted(batch) for batch in batches[:3]]
    assert drawn(TrainingImages(source, 4, seed=1), 0, 3) != batches[:3]


def test_the_next_image_stands_for_one_that_can_not_be_read():
    images, labels, ids = load_images(Counting(6, {0, 3, 5}), range(6), 4)
    assert images[:, 0, 0, 0].tolist() == [1, 1, 2, 4, 4, 4]
    assert labels.tolist() == ids.tolist() == [1, 1, 2, 4, 4, 4]
    with pytest.raises(UserError, match="none of its images can be read"):
        load_images(Counting(2, {0, 1}), range(2), 4)
