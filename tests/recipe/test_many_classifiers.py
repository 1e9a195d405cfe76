"""Many classifiers by one word: patterns, and files of weights."""

import pytest
import torch
from outside_components import SmallNet

from fmrgen.errors import UserError
from fmrgen.recipe.job import load_classifiers

TARGET = "outside_components:SmallNet"


def test_a_pattern_of_timm_is_all_pretrained_weights_of_such_names():
    found = load_classifiers(["timm:test_resnet*", "mine=timm:resnet18"])
    assert set(found) == {"test_resnet.r160_in1k", "mine"}
    assert found["test_resnet.r160_in1k"].model == "test_resnet.r160_in1k"
    with pytest.raises(UserError, match="no pretrained weights of such a name"):
        load_classifiers(["timm:nothing_of_this*"])


def test_files_of_weights_are_of_the_network_that_is_named(tmp_path, monkeypatch):
    for step in (10, 20):
        torch.save(SmallNet().state_dict(), tmp_path / f"step{step}.pt")
    odd = ("epoch=9-step=100.ckpt", "a b,c.ckpt", "it's.ckpt")
    for name in odd:
        torch.save(SmallNet().state_dict(), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    found = load_classifiers(["*.pt"], TARGET)
    assert list(found) == ["step10", "step20"]
    assert (found["step10"].kind, found["step10"].target, found["step10"].checkpoint) == ("module", TARGET, "step10.pt")
    named = load_classifiers(["*.ckpt"], TARGET)
    assert {name: section.checkpoint for name, section in named.items()} == {
        "epoch-9-step-100": odd[0],
        "a-b-c": odd[1],
        "it-s": odd[2],
    }
    assert load_classifiers(["step20.pt"], TARGET)["step20"] == found["step20"]
    assert load_classifiers(["mine=step10.pt,step20.pt"], TARGET)["mine"] == list(found.values())
    with pytest.raises(UserError, match=r"step10.pt: is a file of weights; say which network they are of"):
        load_classifiers(["*.pt"])
    with pytest.raises(UserError, match=r"\*.onnx: no file or folder has such a name"):
        load_classifiers(["*.onnx"])
