"""Names of classes matched to labels: in order, out of order, chosen, or refused."""

import pytest
import torch
from torch import nn

from fmrgen.classifiers.base import Classifier, in_labels
from fmrgen.errors import UserError
from fmrgen.labels import Labels, find_label, match_classes


@pytest.mark.parametrize(
    ("class_names", "names", "order"),
    [
        (["cat", "dog", "owl"], ["cat", "dog", "owl"], [0, 1, 2]),
        (["cat", "dog", "owl"], ["Cat", "DOG", "owl "], [0, 1, 2]),
        (["sea_lion", "dog"], ["sea-lion", "dog"], [0, 1]),
        (["owl", "cat", "dog"], ["cat", "dog", "owl"], [1, 2, 0]),
        (["tench, Tinca tinca", "goldfish, Carassius auratus"], ["goldfish", "tench"], [1, 0]),
        (["crane", "owl", "crane", "cat"], ["crane bird", "owl", "crane machine", "cat"], [0, 1, 2, 3]),  # half agree
        (["cat", "dog", "owl", "fox"], ["owl", "cat"], [2, 0]),  # a choice of the classifier's classes
        (["cat", "dog"], ["Katze", "Hund"], None),
        (["cat", "dog", "owl", "fox"], ["cat", "Hund", "Eule", "Fuchs"], None),  # one of four is no evidence
        (["cat", "dog", "owl"], ["dog", "cat", "Eule"], None),  # another order, and not all of it known
        (["crane", "crane", "owl"], ["owl", "crane", "crane"], None),  # which crane is which can't be told
        (["cat", "dog"], ["cat", "dog", "owl"], None),
    ],
)
def test_matching(class_names, names, order):
    match = match_classes(class_names, names)
    assert (match and match.order) == order


def test_names_as_they_are_go_before_names_as_they_sound():
    imagenet = [
        "cardigan",
        "Cardigan, Cardigan Welsh corgi",
        "maillot",
        "maillot, tank suit",
        "missile",
        "projectile, missile",
    ]
    assert match_classes(imagenet, imagenet) == (list(range(6)), True)
    assert match_classes(imagenet, ["maillot, tank suit", "missile"]) == ([3, 4], True)
    assert match_classes(imagenet, ["Cardigan", "missile"]) is None  # the dog or the jacket


def test_an_order_that_only_half_of_the_names_tell_is_no_proof():
    match = match_classes(["0", "1", "neun", "acht"], ["0", "1", "2", "3"])
    assert match == ([0, 1, 2, 3], False)


def test_words_that_name_a_label():
    labels = Labels(("crane", "Owl", "crane", "sea_lion", "Cardigan", "cardigan"))
    words = ("Owl", "owl", "sea lion", "crane", "cardigan", "CARDIGAN", "fox")
    assert [find_label(word, labels) for word in words] == [1, 1, 3, None, 5, None, None]


def fixed_logits(class_names, outputs=3):
    """A classifier whose output i is always i."""

    class Network(nn.Module):
        def forward(self, images):
            return torch.arange(float(outputs)).expand(len(images), -1)

    return Classifier(Network(), lambda images: images, class_names)


IMAGE = torch.zeros(1, 3, 8, 8)


def test_outputs_are_put_in_the_labels_order():
    fitted = in_labels(fixed_logits(["owl", "cat", "dog"]), Labels(("cat", "dog", "owl")), IMAGE, "classifier")
    assert fitted(IMAGE).tolist() == [[1, 2, 0]]
    chosen = in_labels(fixed_logits(["owl", "cat", "dog"]), Labels(("dog", "owl")), IMAGE, "classifier")
    assert chosen(IMAGE).tolist() == [[2, 0]]
    same = fixed_logits(["cat", "dog", "owl"])
    assert in_labels(same, Labels(("cat", "dog", "owl")), IMAGE, "classifier") is same


def test_what_can_not_be_matched_is_refused():
    with pytest.raises(UserError, match=r"its classes \(owl, cat, dog\) don't match the labels \(eins, zwei, drei\)"):
        in_labels(fixed_logits(["owl", "cat", "dog"]), Labels(("eins", "zwei", "drei")), IMAGE, "classifier")
    with pytest.raises(UserError, match="has 3 outputs, and 2 class_names"):
        in_labels(fixed_logits(["owl", "cat"]), Labels(("owl", "cat")), IMAGE, "classifier")
