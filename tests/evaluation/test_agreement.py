"""Whether classifiers fail on the same images, and the originals on which all of them do."""

import pytest
from datasets import load_dataset

from fmrgen import evaluate
from fmrgen.report.gallery import galleries

LENET = {"kind": "lenet", "checkpoint": "asset:mnist/lenet/model.safetensors"}
CLASSIFIERS = {"plain": LENET, "gray": {**LENET, "channels": "gray"}, "smooth": {**LENET, "smooth": True}}


@pytest.fixture(scope="module")
def mislabelled(finished_split):
    """The finished split in memory; three of its rows have another label."""
    rows = load_dataset("parquet", data_files=str(finished_split / "mnist/lenet-*.parquet"), split="train")
    wrong = {rows[place]["id"] for place in (3, 50, 110)}

    def change(row):
        return {"label": (row["label"] + 1) % 10 if row["id"] in wrong else row["label"]}

    return rows.map(change, features=rows.features), wrong


def test_originals_that_nobody_names_right_are_named(mislabelled):
    rows, wrong = mislabelled
    found = evaluate({"digits": rows}, CLASSIFIERS, shown=20, progress=False)
    missed = found.splits[0].missed_by_all
    assert wrong <= set(missed)
    assert any("none of 3 classifiers is right" in note for note in found.splits[0].notes)
    shown = {sample.columns["id"] for sample in found.samples["digits"]}
    (gallery,) = galleries(found)
    assert {row.id for row in gallery.rows if row.is_missed} == set(missed) & shown
    few = evaluate({"digits": rows}, {"plain": LENET}, progress=False)
    assert few.splits[0].missed_by_all is None
