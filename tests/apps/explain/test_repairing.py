"""What to try against a finding: random changes, lines for other libraries, images to label, another preparation."""

import csv
import os

import numpy as np
import pytest
import torch
from commands import run
from PIL import Image
from torch import nn
from torchvision.transforms import v2

import fmrgen
from fmrgen import RandomChange, UserError, explain
from fmrgen.apps.explain.attributes import ATTRIBUTES, Brightness, PositionUp
from fmrgen.apps.explain.interventions import SIGNS, Hypothesis, hypothesis_of
from fmrgen.apps.explain.random_change import changes_against
from fmrgen.apps.explain.report import explanation_report
from fmrgen.apps.explain.suggestions import suggestions_for
from fmrgen.apps.explain.unlabelled import to_label_next
from fmrgen.apps.training.augment import augment
from fmrgen.apps.training.recipe import AugmentConfig, load_train_recipe

HYPOTHESES = [Hypothesis(attribute, sign) for attribute in ATTRIBUTES for sign in SIGNS]


def shapes(rows=64, width=6):
    """A bluish block in the middle of each; wide ones are aslant in half of them."""
    images = torch.zeros(rows, 3, 32, 32)
    images[:, :, 8:24, 13 : 13 + width] = 0.7
    images[:, 0] *= 0.6
    if width > 2:
        images[::2, :, 8:12, 15:21] = 0.5
    return images


def measured_change(attribute, before, after):
    return (attribute.measure(after) - attribute.measure(before)).mean().item()


@pytest.mark.parametrize("hypothesis", HYPOTHESES, ids=lambda hypothesis: hypothesis.words)
def test_images_are_changed_the_way_that_was_found(hypothesis):
    torch.manual_seed(0)
    change = RandomChange(hypothesis.attribute.name, *hypothesis.amounts)
    images = shapes(width=2 if hypothesis.attribute.name == "thickness" else 6)
    changed = change(images)
    assert changed.shape == images.shape
    assert 0 <= changed.min() <= changed.max() <= 1
    if hypothesis.attribute.name != "corner":  # there is nothing to empty
        assert 0 < (changed == images).flatten(1).all(1).sum() < 40  # of 64 a fifth
    by_itself = measured_change(hypothesis.attribute, images, changed)
    assert by_itself * hypothesis.sign >= 0
    assert hypothesis_of(hypothesis.words).attribute is hypothesis.attribute


def test_a_change_is_seeded_and_takes_one_image_too():
    change = RandomChange("size", share=1)
    torch.manual_seed(3)
    first = change(shapes())
    torch.manual_seed(3)
    assert torch.equal(first, change(shapes()))
    assert change(shapes()[0]).shape == (3, 32, 32)
    assert torch.equal(RandomChange("size", share=0)(shapes()), shapes())
    assert repr(change) == "RandomChange('size', least=-1, most=1, share=1)"
    pipeline = v2.Compose([v2.ToDtype(torch.float32, scale=True), RandomChange("contrast"), v2.Normalize([0.5], [0.5])])
    assert pipeline(torch.zeros(3, 32, 32, dtype=torch.uint8)).shape == (3, 32, 32)
    own = RandomChange(Brightness(), 0, 1)
    assert own.attribute.name == "brightness"
    for arguments, fault in (
        (["hue"], "attribute 'hue'"),
        (["size", 0.5, -0.5], "size: amounts go from -1 to 1, the least first, not 0.5 to -0.5"),
        (["size", -2], "not -2 to 1"),
        (["size", 0, 1, 1.5], "the share of images to change is from 0 to 1, not 1.5"),
    ):
        with pytest.raises(UserError, match=fault):
            RandomChange(*arguments)


def test_training_takes_it():
    torch.manual_seed(0)
    config = AugmentConfig(change={"position, up": (0, 1)})
    images = shapes()
    changed, _ = augment(images, torch.zeros(64, dtype=torch.long), config, None, 10)
    assert measured_change(PositionUp(), images, changed) > 0.05
    recipe = load_train_recipe("train/mnist-lenet", ['augment.change={"size": [-1, 0], "contrast": [0, 1]}'])
    assert recipe.augment.change == {"size": (-1, 0), "contrast": (0, 1)}
    with pytest.raises(UserError, match="augment: change: unknown attribute 'siz'"):
        load_train_recipe("train/mnist-lenet", ['augment.change={"siz": [-1, 0]}'])


@pytest.mark.parametrize("hypothesis", HYPOTHESES, ids=lambda hypothesis: hypothesis.words)
def test_lines_of_torchvision_change_the_attribute_that_way(hypothesis):
    torch.manual_seed(0)
    lines = [suggestion.code for suggestion in suggestions_for([hypothesis.words], 32)]
    assert lines[0].startswith("fmrgen.RandomChange(")
    assert eval(lines[0]).attribute is hypothesis.attribute
    (line,) = [line for line in lines if line.startswith("v2.")] or [""]
    if not line:
        assert hypothesis.attribute.name in ("thickness", "background", "symmetry", "coarse structure", "corner")
        return
    images = shapes()
    transform = eval(line)
    changed = torch.stack([transform(image) for image in images])
    differences = hypothesis.attribute.measure(changed) - hypothesis.attribute.measure(images)
    if hypothesis.sign and not hypothesis.attribute.name.startswith("position"):  # which moves both ways
        assert differences.mean() * hypothesis.sign >= 0
    if hypothesis.words != "sharper images":  # edges of one pixel can't get sharper
        assert differences.std() > 0


