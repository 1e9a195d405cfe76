"""Oracles as classifiers: what they say is what they judge by, with gradients where they have some."""

import datasets
import pytest
import torch
from commands import run
from tiny_models import FAMILIES, images_of, save_tiny

import fmrgen
from fmrgen import Labels, UserError, evaluate, verify
from fmrgen.classifiers.base import in_labels
from fmrgen.oracles.zero_shot import Config as ZeroShot
from fmrgen.recipe.job import parse_classifier
from fmrgen.weights.digest import weights_sha256

NAMES = ("cat", "dog", "bird", "big fish")
DIGITS = tuple(str(digit) for digit in range(10))
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a family's tiny model."""
    root = tmp_path_factory.mktemp("tiny")

    def folder_of(family):
        if not (root / family).exists():
            save_tiny(family, root / family, [*NAMES, *DIGITS, "an image of", "this is a photo of"])
        return root / family

    return folder_of


@pytest.fixture(scope="module")
def digits(finished_split):
    return datasets.load_dataset("parquet", data_files=str(finished_split / "mnist/lenet-*.parquet"), split="train")


STEPS_OF_THEIR_OWN = ("align", "siglip2-naflex")


@pytest.mark.parametrize("family", FAMILIES)
def test_its_logits_are_those_that_it_judges_by(tiny, family):
    classifier = fmrgen.load_classifier(f"zero_shot:{tiny(family)}")
    oracle = ZeroShot(model=str(tiny(family))).build()
    oracle.set_labels(Labels(NAMES))
    images = images_of(12).requires_grad_()
    fitted = in_labels(classifier, Labels(NAMES), images[:1].detach(), "classifier")
    logits = fitted(images)
    torch.testing.assert_close(logits.softmax(1), oracle.judge(images.detach()).probabilities, atol=2e-3, rtol=0)
    assert logits.requires_grad == (family not in STEPS_OF_THEIR_OWN)
    if logits.requires_grad:
        assert torch.autograd.grad(logits.amax(1).sum(), images)[0].abs().sum() > 0
    assert weights_sha256(classifier) == weights_sha256(fmrgen.load_classifier(f"zero_shot:{tiny(family)}"))


def test_it_answers_in_the_words_of_each_set_of_labels(tiny):
    """In the job's own, in its order; told its classes, in those, found by name."""
    classifier = fmrgen.load_classifier(f"clip:{tiny('clip')}")
    images = images_of(6)
    with pytest.raises(UserError, match="takes class names as prompts and has none; list them as class_names"):
        classifier(images)
    logits = in_labels(classifier, Labels(NAMES), images[:1], "c")(images)
    swapped = Labels(NAMES[::-1], groups=((3,), (2,), (1,), (0,)), source_size=4, source_names=NAMES)
    torch.testing.assert_close(in_labels(classifier, swapped, images[:1], "c")(images), logits.flip(1))
    names = ", ".join([*NAMES[::-1], "boat"])
    told = f"{{kind: oracle, oracle: {{kind: clip, model: {tiny('clip')}}}, class_names: [{names}]}}"
    some = in_labels(fmrgen.load_classifier(told), Labels(NAMES[:2]), images[:1], "c")(images)
    torch.testing.assert_close(some, logits[:, :2])


def test_a_split_of_its_own(tiny, tmp_path, capsys):
    """Made, true, its own when it is evaluated, its prompts on the card; and not under an oracle of the same weights."""
    classifier = f"classifier={{kind: oracle, oracle: {{kind: zero_shot, model: {tiny('siglip')}, prompts: "
    classifier += "['this is a photo of {class}']}}"
    job = ["generate", "mnist-lenet", "--limit", 6, "perturb.budget=3", "-o", tmp_path / "out", classifier]
    assert run(*job) == 0
    assert verify(str(tmp_path / "out"), trust=True).disagreements == []
    found = evaluate(str(tmp_path / "out"), f"zero_shot:{tiny('siglip')}", progress=False)
    assert found.results[0].conditioned
    assert not any("in the order of the labels" in note for note in found.results[0].notes)
    recorded = (tmp_path / "out/provenance/mnist/lenet.json").read_text()
    assert "this is a photo of {class}" in recorded
    capsys.readouterr()
    oracle = f"oracle={{kind: zero_shot, model: {tiny('siglip')}, prompts: ['an image of {{class}}']}}"
    assert run(*job[:-2], tmp_path / "other", classifier, oracle) == 2
    assert "oracle: has the classifier's own weights" in capsys.readouterr().err


def test_a_classifier_in_it_is_fitted_to_each_split_anew(digits):
    """And not to what it was made to answer in before."""
    backwards = digits.features.copy()
    backwards["label"] = datasets.ClassLabel(names=list(DIGITS[::-1]))
    turned = digits.map(lambda row: {"label": 9 - row["label"]}, features=backwards)
    lenet = {"kind": "lenet", "checkpoint": "asset:mnist/lenet/model.safetensors", "class_names": list(DIGITS)}
    section = {"kind": "oracle", "oracle": {"kind": "classifier", "classifier": lenet}}
    found = evaluate({"turned": turned, "as it is": digits}, {"lenet": section}, progress=False)
    one, other = (result.total.standard_accuracy.value for result in found.results)
    assert one == other > 90


def test_a_split_without_names_goes_by_another_classifiers(tiny, digits):
    unnamed = digits.select_columns(["image", "label"]).cast_column("label", datasets.Value("int64"))
    words = f"{{kind: oracle, oracle: {{kind: clip, model: {tiny('clip')}}}}}"
    found = evaluate({"unnamed": unnamed}, {"words": words, "lenet": "asset:mnist/lenet"}, progress=False)
    assert found.splits[0].class_names == list(DIGITS)
    with pytest.raises(UserError, match="its labels have no names, and none of the classifiers has"):
        evaluate({"unnamed": unnamed}, {"words": words}, progress=False)


def test_without_a_gradient_it_is_evaluated_alone(tiny, finished_split, capsys, tmp_path):
    called = ", ".join(f"'{digit}': {word}" for digit, word in zip(DIGITS, WORDS, strict=True))
    section = f"{{kind: oracle, oracle: {{kind: zero_shot, model: {tiny('align')}, class_prompts: {{{called}}}}}}}"
    found = evaluate(str(finished_split), section, progress=False)
    assert 0 <= found.results[0].total.standard_accuracy.value <= 100
    job = ["generate", "mnist-lenet", "--limit", 2, "-o", tmp_path / "out"]
    assert run(*job, f"classifier={section}") == 2
    assert "classifier: gives no gradients; set perturb.update=nes" in capsys.readouterr().err
    assert run(*job, f"classifier=zero_shot:{tiny('align')}") == 2
    assert "classifier.oracle.prompts: 'This is a photo of 0.' and" in capsys.readouterr().err


def test_its_short_forms_name_a_revision():
    _, section = parse_classifier("zero_shot:google/siglip2-base-patch16-224@main")
    assert section.oracle.model == "google/siglip2-base-patch16-224"
    assert section.oracle.revision == "main"
