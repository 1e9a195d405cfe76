"""A classifier with another's gradient."""

import numpy as np
import pytest
import torch
from commands import run
from datasets import load_dataset

from fmrgen import UserError, evaluate, verify
from fmrgen.classifiers.networks.surrogate import WithGradientOf
from fmrgen.recipe.job import parse_classifier
from fmrgen.recipe.sections import ClassifierOnly
from fmrgen.trust.recipes import UntrustedError, untrusted_config
from fmrgen.weights.digest import weights_sha256
from fmrgen.weights.identity import identity_of

LENET = "asset:mnist/lenet"


def section(classifier=LENET, surrogate="{kind: lenet}"):
    return f"{{kind: surrogate, classifier: '{classifier}', surrogate: {surrogate}}}"


def built(text):
    return parse_classifier(text)[1].build()


def test_answers_are_one_networks_and_gradients_the_others():
    tested, surrogate = built(LENET), built("{kind: lenet}")
    network = WithGradientOf(tested, surrogate).eval()
    images = torch.rand((3, 3, 32, 32), requires_grad=True)
    answers = network(images)
    assert torch.equal(answers, tested(images))
    of_logits = torch.randn(3, 10)
    (found,) = torch.autograd.grad((answers * of_logits).sum(), images)
    (expected,) = torch.autograd.grad((surrogate(images) * of_logits).sum(), images)
    assert torch.equal(found, expected)
    assert found.abs().sum() > 0
    with torch.no_grad():
        assert not network(images).requires_grad


def test_its_weights_are_those_of_the_classifier_alone():
    tested = built(LENET)
    one, other = (WithGradientOf(tested, built("{kind: lenet}")).eval() for _ in range(2))
    other._guide = WithGradientOf(tested, tested)._guide
    assert weights_sha256(one) == weights_sha256(other)
    assert weights_sha256(WithGradientOf(torch.nn.Flatten(), tested)) is None
    changed = WithGradientOf(tested, tested)
    assert identity_of(one).state_sha256 != identity_of(changed).state_sha256  # but it is known which surrogate it was
    before = weights_sha256(one)
    one(torch.rand((1, 3, 32, 32), requires_grad=True))
    assert weights_sha256(one) == before


@pytest.mark.slow
def test_a_split_is_the_classifiers_own(tmp_path, capsys):
    changes = ["perturb.budget=3", "perturb.step_size=0.1", "perturb.queries=4", f"classifier={section()}"]
    out = str(tmp_path / "out")
    assert run("generate", "mnist-lenet", *changes, "--limit", "20", "-o", out, "-q") == 2
    assert "would follow a gradient that is not the classifier's; set perturb.update=prior" in capsys.readouterr().err
    assert run("generate", "mnist-lenet", *changes, "perturb.update=prior", "--limit", "20", "-o", out, "-q") == 0
    assert verify(out).disagreements == []
    (result,) = evaluate([out], [LENET], progress=False).results
    assert result.conditioned
    rows = load_dataset(out, "mnist", split="lenet")
    assert result.total.mean_queries.value == pytest.approx(np.mean(rows["queries"]))
    assert np.mean(rows["queries"]) > 3 * np.mean(rows["iterations"])


def test_other_classes_and_mistakes():
    network = built(section(surrogate="{kind: module, target: 'torch.nn:Flatten'}"))
    with pytest.raises(UserError, match=r"classifier.surrogate: has 3072 outputs, and the classifier 10"):
        network(torch.rand((1, 3, 32, 32), requires_grad=True))
    with pytest.raises(UserError, match="no.such"):
        built(section(surrogate="{kind: lenet, checkpoint: no.such}"))


def test_what_a_stranger_puts_inside_is_refused():
    inside = {
        "kind": "surrogate",
        "classifier": {"kind": "lenet"},
        "surrogate": {"kind": "module", "target": "os:abort"},
    }
    with pytest.raises(UntrustedError, match="os:abort"):
        untrusted_config(ClassifierOnly, {"classifier": inside}, "a split", trust=False, cure="look at it")
