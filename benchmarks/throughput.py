"""The engine against Algorithm 1 as it is written, against batches that wait, and against the bare models.

    python -m benchmarks.throughput --recipe _mnist --limit 1000 --literal 100
    python -m benchmarks.throughput --recipe benchmarks/imagenet_shapes.yaml --limit 2 --slots 1 perturb.budget=12

The ways take turns on the same images and models; medians of the rounds are compared. An image-iteration is one guided
step of one image, judged: the same number for every way. Engine and limit take turns every few passes: they differ by
less than a machine's speed does from one minute to the next.

- literal: Algorithm 1 one image at a time, as the tests have it (on the first `--literal` images, in float32);
- static: in batches that wait for their slowest image, for recipes of one attack of sign steps;
- engine: `fmrgen.perturb`;
- limit: the bare models, for as many image-passes as the images need, at the batch size that is best for them: decode
  and classify with the gradient to the latent, judge; no logic;
- limit with encode: also the one encode, classification and judgement of each original, which every way needs.
"""

import argparse
import functools
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.plain import Outcome, autocast, is_plain, plain_perturb
from benchmarks.reference import reference_ensemble, reference_perturb
from fmrgen import perturb
from fmrgen.engine.images import as_float32
from fmrgen.engine.interfaces import Latents
from fmrgen.engine.models import row_seed
from fmrgen.engine.objectives import OBJECTIVES, truth_of
from fmrgen.recipe.build import Components
from fmrgen.recipe.job import Recipe, load_recipe
from fmrgen.records import Example, StopReason

_BATCH_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024)
_SWEEPS = 3
_SWEEP_SECONDS = 1.0  # at least so long at each batch size
_NEAR, _FAR = 0.85, 0.6  # of the best rate: worth another look, and past the best
_BATCHES_IN_TURN = 2  # of the bare models, after as many image-passes of the engine; neighbours come and go
_FEWEST_EQUAL = 0.96  # of the rows; float noise tips a sign here and there, and with it a row


def load_examples(components: Components) -> list[Example]:
    """Every example of the source, decoded."""
    return list(components.source.load_all(components.generator.image_size))


def run_engine(
    recipe: Recipe,
    components: Components,
    examples: Sequence[Example],
    device: torch.device,
    on_pass: Callable[[int], None] = lambda active: None,
) -> dict[int, Outcome]:
    _, classifier, generator, oracle = components
    rows = perturb(iter(examples), classifier, generator, oracle, recipe.perturb, device=device, on_pass=on_pass)
    return {row.id: Outcome(row.image, row.iterations, row.stop_reason) for row in rows}


def run_plain(
    recipe: Recipe, components: Components, examples: Sequence[Example], batch_size: int, device: torch.device
) -> dict[int, Outcome]:
    _, classifier, generator, oracle = components
    return dict(plain_perturb(examples, classifier, generator, oracle, recipe.perturb, batch_size, device))


def run_literal(
    recipe: Recipe, components: Components, examples: Sequence[Example], device: torch.device
) -> dict[int, Outcome]:
    _, classifier, generator, oracle = components
    options = recipe.perturb
    settings = {name: getattr(options, name) for name in options.__dataclass_fields__ if name != "seed"}
    outcomes = {}
    for example in examples:
        generator.row_seeds = [row_seed(options.seed, example.id)]
        others = [label for label in example.accepted or () if label != example.label]
        one = example.image[None].to(device), example.label, classifier, generator, oracle
        if options.attacks == "one":
            seeds = [row_seed(options.seed, example.id, purpose) for purpose in ("update", "start")]
            row = reference_perturb(*one, accepted=others, seed=seeds[0], start_seed=seeds[1], **settings)
        else:
            row = reference_ensemble(*one, example_id=example.id, seed=options.seed, accepted=others, **settings)
        outcomes[example.id] = Outcome(row.image.cpu(), row.iterations, StopReason[row.stop_reason.upper()])
    return outcomes


def iterations_of(outcomes: dict[int, Outcome]) -> int:
    """Guided steps that were judged: those in the images, and the rejected ones after them."""
    rejected = (StopReason.ORACLE, StopReason.REJECTED)
    return sum(outcome.iterations + (outcome.stop_reason in rejected) for outcome in outcomes.values())


def with_slots_found(
    recipe: Recipe, components: Components, examples: Sequence[Example], device: torch.device
) -> Recipe:
    """The recipe with a number of slots, found by timing where it says `auto`."""
    if recipe.perturb.slots != "auto":
        return recipe
    _, classifier, generator, oracle = components
    found: list[int] = []
    options = replace(recipe.perturb, budget=1)
    for _ in perturb(examples[:1], classifier, generator, oracle, options, device=device, on_slots=found.append):
        pass
    return recipe.model_copy(update={"perturb": replace(recipe.perturb, slots=found[0])})


