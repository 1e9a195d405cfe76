"""A split explained: by the command, of its own classifier and of others, and what can't be."""

import json

import pytest
import torch
from commands import run
from torch import nn

import fmrgen
from fmrgen import UserError, explain
from fmrgen.apps.explain.attributes import ATTRIBUTES, Brightness, PositionAcross, PositionUp, Size, Thickness
from fmrgen.apps.explain.report import explanation_report, summary_lines
from fmrgen.report.write import write


class FailsOn(nn.Module):
    """LeNet, but for images in which `is_odd`."""

    def __init__(self, is_odd):
        super().__init__()
        self.lenet, self.is_odd = fmrgen.load_classifier("asset:mnist/lenet"), is_odd
        self.class_names = self.lenet.class_names

    def forward(self, images):
        logits = self.lenet(images)
        return torch.where(self.is_odd(images).unsqueeze(1), logits.roll(1, 1), logits)


def is_bright(images):
    """Whether the greys are: black and white stay what they are."""
    grey = (images > 0.05) & (images < 0.95)
    return (images * grey).sum((1, 2, 3)) / grey.sum((1, 2, 3)).clamp(min=1) > 0.59


def is_high_or_low(images):
    return PositionUp().measure(images).abs() > 0.2


@pytest.fixture(scope="module")
def explained(finished_split):
    tried = [Brightness(), PositionAcross(), PositionUp(), Size(), Thickness()]
    return explain(str(finished_split), classifier=FailsOn(is_high_or_low).eval(), attributes=tried)


def test_it_names_what_was_planted(explained, tmp_path):
    assert [one.words for one in explained.reported] == ["shapes moved up or down"]
    found = explained.reported[0]
    assert found.errors["along"].value > 2 * found.errors["otherwise"].value
    assert found.effect.low > 0
    assert sum(wrong for _, _, wrong in found.classes) == sum(count for *_, count in found.pairs)
    assert len(found.shown) == 8
    line = summary_lines(explained)[0]
    assert line.startswith("the classifier misreads ")
    assert "% of the originals when they are changed to shapes moved up or down (" in line
    assert "% under an equally large control change)" in line
    tried = summary_lines(explained)[-1]
    assert all(finding.attribute in tried for finding in explained.findings)
    assert tried.endswith("a fault outside these is not found: no finding does not mean no fault")
    paths = write(explanation_report(explained), tmp_path)
    assert [path.name for path in paths] == ["explain.json", "explain.md", "explain.html"]
    assert "<h2>Originals changed to shapes moved up or down" in (tmp_path / "explain.html").read_text()


@pytest.mark.slow
def test_with_a_direction_where_there_is_one(finished_split):
    found = explain(str(finished_split), classifier=FailsOn(is_bright).eval(), attributes=[Brightness(), PositionUp()])
    assert {finding.words for finding in found.confirmed} == {"brighter images", "another brightness"}
    assert [one.words for one in found.reported] == ["brighter images"]
    assert len(found.findings) == 6
    fewer = explain(str(finished_split), classifier=FailsOn(is_bright).eval(), attributes=[Brightness()], rows=80)
    assert 20 <= fewer.originals < found.originals


def test_what_it_errs_on_most_comes_first(finished_split):
    """Of two that are confirmed, though the other is tried first and its evidence may be as strong."""
    both = FailsOn(lambda images: is_high_or_low(images) | (is_bright(images) & (images.sum((1, 2, 3)) % 1 < 0.5)))
    found = explain(str(finished_split), classifier=both.eval(), attributes=[Brightness(), PositionUp()])
    assert [one.attribute for one in found.reported] == ["position up", "brightness"]
    areas = [finding.area for finding in found.confirmed]
    assert areas == sorted(areas, reverse=True)
    for one in found.findings:
        curves = {way: sum(wrong / max(1, of) for _, of, wrong in doses) / 4 for way, doses in one.doses.items()}
        assert one.area == pytest.approx(100 * (curves.pop("along") - max(curves.values())))


@pytest.mark.nightly
def test_nothing_is_an_outcome_too(finished_split, tmp_path, capsys):
    """The shipped LeNet was trained with warped digits, and stands all of this."""
    assert run("explain", finished_split, "-o", tmp_path / "out", "--json") == 0
    printed = capsys.readouterr()
    lines = printed.err  # stdout has the JSON
    assert "no change that was tried makes the classifier fail significantly more often than the controls" in lines
    assert "can't be shown with so few" in lines
    content = json.loads((tmp_path / "out/explain.json").read_text())
    assert json.loads(printed.out) == content
    assert content["schema"] == "fmrgen-explain/3"
    assert not any(finding["is_confirmed"] for finding in content["findings"])
    assert len(content["findings"]) == 3 * len(ATTRIBUTES)


def test_what_can_not_be_explained(finished_split, tmp_path, capsys):
    without = ["generate", "mnist-lenet", "--limit", 4, "perturb.budget=2", "-q", "-o"]
    assert run(*without, tmp_path / "few") == 0
    assert run(*without, tmp_path / "bare", "output.keep_original=false") == 0
    capsys.readouterr()
    for arguments, error in (
        ([tmp_path / "few"], "originals are left to confirm on"),
        ([tmp_path / "bare"], "has no originals (output.keep_original), which explain changes"),
        ([finished_split, "--attribute", "nowhere:Own"], "nowhere"),
        ([tmp_path / "none"], "none"),
    ):
        assert run("explain", *arguments) == 2
        said = capsys.readouterr().err
        assert error in said
        assert said.count("\n") == 1
    with pytest.raises(UserError, match="classifier: has 3072 outputs"):
        explain(str(finished_split), classifier=nn.Flatten())
