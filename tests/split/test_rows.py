"""A split as one object: its columns, its images, and what a classifier predicts."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, Image
from PIL import Image as PILImage
from torch import nn

from fmrgen import UserError, open_split
from fmrgen.labels import Labels


class Brightness(nn.Module):
    """Decides by the mean of an image: 0 for dark, 1 for bright."""

    def forward(self, images):
        mean = images.mean((1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], 1)


def dataset(labels, levels):
    images = [PILImage.new("RGB", (8, 8), (level, level, level)) for level in levels]
    return Dataset.from_dict({"image": images, "label": labels}).cast_column("image", Image())


def test_predictions_are_the_stored_ones_of_the_splits_own_classifier(finished_split):
    split = open_split(f"{finished_split}:mnist/lenet")
    columns = split.columns(["id", "label", "prediction", "original_prediction", "valid"])
    predicted = split.predictions({"lenet": "asset:mnist/lenet"}, batch_size=50)["lenet"]
    assert np.array_equal(predicted["image"].prediction, columns["prediction"])
    assert np.array_equal(predicted["original"].prediction, columns["original_prediction"])
    assert columns["valid"].dtype == bool
    assert len(columns["id"]) == 120
    is_right = predicted["image"].prediction == columns["label"]
    assert np.array_equal(predicted["image"].margin > 0, is_right)


def test_all_columns_are_there_without_images(finished_split):
    split = open_split(f"{finished_split}:mnist/lenet")
    columns = split.columns()
    assert {"id", "label", "valid", "stop_reason", "step_predictions"} <= columns.keys()
    assert not columns.keys() & {"image", "original"}
    assert {*columns["stop_reason"]} <= {"budget", "oracle", "rejected"}
    assert split.columns(["label", "no_such_column"]).keys() == {"label"}


def test_images_of_some_rows_are_numbered_anew(finished_split):
    split = open_split(f"{finished_split}:mnist/lenet")
    stored = [image for table in split.tables(columns=["image"]) for image in table["image"].to_pylist()]
    rows = np.array([1, 39, 40, 119])
    numbers, images = [], []
    for batch in split.images(rows=rows, size=7):
        numbers += batch.rows.tolist()
        images += batch.decode()["image"]
    assert numbers == [0, 1, 2, 3]
    for row, image in zip(rows, images, strict=True):
        assert np.array_equal(image, np.asarray(split.decode(stored[row], "its image")))


def test_labels_without_names_are_the_classifiers():
    split = open_split(dataset([0, 1, 1], [10, 250, 20]), name="squares")
    assert split.observed_labels() == Labels(("0", "1"))
    assert split.predictions({"mean": Brightness()})["mean"]["image"].prediction.tolist() == [0, 1, 0]
    assert split.columns()["label"].tolist() == [0, 1, 1]


def test_a_split_whose_files_have_an_id_twice_is_refused(split):
    shard = min((split / "mnist").glob("*.parquet"))
    table = pq.read_table(shard)
    ids = table["id"].to_pylist()
    ids[1] = ids[0]
    place = table.schema.get_field_index("id")
    pq.write_table(table.set_column(place, table.schema.field("id"), pa.array(ids, pa.int64())), shard)
    with pytest.raises(UserError, match=f"its files contain id {ids[0]} twice"):
        list(open_split(f"{split}:mnist/lenet").tables(columns=["id"]))


def test_ids_that_do_not_tell_rows_apart_are_no_column():
    rows = dataset([0, 1, 0], [0, 255, 9]).add_column("id", [7, 7, 8])
    assert "id" not in open_split(rows).columns(["id", "label"])
    assert open_split(rows.select([1, 2])).columns(["id"])["id"].tolist() == [7, 8]