class BareModels:
    """The models alone on batches of one size."""

    def __init__(
        self,
        recipe: Recipe,
        components: Components,
        examples: Sequence[Example],
        batch_size: int,
        device: torch.device,
    ):
        _, self.classifier, self.generator, self.oracle = components
        self.precision = functools.partial(autocast, recipe.perturb, device)
        self.objective = OBJECTIVES[recipe.perturb.objective]
        options: Any = {"dynamic": False, "mode": "reduce-overhead"}
        self.forward = torch.compile(self._forward, **options) if recipe.perturb.compile else self._forward
        batch = [examples[i % len(examples)] for i in range(batch_size)]
        self.batch_size = batch_size
        self.images = torch.stack([example.image for example in batch]).to(device)
        self.labels = torch.tensor([example.label for example in batch], device=device)
        self.latents = self.encode()

    @torch.no_grad()
    def encode(self) -> Latents:
        self.generator.row_seeds = range(len(self.labels))
        with self.precision():
            return self.generator.encode(self.images, self.labels)

    def _forward(self, free: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with self.precision():
            images = self.generator.decode(Latents(free, self.latents.fixed))
            logits = self.classifier(images)
        truth = truth_of(self.labels, logits.shape[1], None)
        return as_float32(images), self.objective(as_float32(logits), truth).sum()

    def one_pass(self) -> None:
        free = as_float32(self.latents.free).detach().requires_grad_(True)
        images, loss = self.forward(free)
        torch.autograd.grad(loss, free)
        with torch.no_grad():
            self.oracle.judge(images.detach())

    @torch.no_grad()
    def originals(self, images: int) -> None:
        for _ in range(-(-images // self.batch_size)):
            self.encode()
            self.classifier(self.images)
            self.oracle.judge(self.images)

    def passes(self, batches: int) -> None:
        for _ in range(batches):
            self.one_pass()


class InTurns:
    """Between passes of the engine, the bare models make as many image-passes; each is timed by itself."""

    def __init__(self, bare: BareModels, device: torch.device) -> None:
        self.bare, self.device = bare, device
        self.due = 0  # image-passes that the engine has made and the bare models have not
        self.seconds = 0.0
        self.spent = 0.0  # of the engine's time, on turns of the bare models

    def on_pass(self, active: int) -> None:
        self.due += active
        if self.due >= _BATCHES_IN_TURN * self.bare.batch_size:
            started = time.perf_counter()
            self.catch_up()
            self.spent += time.perf_counter() - started

    def catch_up(self) -> None:
        """As many image-passes as are due: the seconds of whole batches, in proportion."""
        wait_for(self.device)
        batches = -(-self.due // self.bare.batch_size)
        if batches:
            took, _ = seconds(self.device, self.bare.passes, batches)
            self.seconds += took * self.due / (batches * self.bare.batch_size)
        self.due = 0


def seconds(device: torch.device, work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work(*arguments)
    wait_for(device)
    return time.perf_counter() - started, result


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def best_bare_models(
    recipe: Recipe, components: Components, examples: Sequence[Example], device: torch.device
) -> BareModels:
    """At the batch size of the most image-passes per second in the median of the sweeps; no larger than the job is."""
    tried: dict[int, list[float]] = {size: [] for size in _BATCH_SIZES if size <= len(examples)}
    for sweep in range(_SWEEPS):
        for batch_size in list(tried):
            try:
                bare = BareModels(recipe, components, examples, batch_size, device)
                bare.one_pass()
                once, _ = seconds(device, bare.one_pass)
                passes = max(2, round(_SWEEP_SECONDS / once))
                took, _ = seconds(device, bare.passes, passes)
            except torch.OutOfMemoryError:
                del tried[batch_size]
            else:
                tried[batch_size].append(passes * batch_size / took)
                if sweep == 0 and tried[batch_size][0] < _FAR * max(rates[0] for rates in tried.values() if rates):
                    break  # larger ones are no better, smaller ones are behind us
        best = max(median(rates) for rates in tried.values() if rates)
        if sweep == 0:  # only those that are near need another look
            tried = {size: rates for size, rates in tried.items() if rates and rates[0] > _NEAR * best}
    for batch_size, rates in tried.items():
        listed = ", ".join(f"{rate:.1f}" for rate in rates)
        print(f"bare models, batches of {batch_size}: {listed} image-passes/s", flush=True)
    return BareModels(recipe, components, examples, max(tried, key=lambda size: median(tried[size])), device)


@dataclass
class Agreement:
    """How far two ways come to the same rows."""

    rows: int
    same_end: int  # in steps and stop reason
    same_bytes: int

    @property
    def holds(self) -> bool:
        return self.same_end >= _FEWEST_EQUAL * self.rows


def agreement(ours: dict[int, Outcome], theirs: dict[int, Outcome]) -> Agreement:
    pairs = [(ours[i], theirs[i]) for i in theirs]
    return Agreement(
        len(pairs),
        sum((a.iterations, a.stop_reason) == (b.iterations, b.stop_reason) for a, b in pairs),
        sum(torch.equal(a.image, b.image) for a, b in pairs),
    )


def measure(
    recipe: Recipe,
    components: Components,
    examples: list[Example],
    static: bool,
    literal: int,
    rounds: int,
    device: torch.device,
) -> dict[str, Any]:
    """Runs every way `rounds` times in turn. Raises SystemExit where they do not agree."""
    bare = best_bare_models(recipe, components, examples, device)
    recipe = with_slots_found(recipe, components, examples, device)
    slots = int(recipe.perturb.slots)
    run_engine(recipe, components, examples[: 2 * slots], device)  # warm
    outcomes: dict[str, dict[int, Outcome]] = {}
    rates: dict[str, list[float]] = {}

    def time_way(name: str, way: Callable[..., dict[int, Outcome]], *arguments: Any) -> None:
        took, outcomes[name] = seconds(device, way, recipe, components, *arguments, device)
        rates.setdefault(name, []).append(iterations_of(outcomes[name]) / took)
        print(f"{name}: {took:.1f} s, {rates[name][-1]:.1f} image-iterations/s", flush=True)

    for _ in range(rounds):
        limit = InTurns(bare, device)
        took, outcomes["engine"] = seconds(device, run_engine, recipe, components, examples, device, limit.on_pass)
        took -= limit.spent
        limit.catch_up()
        more, _ = seconds(device, bare.originals, len(examples))
        iterations = iterations_of(outcomes["engine"])
        for name, spent in {"engine": took, "limit": limit.seconds, "limit with encode": limit.seconds + more}.items():
            rates.setdefault(name, []).append(iterations / spent)
            print(f"{name}: {spent:.1f} s, {rates[name][-1]:.1f} image-iterations/s", flush=True)
        if static and is_plain(recipe.perturb):
            time_way("static", run_plain, examples, slots)
        if literal:
            time_way("literal", run_literal, examples[:literal])
    ways = {name: round(median(values), 2) for name, values in rates.items()}
    ratios = {
        f"engine/{name}": [round(e / r, 3) for e, r in zip(rates["engine"], values, strict=True)]
        for name, values in rates.items()
        if name != "engine"
    }
    agreements = {}
    if "static" in outcomes:
        agreements["static"] = agreement(outcomes["engine"], outcomes["static"])
    if literal:  # by the engine with one slot: a batch of one has other kernels, whose last bits tip a row in fifty
        one_slot = recipe.model_copy(update={"perturb": replace(recipe.perturb, slots=1)})
        alone = run_engine(one_slot, components, examples[:literal], device)
        agreements["literal, with one slot"] = agreement(alone, outcomes["literal"])
    return {
        "recipe": recipe.description,
        "images": len(examples),
        "slots": slots,
        "precision": recipe.perturb.precision,
        "compile": recipe.perturb.compile,
        "image_iterations": iterations_of(outcomes["engine"]),
        "best_batch_of_bare_models": bare.batch_size,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "image_iterations_per_second": ways,
        "ratios": {name: {"median": median(values), "rounds": values} for name, values in ratios.items()},
        "agreement_with_engine": {name: vars(found) | {"holds": found.holds} for name, found in agreements.items()},
    }


def print_table(result: dict[str, Any]) -> None:
    print(f"\n{result['images']} images, {result['image_iterations']} image-iterations, {result['slots']} slots")
    print(f"{'':20}{'image-iterations/s':>20}{'engine / it':>14}   rounds")
    for name, rate in result["image_iterations_per_second"].items():
        ratio = result["ratios"].get(f"engine/{name}")
        shown = f"{ratio['median']:>14.3f}   {ratio['rounds']}" if ratio else ""
        print(f"{name:20}{rate:>20.1f}{shown}")
    for name, found in result["agreement_with_engine"].items():
        same = f"{found['same_end']} end alike, {found['same_bytes']} in every byte"
        print(f"engine and {name}: of {found['rows']} rows {same}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="_mnist")
    parser.add_argument("--limit", type=int, default=1000, help="images")
    parser.add_argument("--literal", type=int, default=100, help="images for the literal algorithm; 0 leaves it out")
    parser.add_argument("--no-static", action="store_true", help="leave out the batches that wait")
    parser.add_argument("--slots", help="a number or auto; also the size of static batches")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    options = parser.parse_args()
    slots = [] if options.slots is None else [f"perturb.slots={options.slots}"]
    recipe = load_recipe(options.recipe, [f"source.limit={options.limit}", *slots, *options.overrides])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    components = recipe.build(device)
    examples = load_examples(components)
    literal = min(options.literal, len(examples)) if recipe.perturb.precision == "fp32" else 0
    result = measure(recipe, components, examples, not options.no_static, literal, options.rounds, device)
    print_table(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    if not all(found["holds"] for found in result["agreement_with_engine"].values()):
        raise SystemExit("the ways do not agree")


if __name__ == "__main__":
    main()
