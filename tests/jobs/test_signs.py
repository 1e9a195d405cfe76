"""The demo of traffic signs: on a dozen signs that the tests draw, and on photos where they are."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import launched
from datasets import load_dataset
from drawn_signs import LABELS, WIDTHS, parquet_of_signs

from fmrgen import evaluate, load_recipe, verify

PHOTOS = "FMRGEN_SIGNS"  # the test signs of GTSRB, a parquet file
FEW = ["perturb.budget=6", "perturb.min_probability=0.05", "perturb.control=0", "output.shard_size=3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Splits of the drawn signs, by one process and by two."""
    base = tmp_path_factory.mktemp("signs")
    signs = parquet_of_signs(base / "signs.parquet")
    for count in (1, 2):
        command = ["generate", "gtsrb-cnn", f"source.path={signs}", *FEW, "-q", "-o", base / str(count)]
        for process in launched(count, *command):
            assert process.returncode == 0, process.stderr
    return base


def test_two_processes_make_the_same_rows(folder):
    shards = sorted(path.name for path in (folder / "1/gtsrb").glob("*.parquet"))
    assert len(shards) == 4
    for name in shards:
        assert (folder / "1/gtsrb" / name).read_bytes() == (folder / "2/gtsrb" / name).read_bytes()


def test_the_panel_and_the_photos_are_on_record(folder):
    rows = load_dataset(str(folder / "1"), "gtsrb", split="cnn")
    assert rows["label"] == list(LABELS)
    assert rows["width"] == list(WIDTHS)
    assert sum(rows["valid"]) >= 3  # they look like signs
    assert {judge["name"] for judge in rows[0]["judges"]} == {"densenet", "efficientnet", "resnet"}
    assert verify(f"{folder / '1'}:gtsrb/cnn").disagreements == []
    (result,) = evaluate([f"{folder / '1'}:gtsrb/cnn"], ["asset:gtsrb/cnn"], by=["width:30,45"], progress=False).results
    assert result.conditioned
    assert [summary.rows for summary in result.groups["width"].values()] == [2, 5, 5]


@pytest.mark.slow
@pytest.mark.skipif(PHOTOS not in os.environ, reason=f"{PHOTOS} names no parquet file of GTSRB's test signs")
def test_the_shipped_networks_keep_their_promises():
    """On 1,500 photos: the classifier 98 %, the panel 97.5 %, each within a point of it on plain reconstructions."""
    file = Path(os.environ[PHOTOS])
    source, cnn, vqgan, panel = load_recipe("gtsrb-cnn", [f"source.path={file}", "source.limit=1500"]).build()
    examples = list(source.load(0, 1500, 32))
    images = torch.from_numpy(np.stack([example.image for example in examples])).permute(0, 3, 1, 2) / 255
    labels = torch.tensor([example.label for example in examples])
    with torch.no_grad():
        plain = torch.cat([vqgan.decode(vqgan.encode(batch, labels)) for batch in images.split(100)])
        for model, floor in ((cnn, 98.0), (lambda batch: panel.judge(batch).probabilities, 97.5)):
            on_images, on_plain = (100 * (model(batch).argmax(1) == labels).float().mean() for batch in (images, plain))
            assert on_images >= floor
            assert on_plain >= on_images - 1
