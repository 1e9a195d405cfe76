"""Algorithm 1 on tensors in memory, as one types it in a notebook."""

import pytest
import torch
from outside_components import SmallNet

from fmrgen import PerturbOptions, UserError, load_recipe, perturb, perturb_batch
from fmrgen.engine.images import to_bytes

DEMO = {"generator": "asset:mnist/vqgan", "oracle": "asset:mnist/clip", "budget": 3, "step_size": 0.03}


@pytest.fixture(scope="module")
def digits():
    recipe = load_recipe("mnist-lenet", ["source.limit=6"])
    examples = list(recipe.source.build().load_all(32))
    return torch.stack([example.image for example in examples]), [example.label for example in examples], recipe


def test_tensors_in_tensors_out_equal_the_bare_loop(digits, capfd):
    images, labels, recipe = digits
    classifier = recipe.classifier.build()
    found = perturb_batch(images, torch.tensor(labels), classifier=classifier, progress=False, **DEMO)
    assert capfd.readouterr().err == ""
    source, *models = recipe.build()
    options = PerturbOptions(budget=3, step_size=0.03, slots=6)
    expected = {row.id: row for row in perturb(source.load_all(32), *models, options)}
    for i, row in enumerate(found.rows):
        assert to_bytes(found.images[i]).equal(expected[row.id].image)
        assert (found.valid[i], found.predictions[i]) == (expected[row.id].valid, expected[row.id].prediction)
    as_bytes = perturb_batch(to_bytes(images), labels, classifier="asset:mnist/lenet", **DEMO)
    assert "perturb_batch: 6 of 6" in capfd.readouterr().err
    assert as_bytes.images.equal(found.images)
    assert found.summary().rows == 6
    assert repr(found).startswith("PerturbedBatch(6 images: SA ")


def test_a_module_of_ones_own_with_a_generator_without_weights(digits):
    images, labels, _ = digits
    found = perturb_batch(images, labels, classifier=SmallNet().train(), **{**DEMO, "generator": "transform"})
    assert found.images.shape == images.shape
    own = {"generator": "outside_components:TintConfig", "oracle": "outside_components:NotTooBrightConfig"}
    assert len(perturb_batch(images, labels, classifier=SmallNet(), **{**DEMO, **own}).rows) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budgt": 3}, "unknown option budgt, did you mean budget?"),
        ({"budget": 0}, "budget must be from 1 to"),
        ({"generator": "no/such"}, "generator: no/such can't be downloaded"),
        ({"oracle": "no/such"}, "oracle.model: no/such can't be loaded"),
        ({"class_names": ["a", "b"]}, "classifier: has 10 outputs for 2 labels"),
        ({"images": torch.zeros(6, 1, 32, 32)}, "images: have the shape [6, 1, 32, 32]; give squares, RGB"),
        ({"labels": range(5)}, "labels: there are 5 for 6 images"),
        ({"images": 255 * torch.eye(32).expand(6, 3, 32, 32)}, "has values from 0 to 255; give RGB"),
    ],
)
def test_mistakes_are_one_line(digits, change, message):
    images, labels, _ = digits
    with pytest.raises(UserError) as caught:
        perturb_batch(**{"images": images, "labels": labels, "classifier": SmallNet(), **DEMO, **change})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
