"""Encodings that are kept: found again by all that they hang on, bounded, and never in the way of a job."""

import os

import pytest
import torch

from fmrgen.engine.interfaces import Latents
from fmrgen.errors import UserError
from fmrgen.storage.encodings import KeptEncodings, kept_encodings

IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 1])
SEEDS = [5, 6, 7]
LATENTS = Latents(IMAGES * 2, IMAGES[:, :1])


def never():
    raise AssertionError("encoded again")


@pytest.fixture
def kept(tmp_path):
    return KeptEncodings(tmp_path, 10**9, {"weights": "a"})


def files(kept):
    return sorted(kept.root.rglob("*.latents"))


def same(one, other):
    return torch.equal(one.free, other.free) and torch.equal(one.fixed, other.fixed)


def test_rows_are_found_again_by_a_process_that_asks_for_the_same(kept):
    assert same(kept(IMAGES, LABELS, SEEDS, lambda: LATENTS), LATENTS)
    again = KeptEncodings(kept.root, 10**9, {"weights": "a"})
    order = [2, 0, 2]  # a short batch is padded with its last row
    found = again(IMAGES[order], LABELS[order], [SEEDS[row] for row in order], never)
    assert same(found, Latents(LATENTS.free[order], LATENTS.fixed[order]))
    assert (kept.found, kept.made, again.found, again.made) == (0, 3, 2, 0)


@pytest.mark.parametrize("change", ["image", "label", "seed", "weights", "dtype"])
def test_a_row_is_not_taken_for_another(kept, change):
    kept(IMAGES, LABELS, SEEDS, lambda: LATENTS)
    images, labels, seeds, asked = IMAGES.clone(), LABELS.clone(), [*SEEDS], kept
    if change == "image":
        images[1, 0, 0, 0] += 1 / 255
    if change == "dtype":
        images = images.double()
    labels[1] += change == "label"
    seeds[1] += change == "seed"
    if change == "weights":
        asked = KeptEncodings(kept.root, 10**9, {"weights": "b"})
    other = Latents(LATENTS.free + 1, LATENTS.fixed)
    assert same(asked(images, labels, seeds, lambda: other), other)  # all rows together, as it made them


def test_latents_without_context(kept):
    kept(IMAGES, LABELS, SEEDS, lambda: Latents(LATENTS.free))
    found = kept(IMAGES, LABELS, SEEDS, never)
    assert found.fixed is None
    assert torch.equal(found.free, LATENTS.free)


@pytest.mark.parametrize("broken", ["cut", "a flipped bit"])
def test_a_broken_entry_is_made_again(kept, broken):
    kept(IMAGES, LABELS, SEEDS, lambda: LATENTS)
    content = bytearray(files(kept)[0].read_bytes())
    content[-1] ^= 1
    files(kept)[0].write_bytes(b"cut" if broken == "cut" else content)
    assert same(kept(IMAGES, LABELS, SEEDS, lambda: LATENTS), LATENTS)
    assert same(kept(IMAGES, LABELS, SEEDS, never), LATENTS)


def test_what_was_not_used_for_longest_goes_where_all_is_too_large(kept):
    kept(IMAGES, LABELS, SEEDS, lambda: LATENTS)
    size = files(kept)[0].stat().st_size
    for age, path in enumerate(files(kept)):
        os.utime(path, (1000 - age, 1000 - age))
    oldest = files(kept)[2]
    other = KeptEncodings(kept.root, int(size * 3.5), {"weights": "b"})
    other.prune()
    assert len(files(kept)) == 3
    other(IMAGES[:1], LABELS[:1], SEEDS[:1], lambda: Latents(LATENTS.free[:1], LATENTS.fixed[:1]))
    other.prune()
    assert not oldest.exists()
    assert sum(path.stat().st_size for path in files(kept)) <= 0.8 * size * 3.5


def test_a_folder_that_can_not_be_written_is_no_reason_to_stop(tmp_path):
    (tmp_path / "file").touch()
    kept = KeptEncodings(tmp_path / "file" / "cache", 10**9, {})
    assert same(kept(IMAGES, LABELS, SEEDS, lambda: LATENTS), LATENTS)


def test_the_environment_says_where_and_how_much(tmp_path, monkeypatch):
    monkeypatch.setenv("FMRGEN_CACHE", str(tmp_path))
    monkeypatch.setenv("FMRGEN_CACHE_GB", "0.5")
    assert (kept_encodings({}).root, kept_encodings({}).bound) == (tmp_path / "encodings", 500_000_000)
    monkeypatch.setenv("FMRGEN_CACHE_GB", "0")
    assert kept_encodings({}) is None
    for wrong in ("much", "-1", "inf"):
        monkeypatch.setenv("FMRGEN_CACHE_GB", wrong)
        with pytest.raises(UserError, match="FMRGEN_CACHE_GB: must be a number of gigabytes, 0 or more, not"):
            kept_encodings({})
