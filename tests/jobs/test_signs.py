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


pytestmark = pytest.mark.slow  # one split for all of them


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
    """Images and labels to the bit; kernels round other numbers by the place in a batch of few images."""
    one, two = (load_dataset(str(folder / count), "gtsrb", split="cnn").with_format("numpy") for count in ("1", "2"))
    assert len(one) == 12
    for name, feature in one.features.items():
        if getattr(feature, "dtype", "") == "float32":
            np.testing.assert_allclose(one[name], two[name], atol=1e-5)
        elif "probabilities" not in name and name not in ("judges", "step_losses", "step_objectives"):
            for first, second in zip(one[name], two[name], strict=True):
                assert np.array_equal(first, second), name


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
