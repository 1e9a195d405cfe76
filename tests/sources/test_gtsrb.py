"""Traffic signs: the layouts that they come in, what goes along, and what is wrong with them."""

import pytest
from drawn_signs import LABELS, WIDTHS, folder_of_signs, parquet_of_signs, sign

from fmrgen import UserError
from fmrgen.config import config_class
from fmrgen.sources.gtsrb import SIGNS


def build(**options):
    return config_class("fmrgen.sources", "gtsrb").model_validate({"kind": "gtsrb", **options}).build()


@pytest.mark.parametrize("with_columns", [True, False])
def test_a_parquet_file_may_have_widths_and_tracks(tmp_path, with_columns):
    source = build(path=str(parquet_of_signs(tmp_path / "signs.parquet", with_columns)))
    assert source.labels.names == SIGNS
    assert dict(source.columns) == ({"width": "int64", "track": "string"} if with_columns else {})
    examples = list(source.load(0, 12, 32))
    assert [example.label for example in examples] == list(LABELS)
    widths = [example.extra and example.extra["width"] for example in examples]
    assert widths == (list(WIDTHS) if with_columns else [None] * 12)
    assert examples[3].image.shape == (32, 32, 3)


@pytest.mark.parametrize("split", ["train", "test"])
def test_torchvisions_folder(tmp_path, split):
    source = build(path=str(folder_of_signs(tmp_path)), split=split)
    rows = range(6) if split == "train" else range(6, 12)
    examples = list(source.load(0, 6, 32))
    assert [example.label for example in examples] == [LABELS[row] for row in rows]
    assert [example.extra["width"] for example in examples] == [WIDTHS[row] for row in rows]
    tracks = [f"{LABELS[row]:05}/00000" if split == "train" else "" for row in rows]
    assert [example.extra["track"] for example in examples] == tracks
    shown = next(source.load(2, 3, WIDTHS[rows[2]])).image
    assert (shown == sign(LABELS[rows[2]], WIDTHS[rows[2]])).all()


def test_classes_and_limits_are_those_of_any_source(tmp_path):
    options = {"path": str(folder_of_signs(tmp_path)), "limit": 3, "classes": {"limit": ["0-5"], "other": ["6-42"]}}
    source = build(**options, shuffle_seed=0)
    assert len(source) == 3
    assert source.labels.names == ("limit", "other")


def test_a_folder_that_is_not_whole_is_one_line(tmp_path):
    folder_of_signs(tmp_path)
    (tmp_path / "gtsrb/GT-final_test.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="has no columns Filename, Width and ClassId; download GTSRB again"):
        build(path=str(tmp_path))
    (tmp_path / "gtsrb/GT-final_test.csv").unlink()
    with pytest.raises(UserError, match="can't be read"):
        build(path=str(tmp_path))
