"""What makes the engine fast changes no row: slots found by timing, memory that runs out, bf16."""

import pytest
import torch
from fakes import COUNT, STEP, Brightness, Counting, Fixture, Identity, Patient, by_id, grey
from small_models import perturb, tiny_vqgan
from torch import nn

from fmrgen.engine.models import Models
from fmrgen.engine.options import PerturbOptions
from fmrgen.engine.slots import Slots
from fmrgen.records import StopReason


def same_rows(ours, theirs):
    assert ours.keys() == theirs.keys()
    for i, row in ours.items():
        assert (row.stop_reason, row.iterations) == (theirs[i].stop_reason, theirs[i].iterations), i
        assert torch.equal(row.image, theirs[i].image), i
        assert row.loss == pytest.approx(theirs[i].loss), i
        assert row.reconstruction_prediction == theirs[i].reconstruction_prediction, i


class Scarce:
    """A generator on a device with room for so many images at once, and fewer later."""

    def __init__(self, generator, encode_rows, decode_rows):
        self.inner, self.encode_rows, self.decode_rows = generator, encode_rows, iter(decode_rows)
        self.room = next(self.decode_rows)
        self.decoded, self.ran_out = [], 0
        self.encode_inner, self.decode_inner = generator.encode, generator.decode
        generator.encode, generator.decode = self.encode, self.decode

    def encode(self, images, labels):
        self._take(len(images), self.encode_rows)
        assert len(self.inner.row_seeds) == len(images)
        return self.encode_inner(images, labels)

    def decode(self, latents):
        self._take(len(latents.free), self.room)
        self.decoded.append(len(latents.free))
        if len(self.decoded) % 2 == 0:
            self.room = next(self.decode_rows, self.room)
        return self.decode_inner(latents)

    def _take(self, rows, room):
        if rows > room:
            self.ran_out += 1
            raise torch.OutOfMemoryError(f"{rows} images")


@pytest.mark.parametrize("reencode", [False, True], ids=["carry", "reencode"])
@pytest.mark.parametrize("update", ["sign", "adam"])
def test_where_memory_runs_out_slots_are_halved_and_nothing_is_lost(double, update, reencode, monkeypatch):
    setting = Fixture(tiny_vqgan(), 0.05)
    expected = setting.engine(update=update, reencode=reencode, slots=3)
    displaced, halve = [], Slots.halve

    def counted(slots):
        before = sum(slots.occupied)
        halve(slots)
        displaced.append(before - sum(slots.occupied))

    monkeypatch.setattr(Slots, "halve", counted)
    scarce = Scarce(setting.generator, encode_rows=3, decode_rows=(6, 2))
    same_rows(setting.engine(update=update, reencode=reencode, slots=COUNT), expected)
    assert displaced[:2] == [6, 3]  # of twelve slots, all at work
    assert min(scarce.decoded) <= 2


def test_where_images_do_not_fit_their_halves_keep_their_columns():
    labels = torch.arange(5)
    models = Models(Brightness(), Identity(), Patient(1), PerturbOptions(budget=1, step_size=STEP), torch.device("cpu"))

    def work(images, given):
        if len(images) > 2:
            raise torch.OutOfMemoryError("no room")
        return {"sums": images.flatten(1)[:, 0] * 10 + given}

    images = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 16, 16)
    assert models._in_parts_that_fit(work, images, labels)["sums"].tolist() == [0, 11, 22, 33, 44]


def test_where_not_even_one_image_fits_the_error_is_raised():
    generator = Identity()
    Scarce(generator, encode_rows=16, decode_rows=(0,))
    with pytest.raises(torch.OutOfMemoryError):
        list(perturb(grey(0.2, 0.3), Brightness(), generator, Patient(1), budget=2, step_size=STEP))


@pytest.mark.slow
def test_slots_found_by_timing_make_the_same_rows(double):
    setting = Fixture(tiny_vqgan(), 0.05)
    expected = setting.engine(slots=3)
    scarce = Scarce(setting.generator, encode_rows=16, decode_rows=(8,))
    found = []
    same_rows(setting.engine(slots="auto", on_slots=found.append), expected)
    assert found
    assert found[0] in (1, 2, 4, 8)
    assert scarce.ran_out <= 1  # 16 slots at most were tried
    assert list(perturb([], Brightness(), Identity(), Patient(1), budget=1, step_size=STEP, slots="auto")) == []


def test_bf16_is_for_generator_and_classifier_and_measures_are_of_full_precision():
    """The oracle and what is said of stored images know nothing of it."""
    setting = Fixture(tiny_vqgan(), 0.05)
    reduced = {"decode": set(), "classify": set(), "judge": set()}

    def watch(owner, method, name):
        plain = getattr(owner, method)

        def watched(value, *more):
            images = getattr(value, "free", value)
            reduced[name].add((images.dtype, images.requires_grad, torch.is_autocast_enabled("cpu")))
            return plain(value, *more)

        setattr(owner, method, watched)

    watch(setting.generator, "decode", "decode")
    watch(setting.classifier, "forward", "classify")
    watch(setting.oracle, "judge", "judge")
    rows = setting.engine(slots=4, precision="bf16")
    assert reduced == {
        "decode": {(torch.float32, True, True)},
        "classify": {(torch.float32, True, True), (torch.float32, False, False)},
        "judge": {(torch.float32, False, False)},
    }
    assert {row.valid for row in rows.values()} == {True, False}
    for row in rows.values():
        logits = setting.classifier(row.image.unsqueeze(0) / 255)
        assert row.prediction == logits.argmax()
        loss = nn.functional.cross_entropy(logits, torch.tensor([row.label]))
        assert row.loss == pytest.approx(loss.item(), rel=1e-5)


def test_stop_reasons_survive_in_the_last_slots():
    """Few slots shrink to what is left; a row does not care."""
    levels = [0.1 + 0.065 * i for i in range(9)]
    settings = {"budget": 12, "step_size": STEP}
    active, generator = [], Counting()
    models = Brightness(), generator, Patient(0.6)
    rows = by_id(perturb(grey(*levels), *models, **settings, slots=8, on_pass=active.append))
    same_rows(rows, by_id(perturb(grey(*levels), Brightness(), Identity(), Patient(0.6), **settings, slots=1)))
    assert {row.stop_reason for row in rows.values()} == {StopReason.BUDGET, StopReason.ORACLE, StopReason.REJECTED}
    assert generator.decoded == active
    assert active[0] == 8
    assert min(active) < 8
