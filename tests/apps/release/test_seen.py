"""Copies of images by their looks: at other sizes, in grey, as JPEG; and what is no copy, or can't be told."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from fmrgen.apps.release.on_images import opened_images
from fmrgen.apps.release.seen import first_of_each, looks_of, looks_of_all, nearly_among

DIGITS = 150


@pytest.fixture(scope="module")
def digits():
    opened = opened_images(f"{{kind: mnist, split: test, limit: {DIGITS}}}")
    pictures = []
    for batch in opened.images(["image"], size=50):
        for image in batch.decode()["image"]:
            pictures.append(Image.fromarray(image() if callable(image) else image))
    return pictures, looks_of(opened, "image")


def as_jpeg(picture, quality=50):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file)


def share_seen(digits, folder, change):
    pictures, looks = digits
    for number, picture in enumerate(pictures):
        change(picture).save(folder / f"{number:03}.png")
    (copies,) = looks_of_all(str(folder))
    return nearly_among(looks, copies).mean()


@pytest.mark.parametrize("side", [16, 24, 28, 48, 56, 224])
def test_copies_at_another_size(digits, tmp_path, side):
    assert share_seen(digits, tmp_path, lambda picture: picture.resize((side, side))) == 1


@pytest.mark.parametrize(
    "change", [as_jpeg, ImageOps.grayscale, lambda picture: picture.point(lambda grey: 0.8 * grey)]
)
def test_copies_that_were_saved_otherwise(digits, tmp_path, change):
    assert share_seen(digits, tmp_path, change) == 1


@pytest.mark.parametrize("change", [ImageOps.mirror, lambda picture: ImageOps.expand(picture, 4)])
def test_what_looks_cannot_tell(digits, tmp_path, change):
    """As the guide says."""
    assert share_seen(digits, tmp_path, change) < 0.2


def test_other_images_are_no_copies(digits):
    _, looks = digits
    (others,) = looks_of_all("{kind: mnist, split: train}")
    assert not nearly_among(looks, others).any()


def test_the_first_of_images_that_are_exactly_alike():
    looks = np.random.default_rng(0).normal(size=(5, 256)).astype(np.float32)
    assert first_of_each(looks[[0, 1, 0, 2, 2, 1, 3]]).tolist() == [True, True, False, True, False, False, True]
