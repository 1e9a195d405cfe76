"""Digits of other writers as MNIST places them, and corrupted ones."""

import io

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_digits

from fmrgen import UserError
from fmrgen.config import validate
from fmrgen.recipe.sections import SourceOnly
from fmrgen.sources._corruptions import CORRUPTIONS
from fmrgen.sources.digits import placed


def source(**section):
    return validate(SourceOnly, {"source": section}, "x").source.build()


def test_a_digit_fills_a_box_of_20_about_its_mass():
    random = np.random.default_rng(0)
    for height, width in ((8, 8), (16, 16), (40, 30)):
        image = np.zeros((height, width))
        top, left = height // 5, width // 3
        image[top : height - 2, left : left + max(2, width // 4)] = random.uniform(120, 255)
        image[-4, left:] = 200
        found = np.asarray(placed(image)).astype(float)
        rows, columns = (np.flatnonzero((found > 20).any(axis)) for axis in (1, 0))
        assert found.shape == (32, 32)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(20, abs=1)
        assert ndimage.center_of_mass(found) == pytest.approx((15.5, 15.5), abs=0.6)
        assert found.max() > 200
    assert not np.asarray(placed(np.full((8, 8), 3.0))).any()  # an empty sheet


def test_the_digits_of_scikit_learn():
    digits = source(kind="digits", of="uci")
    assert (len(digits), digits.labels.names) == (1797, tuple(map(str, range(10))))
    first = [example.label for example in digits.read(0, 12)]
    assert first == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert next(digits.load(3, 4, 32)).image.shape == (32, 32, 3)


def test_usps_comes_from_a_file(tmp_path):
    pixels = np.zeros((16, 16), np.uint8)
    pixels[3:13, 6:9] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    rows = {"image": [{"bytes": file.getvalue(), "path": None}] * 3, "label": [1, 7, 1]}
    Dataset.from_dict(rows).to_parquet(tmp_path / "usps.parquet")
    digits = source(kind="digits", of="usps", path=str(tmp_path / "usps.parquet"), limit=2)
    assert [example.label for example in digits.read(0, 2)] == [1, 7]
    with pytest.raises(UserError, match="source.path: .*none.parquet holds no test digits of USPS"):
        source(kind="digits", of="usps", path=str(tmp_path / "none.parquet"))


def test_the_other_half_of_uci_is_what_scikit_learn_does_not_have(tmp_path):
    ours = load_digits()
    rows = [[*map(int, image.ravel()), int(digit)] for image, digit in zip(ours.images[:5], ours.target, strict=False)]
    new = [16 if (place // 8 + place) % 3 else 0 for place in range(64)]
    lines = ["@relation optdigits", "@data", *(",".join(map(str, row)) for row in [*rows, [*new, 7], *rows])]
    (tmp_path / "optdigits.dat").write_text("\n".join(lines))
    digits = source(kind="digits", of="uci-train", path=str(tmp_path / "optdigits.dat"))
    (example,) = digits.read(0, 2)
    assert example.label == 7


def test_pen_digits_are_drawn_through_their_points(tmp_path):
    one = [50, 100, 50, 86, 50, 71, 50, 57, 50, 43, 50, 29, 50, 14, 50, 0]  # a line down
    seven = [0, 100, 33, 100, 66, 100, 100, 100, 80, 75, 60, 50, 40, 25, 20, 0]
    (tmp_path / "pen.tra").write_text("".join(", ".join(map(str, row)) + "\n" for row in ([*one, 1], [*seven, 7])))
    digits = source(kind="digits", of="pen", path=str(tmp_path / "pen.tra"))
    first, second = [(np.asarray(example.image), example.label) for example in digits.read(0, 2)]
    assert (first[1], second[1]) == (1, 7)
    assert np.ptp(np.flatnonzero((first[0] > 99).any(0))) + 1 in (2, 3)  # pixels across, as wide as a stroke of MNIST
    assert np.ptp(np.flatnonzero((first[0] > 99).any(1))) + 1 in (19, 20, 21)
    widths = (second[0] > 99).sum(1)
    ink = widths[widths > 0]
    assert ink[1] > 3 * ink[-2]


def test_a_file_of_something_else_is_one_line(tmp_path):
    for text, words in (
        ("1,2,three", "is not a file of digits"),
        ("1,2,3", "17 numbers in each line"),
        ("", "17 numb"),
    ):
        (tmp_path / "file").write_text(text)
        with pytest.raises(UserError, match=words):
            source(kind="digits", of="pen", path=str(tmp_path / "file"))
    with pytest.raises(UserError, match="source.path: .*missing is not a file of digits"):
        source(kind="digits", of="uci-train", path=str(tmp_path / "missing"))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_grow_and_are_the_same_each_time(name):
    plain = [np.asarray(example.image, dtype=float) for example in source(kind="mnist").read(0, 30)]
    changes = []
    for severity in (1, 3, 5):
        section = {"kind": "mnist", "corruption": f"{name}-{severity}"}
        found = [np.asarray(example.image, dtype=float) for example in source(**section).read(0, 30)]
        assert found[0].shape == (32, 32)
        changes.append(np.mean([np.abs(one - other).mean() for one, other in zip(found, plain, strict=True)]))
        again = np.asarray(next(source(**section).read(7, 8)).image)
        assert np.array_equal(again, found[7])
    assert 0 < changes[0] < changes[1] < changes[2]


def test_a_corruption_is_of_the_whole_frame():
    found = next(source(kind="mnist", corruption="contrast-5").read(0, 1)).image
    assert np.asarray(found).min() > 90
    assert np.ptp(np.asarray(found)[:2]) == 0


def test_an_unknown_corruption_is_refused():
    for name in ("snow-1", "blur-6", "blur"):
        with pytest.raises(UserError, match="source.corruption"):
            source(kind="mnist", corruption=name)
