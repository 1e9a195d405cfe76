"""Whether classifiers fail on the same images, and the originals on which all of them do."""

import json

import numpy as np
import pytest
from datasets import load_dataset
from sklearn.metrics import cohen_kappa_score

from fmrgen import evaluate, write_report
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


@pytest.mark.slow
def test_error_consistency_is_kappa_of_being_right(finished_split, tmp_path):
    found = evaluate(str(finished_split), CLASSIFIERS, progress=False)
    said = found.predictions.to_pandas()
    said = said[said.valid]
    right = {name: (of.prediction == of.label).to_numpy() for name, of in said.groupby("classifier", observed=True)}
    pairs = {(pair.first, pair.second): pair.error_consistency for pair in found.comparisons[0].differences}
    for (one, other), consistency in pairs.items():
        expected = cohen_kappa_score(right[one], right[other])
        assert np.isnan(expected) == (consistency is None)
        if consistency is not None:
            assert consistency.value == pytest.approx(expected)
            assert consistency.low <= consistency.value <= consistency.high
    assert any(pairs.values())
    write_report(found, tmp_path)
    assert "Whether they fail together" in (tmp_path / "evaluation.md").read_text()
    told = json.loads((tmp_path / "evaluation.json").read_text())
    assert "error_consistency" in told["comparisons"][0]["differences"][0]
