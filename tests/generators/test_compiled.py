"""A pass is one graph for torch.compile, and is compiled once in a job, for every generator and way to classify."""

from dataclasses import replace

import pytest
import torch
from fakes import by_id, examples
from families import FAMILIES
from small_models import LABELS, smooth_images, tiny_network
from test_another_device import BUDGET, CLASSIFIERS, COUNT, KINDS, SLOTS
from torch import nn
from torch._dynamo.utils import counters

from fmrgen.engine.options import PerturbOptions
from fmrgen.engine.perturb import perturb
from fmrgen.errors import UserError
from fmrgen.oracles.classifier import ClassifierOracle
from fmrgen.recipe.job import load_recipe, parse_classifier
from fmrgen.weights.checkpoint import freeze

QUICK = ("transform", "resnet")
PAIRS = [
    *[(family, "resnet") for family in KINDS],  # whether one part is followed does not depend on the other
    *[("transform", name) for name in CLASSIFIERS if name != "resnet"],
]


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = tiny_network(1)

    def forward(self, images):
        logits = self.network(images)
        return logits if images.mean() > 0.2 else 2 * logits


def rows_of(generator, classifier, **options):
    settings = PerturbOptions(budget=BUDGET, step_size=0.05, slots=SLOTS, **options)
    oracle = ClassifierOracle(freeze(tiny_network(2), "cpu"))
    given = examples(smooth_images(COUNT), [number % LABELS for number in range(COUNT)])
    return by_id(perturb(given, classifier, generator, oracle, settings))


@pytest.fixture
def compiled(monkeypatch):
    """Rows, and how many graphs they took; graphs are run as they are, since a compiler has no part in their number."""
    torch._dynamo.reset()
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda work, options, **more: real(work, backend="eager", **more))

    def run(generator, classifier, **options):
        counters.clear()
        return rows_of(generator, classifier, **options), counters["stats"]["unique_graphs"]

    yield run
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("family", "name"), [pytest.param(*pair, marks=[] if pair == QUICK else pytest.mark.nightly) for pair in PAIRS]
)
@pytest.mark.slow
def test_a_pass_is_one_graph_and_compiled_once(family, name, compiled, tmp_path):
    torch.manual_seed(0)
    classifier = parse_classifier(f"it={CLASSIFIERS[name](tmp_path / 'classifier')}")[1].build("cpu")
    generator = FAMILIES[family](tmp_path).build("cpu")
    rows, graphs = compiled(generator, classifier, compile=True)
    assert graphs == 1
    assert not counters["recompiles"]
    expected, graphs = compiled(generator, classifier)
    assert not graphs
    for i, row in rows.items():
        assert row.iterations == expected[i].iterations
        assert (row.image.int() - expected[i].image.int()).abs().max() <= 1


@pytest.mark.nightly
def test_as_many_jobs_as_one_likes_are_compiled_in_a_process(compiled, tmp_path):
    generator = FAMILIES["transform"](tmp_path).build("cpu")
    for _ in range(9):  # torch compiles one function for eight models
        classifier = parse_classifier(f"it={CLASSIFIERS['cifar'](tmp_path)}")[1].build("cpu")
        _, graphs = compiled(generator, classifier, compile=True)
        assert graphs == 1


def test_a_compiled_pass_that_loses_the_gradient_is_refused(monkeypatch, tmp_path):
    """As torch 2.13 made of convolutions on CPUs."""

    def losing(work, **options):
        def compiled(free, *others):
            *images, objective = work(free, *others)
            return *images, objective.detach() + 0 * free.flatten(1).sum(1)

        return compiled

    monkeypatch.setattr(torch, "compile", losing)
    with pytest.raises(UserError, match=r"has another gradient than the plain one \(cosine 0.00\), .* leave it out"):
        rows_of(FAMILIES["transform"](tmp_path).build("cpu"), tiny_network(1), compile=True)


@pytest.mark.nightly
def test_the_demo_is_compiled_by_torch_itself():
    recipe = load_recipe("mnist-lenet", ["source.limit=4", "perturb.budget=8"])
    source, classifier, generator, oracle = recipe.build("cpu")
    given = [entry.for_engine() for entry in source.load(0, 4, 32)]
    counters.clear()
    plain, compiled = (
        by_id(perturb(given, classifier, generator, oracle, replace(recipe.perturb, compile=whether, slots=4)))
        for whether in (False, True)
    )
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["recompiles"]
    for i, row in compiled.items():
        assert row.iterations == pytest.approx(plain[i].iterations, abs=2)
        assert row.step_objectives[:2] == pytest.approx(plain[i].step_objectives[:2], abs=0.05)


def test_what_is_not_one_graph_says_so(compiled, tmp_path):
    with pytest.raises(UserError, match=r"can't compile test_compiled\.py, line \d+; leave it out: Data-dependent"):
        compiled(FAMILIES["transform"](tmp_path).build("cpu"), freeze(Branching(), "cpu"), compile=True)