@pytest.mark.parametrize("hypothesis", HYPOTHESES, ids=lambda hypothesis: hypothesis.words)
def test_lines_of_albumentations_change_the_attribute_that_way(hypothesis, monkeypatch):
    monkeypatch.setitem(os.environ, "NO_ALBUMENTATIONS_UPDATE", "1")
    albumentations = pytest.importorskip("albumentations")
    lines = [suggestion.code for suggestion in suggestions_for([hypothesis.words], 32)]
    for line in [line for line in lines if line.startswith("A.")]:
        images = (shapes() * 255).byte().permute(0, 2, 3, 1).numpy()
        transform = eval(line, {"A": albumentations})
        changed = np.stack([transform(image=image)["image"] for image in images])
        before, after = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 for pixels in (images, changed))
        assert measured_change(hypothesis.attribute, before, after) * hypothesis.sign >= -0.005


def test_three_findings_are_changed_together():
    """The first in most images, the others in some; what a library lacks is said."""
    lines = suggestions_for(["thinner strokes", "lower contrast", "redder images"], 32)
    own = eval(lines[0].code)
    assert [(change.attribute.name, change.share) for change in own] == [("thickness", 0.8), ("contrast", 0.3)]
    assert own(shapes()).shape == (64, 3, 32, 32)
    assert lines[1].code == """'augment.change={"thickness": [-1, 0], "contrast": [-1, 0]}'"""
    assert lines[2].title == "the nearest of torchvision.transforms.v2, which lacks 1 of them"
    assert lines[2].code == "v2.RandomApply([v2.ColorJitter(contrast=(0.33, 1))], p=0.3)"
    assert lines[4].code == "fmrgen.RandomChange(MY_ATTRIBUTE)"
    four = ["thinner strokes", "lower contrast", "smaller shapes", "darker images"]
    assert "brightness" not in suggestions_for(four, 32)[0].code
    assert len(changes_against([hypothesis_of(words) for words in four])) == 3


class Fails(nn.Module):
    """LeNet, but for high and low digits; it may be fed what `prepared` returns."""

    def __init__(self, prepared=lambda images: images, errs=False):
        super().__init__()
        self.lenet, self.prepared, self.errs = fmrgen.load_classifier("asset:mnist/lenet"), prepared, errs
        self.class_names = self.lenet.class_names

    def forward(self, images):
        logits = self.lenet(self.prepared(images))
        is_odd = (PositionUp().measure(images).abs() > 0.2) & self.errs
        return torch.where(is_odd.unsqueeze(1), logits.roll(1, 1), logits)


def test_the_report_says_what_to_try_and_what_to_label(finished_split, tmp_path, capsys):
    explanation = explain(str(finished_split), classifier=Fails(errs=True).eval(), attributes=[PositionUp()])
    report = explanation_report(explanation)
    (section,) = [section for section in report.sections if section.kind == "try"]
    lines = [row[2] for row in section.tables[0].rows]
    assert lines[:2] == [
        'fmrgen.RandomChange("position, up", least=-1, most=1, share=0.8)',
        """'augment.change={"position, up": [-1, 1]}'""",
    ]
    assert "v2.RandomApply([v2.RandomAffine(degrees=0, translate=(0, 0.15))], p=0.8)" in lines
    assert "perturbed copies of training images are the last to try" in section.tables[0].rows[-1][1]
    assert 'fmrgen diff --claim "shapes moved up or down"' in report.next_steps[-1]
    assert explanation.image_size == 32
    assert explanation.preparations == []
    folder = tmp_path / "unlabelled/deep"
    folder.mkdir(parents=True)
    for number, shift in enumerate((0, 9, 2, -11, 1, 0)):
        pixels = np.zeros((40, 40, 3), dtype=np.uint8)
        pixels[14 - shift : 26 - shift, 16:24] = 200
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    listed = to_label_next(["shapes moved up or down", "shapes further up"], tmp_path / "unlabelled", 32)
    names = [os.path.basename(image.file) for image in listed]
    assert names[:2] == ["3.png", "1.png"]
    assert names[6] == "1.png"
    assert len(names) == 12
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no image that can be read"):
        to_label_next(["shapes further up"], tmp_path / "empty", 32)


def test_the_command_lists_what_to_label(finished_split, tmp_path, capsys):
    assert run("explain", finished_split, "--unlabelled", tmp_path / "no") == 2
    assert "--unlabelled: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "undo"),
    [
        ("light and dark exchanged", lambda images: 1 - images),
        ("a quarter turn to the left", lambda images: images.rot90(-1, (2, 3))),
    ],
)
def test_a_wrong_preparation_is_named_where_it_leaves_nothing_to_test(finished_split, words, undo):
    with pytest.raises(UserError, match=f"% of .* originals right with {words}, and .* prepare images as in training"):
        explain(str(finished_split), classifier=Fails(undo).eval(), attributes=[Brightness()])


def test_another_scale_is_named(finished_split):
    explanation = explain(
        str(finished_split), classifier=Fails(lambda images: (images + 1) / 2).eval(), attributes=[Brightness()]
    )
    assert "pixels from -1 to 1" in [preparation.words for preparation in explanation.preparations]
    assert all(preparation.after > preparation.before for preparation in explanation.preparations)
    assert "prepare images as in training" in explanation_report(explanation).next_steps[0]


def test_a_list_to_label_is_csv(tmp_path):
    from fmrgen.apps.explain.unlabelled import ToLabel, to_csv

    (tmp_path / "list.csv").write_bytes(to_csv([ToLabel("smaller shapes", 1, 'a "b", c.png', 0.25)]))
    with (tmp_path / "list.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"finding": "smaller shapes", "place": "1", "file_name": 'a "b", c.png', "amount": "0.25", "label": ""}
    ]
