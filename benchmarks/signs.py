"""Parts of the traffic signs, for the networks, the threshold and the study on photos.

    python -m benchmarks.signs gtsrb-train.parquet gtsrb-test.parquet -o signs

writes of the training signs `train` (all), `others` and `held` (every fifth track of each class, which an oracle must
not have seen when its threshold is chosen), `near` (45 pixels and more) and `noisy` (a tenth with another label); of
the test signs `near`, `blurred` (the near ones under a Gaussian of 1.5 pixels), and of those below 45 pixels `rest`
(all), `far` (below 30) and `dark` (the fifth with the lowest mean).
"""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageFilter

FAR, NEAR = 30, 45  # pixels: signs below, and of at least so many
_HELD = 5  # of so many tracks of a class one is held out
_DARK = 0.2  # share
_NOISE = 0.1  # share
_BLUR = 1.5  # pixels
_CLASSES = 43


def write_parts(train: Path, test: Path, output: Path) -> None:
    """Writes each part as a parquet file with the columns of the whole."""
    output.mkdir(parents=True, exist_ok=True)
    seen, unseen = pq.read_table(train), pq.read_table(test)
    held = first_of_tracks(seen)
    is_near = unseen["width"].to_numpy() >= NEAR
    near, rest = unseen.filter(is_near), unseen.filter(~is_near)
    parts = {
        "train": seen,
        "train-held": seen.filter(held),
        "train-others": seen.filter(~held),
        "train-near": seen.filter(seen["width"].to_numpy() >= NEAR),
        "train-noisy": _with_wrong_labels(seen),
        "test-near": near,
        "test-blurred": _blurred(near),
        "test-rest": rest,
        "test-far": rest.filter(rest["width"].to_numpy() < FAR),
        "test-dark": rest.filter(_dark(rest)),
    }
    for name, table in parts.items():
        pq.write_table(table, output / f"{name}.parquet")
        print(f"{name}: {len(table):,} signs of {len(set(table['label'].to_pylist()))} classes")


def first_of_tracks(table: pa.Table) -> np.ndarray:
    """Returns which signs are of every fifth track of their class, bool [N]."""
    places: dict[int, dict[str, int]] = {}
    chosen = []
    for label, track in zip(table["label"].to_pylist(), table["track"].to_pylist(), strict=True):
        of_class = places.setdefault(label, {})
        chosen.append(of_class.setdefault(track, len(of_class)) % _HELD == 0)
    return np.array(chosen)


def _dark(table: pa.Table) -> np.ndarray:
    """Returns which signs are of the darkest fifth, bool [N]."""
    means = []
    for image in table["image"].to_pylist():
        means.append(np.asarray(Image.open(io.BytesIO(image["bytes"])).convert("L")).mean())
    darkest: np.ndarray = np.array(means) <= np.quantile(means, _DARK)
    return darkest


def _blurred(table: pa.Table) -> pa.Table:
    """Returns the signs, blurred."""
    images = []
    for image in table["image"].to_pylist():
        photo = Image.open(io.BytesIO(image["bytes"])).convert("RGB").filter(ImageFilter.GaussianBlur(_BLUR))
        buffer = io.BytesIO()
        photo.save(buffer, "PNG")
        images.append({**image, "bytes": buffer.getvalue()})
    return _with(table, "image", images)


def _with_wrong_labels(table: pa.Table) -> pa.Table:
    """Returns the signs, a tenth of them with another label."""
    generator = np.random.default_rng(0)
    labels = table["label"].to_numpy().copy()
    wrong = generator.random(len(labels)) < _NOISE
    labels[wrong] = (labels[wrong] + generator.integers(1, _CLASSES, int(wrong.sum()))) % _CLASSES
    return _with(table, "label", labels)


def _with(table: pa.Table, name: str, values: Sequence[Any] | np.ndarray) -> pa.Table:
    """Returns the table with other values in a column."""
    column = table.schema.field(name)
    return table.set_column(table.column_names.index(name), column, pa.array(values, column.type))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("signs"))
    options = parser.parse_args()
    write_parts(options.train, options.test, options.output)


if __name__ == "__main__":
    main()
