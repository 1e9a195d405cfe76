"""How many questions a search without gradients takes to find what a gradient shows, and what a question costs.

    python -m benchmarks.black_box lenet=asset:mnist/lenet --limit 300 --queries 8 38 76
    python -m benchmarks.black_box lenet=asset:mnist/lenet --limit 300 --surrogate trained/another

For each classifier, on the same images: FMR along its gradient (`white box`), after random steps, and by `update: nes`
with so many questions a step; with `--surrogate` also by `update: prior` along the gradient of another network.
Questions are those that rows record, means over all images. `--labels` searches by `update: boundary`, and hides all
but the label from it.

`--speed` compares the search with the bare models on as many images, in turns: decode and classify for a question, and
the oracle too in a pass.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import mean, median

import torch
from torch import nn

from benchmarks.throughput import BareModels
from fmrgen import perturb
from fmrgen.classifiers.networks.surrogate import WithGradientOf
from fmrgen.engine.models import ASKED_TOGETHER
from fmrgen.engine.options import PerturbOptions
from fmrgen.jobs.batch import summarise_rows
from fmrgen.metrics.intervals import Estimate, format_estimate
from fmrgen.recipe.build import Components, fit_to_labels
from fmrgen.recipe.job import Recipe, load_classifiers, load_recipe, parse_classifier
from fmrgen.records import Example

_ROUNDS = 3


class LabelsAlone(nn.Module):
    """Logits [B, K] that say which label a network gives, and nothing else."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images)
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)


@dataclass(frozen=True)
class Way:
    """What became of one classifier in one way."""

    classifier: str
    way: str
    queries: float
    fmr: Estimate | None
    seconds: float


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classifiers", nargs="+", help="NAME=CLASSIFIER")
    parser.add_argument("--recipe", default="_mnist")
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--queries", type=int, nargs="*", default=[8, 38, 76], help="a step")
    parser.add_argument("--surrogate", help="a classifier")
    parser.add_argument("--labels", action="store_true", help="search by labels alone")
    parser.add_argument("--speed", action="store_true", help="compare with the bare models")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    ways: list[Way] = []
    for name, section in load_classifiers(given.classifiers).items():
        recipe = load_recipe(given.recipe, [f"source.limit={given.limit}"]).model_copy(update={"classifier": section})
        components = recipe.build()
        examples = list(components.source.load_all(components.generator.image_size))
        options = replace(recipe.perturb, control=0)
        hidden = LabelsAlone(components.classifier).eval() if given.labels else components.classifier
        tried = [("white box", components.classifier, options)]
        tried.append(("random", components.classifier, replace(options, update="random")))
        search = replace(options, update="boundary" if given.labels else "nes")
        tried += [(f"{search.update}, {q}", hidden, replace(search, queries=q)) for q in given.queries]
        if given.surrogate is not None:
            blank = torch.zeros_like(examples[0].image[None])
            other = parse_classifier(given.surrogate)[1].build()
            guided = WithGradientOf(hidden, fit_to_labels(other, components.source.labels, blank, "surrogate")).eval()
            tried.append(("surrogate alone", guided, options))
            tried += [(f"prior, {q}", guided, replace(options, update="prior", queries=q)) for q in given.queries]
        for way, classifier, how in tried:
            ways.append(_tried(name, way, components, classifier, examples, how))
            if not given.json:
                print(_line(ways[-1]), flush=True)
        if given.speed:
            print(f"{name}: {_share_of_bare(recipe, components, examples):.3f} of the bare models' rate")
    if given.json:
        print(json.dumps([asdict(way) for way in ways], indent=1))


def _tried(
    name: str,
    way: str,
    components: Components,
    classifier: nn.Module,
    examples: Sequence[Example],
    options: PerturbOptions,
) -> Way:
    started = time.perf_counter()
    rows = list(perturb(examples, classifier, components.generator, components.oracle, options))
    seconds = time.perf_counter() - started
    return Way(name, way, mean(row.queries for row in rows), summarise_rows(rows).fmr, seconds)


def _line(way: Way) -> str:
    fmr = format_estimate(way.fmr)
    return f"{way.classifier:16}{way.way:16}{way.queries:8.0f} questions an image  FMR {fmr:24}{way.seconds:7.0f} s"


def _share_of_bare(recipe: Recipe, components: Components, examples: Sequence[Example]) -> float:
    """The seconds of the bare models on as many images, over those of the search; the median of some rounds."""
    options = replace(recipe.perturb, update="nes", control=0)
    asked = BareModels(recipe, components, examples, ASKED_TOGETHER, torch.device("cpu"))
    passed = BareModels(recipe, components, examples, int(options.slots), torch.device("cpu"))
    shares = []
    for _ in range(_ROUNDS):
        passes: list[int] = []
        started = time.perf_counter()
        rows = list(
            perturb(
                examples, components.classifier, components.generator, components.oracle, options, on_pass=passes.append
            )
        )
        searched = time.perf_counter() - started
        in_passes = sum(passes)
        beside = sum(row.queries for row in rows) - in_passes - len(rows)
        started = time.perf_counter()
        with torch.no_grad():
            for _ in range(round(beside / ASKED_TOGETHER)):
                asked.forward(asked.latents.free)
            for _ in range(round(in_passes / passed.batch_size)):
                images, _ = passed.forward(passed.latents.free)
                components.oracle.judge(images)
            passed.originals(len(examples))
        shares.append((time.perf_counter() - started) / searched)
    return median(shares)


if __name__ == "__main__":
    main()
