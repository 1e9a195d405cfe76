"""No two classes have the same prompt: of ImageNet's names, of homonyms, and of names that a user gives."""

import logging

import pytest
from timm.data import ImageNetInfo

from fmrgen.errors import UserError
from fmrgen.oracles._class_prompts import names_in_prompts

IMAGENET = ImageNetInfo().label_descriptions()
CRANES = [label for label, name in enumerate(IMAGENET) if name == "crane"]


def as_on_the_hub():
    """timm calls two classes crane; the Hub's list tells them apart by a number."""
    names = list(IMAGENET)
    names[CRANES[1]] = "crane2"
    return names


def test_imagenets_thousand_prompts_are_a_thousand():
    names = as_on_the_hub()
    found = names_in_prompts(names, True, {"crane2": "construction crane"})
    assert len({name.casefold() for name in found}) == 1000
    pushed = [found[label] for label in (264, 474, 638, 639)]
    assert pushed == ["Cardigan Welsh corgi", "cardigan", "maillot", "tank suit"]
    assert [found[label] for label in CRANES] == ["crane", "construction crane"]
    changed = [label for label in range(1000) if found[label] != names[label].partition(",")[0]]
    assert changed == sorted({264, 639, CRANES[1]})


def test_a_synonym_can_push_another_label_on():
    assert names_in_prompts(["a, b", "a", "b, c"], True, {}) == ["b", "a", "c"]


def test_what_no_synonym_tells_apart_is_refused_with_the_cure():
    with pytest.raises(UserError, match=r"'crane' and 'crane2' would have the same prompt .*oracle.class_prompts="):
        names_in_prompts(as_on_the_hub(), True, {})
    with pytest.raises(UserError, match="'Cat' and 'cat' would have the same prompt"):
        names_in_prompts(["Cat", "dog", "cat"], False, {})
    assert names_in_prompts(["Cat", "dog", "cat"], False, {"cat": "tom cat"}) == ["Cat", "dog", "tom cat"]


def test_numbers_that_tell_nothing_else_apart_are_names():
    for names in (["0", "1", "10"], ["type1", "type2"], ["F16", "F18", "B52"]):
        assert names_in_prompts(names, False, {}) == names


def test_an_override_of_no_class_is_told(caplog):
    with caplog.at_level(logging.WARNING):
        assert names_in_prompts(["a", "b"], False, {"c": "d"}) == ["a", "b"]
    assert "no class is called c" in caplog.text
