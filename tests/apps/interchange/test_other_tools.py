"""Others' tools read our exports, and find what `evaluate` finds, image by image."""

import datasets
import numpy as np
import pytest
import timm
import torch
from commands import run
from PIL import Image as PILImage
from torchvision.transforms import ToTensor

from fmrgen import MaiteDataset, MaiteModel, classifier_of_maite, evaluate, load_classifier, open_split
from fmrgen.apps.interchange.export import export
from fmrgen.errors import UserError
from fmrgen.recipe.job import load_source, parse_classifier

LENET = "asset:mnist/lenet"


@pytest.fixture
def exported(finished_split, tmp_path):
    assert export(str(finished_split), tmp_path / "wds", "clip-benchmark", tar_size=50) == 120
    return tmp_path / "wds"


@pytest.fixture(scope="module")
def said(finished_split):
    """What LeNet says of each image of the split."""
    return evaluate([str(finished_split)], [LENET], progress=False).predictions.to_pandas().set_index("id")


def test_clip_benchmark_reads_the_layout_with_its_own_reader(exported, said, finished_split):
    builder = pytest.importorskip("clip_benchmark.datasets.builder")
    network = parse_classifier(LENET)[1].build()
    for part, column, rows in (("test", "prediction", said[said.valid]), ("original", "original_prediction", said)):
        dataset = builder.build_wds_dataset("fmrgen", ToTensor(), split=part, data_dir=str(exported))
        assert dataset.classes == [str(digit) for digit in range(10)]
        assert dataset.templates == open_split(str(finished_split)).provenance.recipe.oracle.tree["prompts"] or all(
            "{c}" in template for template in dataset.templates
        )
        found = [(network(image[None]).argmax(1).item(), label) for image, label in dataset]
        assert [one for one, _ in found] == rows[column].tolist()
        assert [label for _, label in found] == rows["label"].tolist()


def test_clip_benchmarks_zero_shot_metric(exported, finished_split):
    """Its own metric, over a tiny model of open_clip, against `evaluate` with that model's zero-shot head."""
    builder = pytest.importorskip("clip_benchmark.datasets.builder")
    metric = pytest.importorskip("clip_benchmark.metrics.zeroshot_classification")
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    model = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text).eval()
    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    dataset = builder.build_wds_dataset("fmrgen", ToTensor(), split="test", data_dir=str(exported))
    loader = torch.utils.data.DataLoader(dataset, batch_size=16)
    head = metric.zero_shot_classifier(model, tokenizer, dataset.classes, dataset.templates, "cpu", amp=False)
    logits, target = metric.run_classification(model, head, loader, "cpu", amp=False)

    class ZeroShot(torch.nn.Module):
        def forward(self, images):
            with torch.no_grad():
                return 100 * torch.nn.functional.normalize(model.encode_image(images), dim=-1) @ head

    ours = evaluate([str(finished_split)], {"clip": ZeroShot()}, progress=False)
    rows = ours.predictions.to_pandas()
    assert logits.argmax(1).tolist() == rows[rows.valid].prediction.tolist()  # each image, in the order of the rows
    accuracy = 100 * (logits.argmax(1) == target).float().mean().item()
    assert accuracy == pytest.approx(ours.results[0].total.perturbed_accuracy.value)


def test_timms_reader_over_the_folders(finished_split, said, tmp_path):
    from timm.data import create_dataset

    export(str(finished_split), tmp_path / "folders", "imagefolder")
    network = parse_classifier(LENET)[1].build()
    for column, answers in (("image", "prediction"), ("original", "original_prediction")):
        dataset = create_dataset("", root=str(tmp_path / "folders" / column), transform=ToTensor())
        found = {}
        for index in range(len(dataset)):
            image, label = dataset[index]
            row = int(dataset.filename(index, basename=True).partition(".")[0])
            found[row] = (network(image[None]).argmax(1).item(), label)
        assert len(found) == 120
        assert {row: one for row, (one, _) in found.items()} == said[answers].to_dict()
        assert {row: label for row, (_, label) in found.items()} == said["label"].to_dict()
    assert timm.__version__


