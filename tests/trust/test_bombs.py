"""Small files that stand for gigabytes: what they say of their size is believed before a pixel is decoded."""

import io
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run
from photos import encoded
from PIL import Image

from fmrgen.errors import UserError
from fmrgen.image_files import open_rgb
from fmrgen.split import classify
from fmrgen.split import rows as stream
from fmrgen.split.judgements import TABLE, JudgeFile, JudgementsFolder, judgements_of
from fmrgen.split.open import open_own_split, open_split

LENET = "asset:mnist/lenet"
# How a command ends, and how much memory it takes beyond what it takes before its first row, in bytes.
MEASURE = """
import json, sys
from pathlib import Path
import fmrgen.jobs.evaluate, fmrgen.jobs.verify, fmrgen.cli.display
from fmrgen.cli.app import main
def peak():  # of this process alone; what getrusage tells begins with the parent's
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
before = peak()
try: main(json.loads(sys.argv[1]))
except SystemExit as end: status = end.code
print(json.dumps([status, peak() - before]))
"""


def refused_cheaply(*arguments, cwd):
    """The line with which a command ends that takes little memory."""
    command = [sys.executable, "-c", MEASURE, json.dumps(list(map(str, arguments)))]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    status, memory = json.loads(done.stdout.splitlines()[-1])
    assert status == 2
    assert memory < 1e9
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_bombs_in_rows_are_named_and_cost_little(tmp_path, kind):
    image = encoded(np.zeros((9000, 9000, 3) if kind == np.uint8 else (9000, 9000), kind))
    pq.write_table(pa.table({"image": [image] * 24, "label": [0] * 24}), tmp_path / "bombs.parquet")
    assert refused_cheaply("evaluate", "bombs.parquet", "-c", LENET, "-q", cwd=tmp_path) == (
        "fmrgen: bombs.parquet: row 0: its image is unreadable (it has 9000×9000 pixels, and no more than 67,108,864 "
        "are decoded; make it smaller); repair that row, or remove it\n"
    )


@pytest.mark.slow
def test_a_bomb_in_the_place_of_an_image_of_a_split(split, tmp_path):
    path = next(split.glob("mnist/lenet-00000-*.parquet"))
    table = pq.read_table(path)
    images = table["image"].to_pylist()
    images[5]["bytes"] = encoded(Image.new("RGB", (8000, 8000)))  # no bomb anywhere else
    column = table.schema.get_field_index("image")
    table = table.set_column(column, table.schema.field(column), pa.array(images, table.schema.field(column).type))
    pq.write_table(table, path)
    for command in (["verify", split], ["evaluate", split, "-c", LENET]):
        error = refused_cheaply(*command, "-q", cwd=tmp_path)
        assert "is unreadable (it has 8000×8000 pixels, not 32×32)" in error


@pytest.mark.slow
@pytest.mark.parametrize("groups", [1, 4], ids=["one row group", "a row group for each"])
def test_bytes_without_end_are_not_unpacked(tmp_path, capsys, groups):
    zeros = pa.table({"image": pa.array([bytes(100 << 20)], pa.large_binary()), "label": [0]})
    with pq.ParquetWriter(tmp_path / "zeros.parquet", zeros.schema, compression="zstd") as writer:
        for _ in range(groups):
            writer.write_table(zeros)
    assert (tmp_path / "zeros.parquet").stat().st_size < 100_000
    assert run("evaluate", tmp_path / "zeros.parquet", "-c", LENET, "-q") == 2
    assert "of image; those can't be images, and they are not unpacked" in capsys.readouterr().err


def lay_judgements(split, **columns):
    """Lays a judge's table beside the split, all rows the same but for `columns`; returns its path and its file."""
    rows = max(len(values) for values in columns.values())
    same = {"judge": "m", "id": 0, "which": "image", "label": 0, "image_sha256": "0" * 64}
    arrays = [
        columns[name]
        if name in columns
        else pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), [same[name]])
        if name in same
        else pa.nulls(rows, kind)
        for name, kind in zip(TABLE.names, TABLE.types, strict=True)
    ]
    buffer = io.BytesIO()
    pq.write_table(pa.table(arrays, TABLE.names).cast(TABLE), buffer, compression="zstd")
    opened, provenance = open_own_split(str(split))
    about = JudgeFile.of("m", "oracle", {}, None, opened.paths.name, provenance, buffer.getvalue())
    folder = JudgementsFolder(opened.paths)
    folder.write(about, buffer.getvalue())
    return folder.table_path("m"), about


def test_judgements_of_more_rows_than_the_split_can_have_are_not_unpacked(split):
    path, about = lay_judgements(split, label=np.zeros(2_000_000, np.int32))
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError, match=r"m.json: claims 2,000,000 rows, more than there can be for the split's 120"):
        judgements_of(open_split(str(split)))
    JudgementsFolder(open_split(str(split)).paths).write_about(replace(about, rows=240))
    with pytest.raises(UserError, match="m.parquet: has 2,000,000 rows where there can be 240; it is not unpacked"):
        judgements_of(open_split(str(split)))


@pytest.mark.parametrize("values", [["x" * 2_000_000] + ["y"] * 200, ["x" * 20_000] * 200], ids=["one", "all"])
def test_judgements_of_long_words_are_not_unpacked(split, values):
    lay_judgements(split, when=values)
    with pytest.raises(UserError, match=r"20[01] rows of its when would unpack to [\d,]+ bytes; it is not unpacked"):
        judgements_of(open_split(str(split)))


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "kind"), [("RGB", "PPM"), ("RGBA", "PNG"), ("F", "TIFF"), ("L", "GIF"), ("P", "PNG")])
def test_the_largest_image_is_decoded_and_a_larger_one_is_not(mode, kind):
    assert open_rgb(encoded(Image.new(mode, (8192, 8192)), kind)).size == (8192, 8192)
    with pytest.raises(UserError, match="it has 8192×8193 pixels, and no more than 67,108,864 are decoded"):
        open_rgb(encoded(Image.new(mode, (8192, 8193)), kind))


def test_greys_of_16_bits_are_as_before():
    pixels = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(pixels.astype(np.float64) / 65_535 * 255).astype(np.uint8)
    assert np.array_equal(np.asarray(open_rgb(encoded(pixels)))[..., 0], expected)


def test_batches_of_large_images_are_decoded_and_classified_in_parts(tmp_path, monkeypatch):
    """The same answers, whatever fits together."""
    from fmrgen import evaluate

    noise = np.random.default_rng(0)
    sides = (40, 50, 40, 60, 50, 40)
    stored = [encoded(noise.integers(0, 256, (side, side, 3), dtype=np.uint8)) for side in sides]
    pq.write_table(pa.table({"image": stored, "label": list(range(6))}), tmp_path / "x.parquet")

    sizes = []
    ask = classify._parts_that_fit

    def parts(*arguments):
        for part in ask(*arguments):
            sizes.append(len(part[0]))
            yield part

    monkeypatch.setattr(classify, "_parts_that_fit", parts)

    def answers(store):
        found = evaluate([str(tmp_path / "x.parquet")], [LENET], store=tmp_path / store)
        return found.predictions["prediction"].to_pylist()

    together = answers("one")
    assert sizes == [3, 2, 1]
    for module in (classify, stream):
        monkeypatch.setattr(module, "MOST_PIXELS", 40 * 40 + 1)
    sizes.clear()
    assert answers("two") == together
    assert sizes == [1, 1, 1, 1, 1, 1]
