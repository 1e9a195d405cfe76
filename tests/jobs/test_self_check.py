"""The one line at the start of a job whose oracle does not know the images."""

import pytest
import torch
from helpers import run

from fmrgen import load_recipe
from fmrgen.jobs.self_check import oracle_caution

SHIFTED = "oracle.class_prompts={'0': five, '1': six, '2': seven, '3': eight, '4': nine, '5': zero, '6': one, '7': two}"
UNTRAINED = "oracle={kind: classifier, classifier: {kind: lenet}}"
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([], None),
        ([UNTRAINED], "no more than by chance (10 %): are its weights and tokenizer the right ones"),
        ([SHIFTED], "the oracle is right on"),
    ],
)
def test_an_oracle_that_does_not_know_the_images_is_told(changes, told):
    found = oracle_caution(load_recipe("mnist-lenet", ["source.limit=64", *changes]).build(), CPU)
    assert (found is None) == (told is None)
    assert told is None or told in found


def test_what_fails_in_it_is_left_to_the_job():
    components = load_recipe("mnist-lenet", ["source.limit=64"]).build()
    components.source.load = None
    assert oracle_caution(components, CPU) is None


def test_it_is_told_when_a_split_begins_and_not_again(tmp_path, capsys):
    job = ("generate", "mnist-lenet", SHIFTED, "perturb.budget=1", "--limit", "60", "--output", tmp_path, "--quiet")
    assert run(*job) == 0
    assert capsys.readouterr().err.count("the oracle is right on") == 1  # not again of all originals at the end
    assert run(*job) == 0
    assert "the first originals" not in capsys.readouterr().err