def test_inspect_ai_reads_the_split(finished_split, tmp_path):
    inspect_dataset = pytest.importorskip("inspect_ai.dataset")
    export(str(finished_split), tmp_path / "folders", "imagefolder")
    samples = inspect_dataset.json_dataset(
        str(tmp_path / "folders/metadata.jsonl"),
        lambda told: inspect_dataset.Sample(
            input=str(tmp_path / "folders" / told["image_file_name"]), target=str(told["label"]), id=told["id"]
        ),
    )
    assert len(samples) == 120
    assert all(open(sample.input, "rb").read(4) == b"\x89PNG" for sample in samples)  # noqa: SIM115


def test_the_layout_is_a_source_and_a_fixed_set(exported, said):
    source = load_source(f"{{kind: webdataset, urls: {exported}}}").build()
    assert source.labels.names == tuple(str(digit) for digit in range(10))
    assert len(source) == said.valid.sum()
    found = evaluate([], [LENET], fixed=[f"{{kind: webdataset, urls: {exported}}}"], progress=False)
    valid = said[said.valid]
    assert found.fixed[0].accuracy.value == pytest.approx(100 * (valid.prediction == valid.label).mean())
    with pytest.raises(UserError, match="is a folder without a nshards.txt"):
        load_source(f"{{kind: webdataset, urls: {exported.parent}}}").build()


def test_what_clip_benchmark_can_not_have(tmp_path, capsys, finished_split):
    rows = open_split(str(finished_split)).dataset.select_columns(["image"]).take(3)
    assert run("export", finished_split, tmp_path / "x", "-f", "nothing") == 2
    assert np.all([row["image"].size == (32, 32) for row in rows])


@pytest.mark.parametrize("pixels", ["bytes", "floats"])
def test_maite_reads_splits_and_lends_models(finished_split, said, pixels):
    """Its own tasks, over our dataset and our model, find what `evaluate` finds; and its model is ours."""
    tasks = pytest.importorskip("maite.tasks")
    protocols = pytest.importorskip("maite.protocols.image_classification")
    dataset = MaiteDataset(str(finished_split), pixels=pixels)
    model = MaiteModel(load_classifier(LENET), "lenet", pixels=pixels)
    assert isinstance(dataset, protocols.Dataset)
    assert isinstance(model, protocols.Model)
    predicted, batches = tasks.predict(model=model, dataset=dataset, batch_size=32, return_augmented_data=True)
    rows = said[said.valid]
    assert [int(np.argmax(answer)) for batch in predicted for answer in batch] == rows["prediction"].tolist()
    about = [one for _, _, metadata in batches for one in metadata]
    assert [one["id"] for one in about] == rows.index.tolist()
    assert {"iterations", "clip_score", "valid"} <= about[0].keys()
    assert [int(target.argmax()) for _, targets, _ in batches for target in targets] == rows["label"].tolist()
    assert len(MaiteDataset(str(finished_split), column="original", only_valid=False)) == 120
    lent = classifier_of_maite(model, pixels)
    found = evaluate([str(finished_split)], {"lent": lent}, progress=False)
    again = found.predictions.to_pandas().set_index("id")
    assert again["prediction"].tolist() == said["prediction"].tolist()
    assert found.results[0].total.fmr.value == pytest.approx(100 * (rows.prediction == rows.label).mean() / (
        said.original_prediction == said.label).mean())  # fmt: skip


def test_what_maite_can_not_have(finished_split, tmp_path):
    with pytest.raises(UserError, match="has no column native; choose from image, label"):
        MaiteDataset(str(finished_split), column="native")
    numbered = datasets.Dataset.from_dict({"image": [PILImage.new("RGB", (8, 8))], "label": [3]})
    with pytest.raises(UserError, match="its labels have no names"):
        MaiteDataset(numbered.cast_column("image", datasets.Image()))
