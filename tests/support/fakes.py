"""Models that make a test of the engine exact and quick."""

import torch
from small_models import LABELS, SIZE, perturb, smooth_images, tiny_network
from torch import nn

from benchmarks.reference import reference_ensemble, reference_perturb
from fmrgen.engine.interfaces import Generator, Judgement, Latents, Oracle
from fmrgen.engine.models import row_seed
from fmrgen.oracles.classifier import ClassifierOracle
from fmrgen.records import Example

COUNT = 12
BUDGET = 12


def examples(images, labels):
    return [Example(i, image, label) for i, (image, label) in enumerate(zip(images, labels, strict=True))]


def by_id(rows):
    rows = list(rows)
    assert len({row.id for row in rows}) == len(rows)
    return {row.id: row for row in rows}


class Fixture:
    """One generator against one classifier under one oracle, in float64."""

    def __init__(self, generator, step_size, oracle=None):
        self.generator, self.step_size = generator, step_size
        self.classifier, judge = tiny_network(1), ClassifierOracle(tiny_network(2))
        self.oracle = judge if oracle is None else oracle
        self.images = smooth_images(COUNT)
        self.labels = judge.judge(self.images).probabilities.argmax(1).tolist()
        self.labels[5] = (self.labels[5] + 1) % LABELS  # one that the oracle gets wrong

    def engine(self, count=COUNT, accepted=None, controlled=(), **options):
        """The rows by id; `accepted` are the true labels of each image, where there are several."""
        settings = {"budget": BUDGET, "step_size": self.step_size, **options}
        given = [
            Example(i, image, label, i in controlled, accepted[i] if accepted else None)
            for i, (image, label) in enumerate(zip(self.images[:count], self.labels, strict=False))
        ]
        return by_id(perturb(given, self.classifier, self.generator, self.oracle, **settings))

    def reference(self, i, of=None, **options):
        """The literal algorithm on image `i`, or on another one `of` its label and id."""
        self.generator.row_seeds = [row_seed(0, i)]
        settings = {"budget": BUDGET, "step_size": self.step_size, "seed": row_seed(0, i, "update"), **options}
        settings["start_seed"] = row_seed(0, i, "start")
        return reference_perturb(
            self.images[i : i + 1] if of is None else of,
            self.labels[i],
            self.classifier,
            self.generator,
            self.oracle,
            **settings,
        )

    def reference_ensemble(self, i, accepted=(), **options):
        """The literal ensemble on image `i`, whose accepted labels besides its own are `accepted`."""
        self.generator.row_seeds = [row_seed(0, i)]
        return reference_ensemble(
            self.images[i : i + 1],
            self.labels[i],
            self.classifier,
            self.generator,
            self.oracle,
            example_id=i,
            accepted=accepted,
            **{"budget": BUDGET, "step_size": self.step_size, **options},
        )


def check_literal(rows, literals):
    """Rows by id are, byte for byte, what the literal algorithm makes of them."""
    assert literals.keys() <= rows.keys()
    for i, literal in literals.items():
        row = rows[i]
        ends = [(it.valid, it.iterations, it.stop_reason, it.queries, it.attack) for it in (row, literal)]
        assert ends[0] == ends[1], i
        assert torch.equal(row.image, literal.image), i


class Identity(Generator):
    """The image is its own latent."""

    image_size = SIZE

    def encode(self, images, labels):
        return Latents(images.clone())

    def decode(self, latents):
        return latents.free.clamp(0, 1)


class Counting(Identity):
    """Counts the rows of each call."""

    def __init__(self):
        self.encoded, self.decoded = [], []

    def encode(self, images, labels):
        self.encoded.append(len(images))
        return super().encode(images, labels)

    def decode(self, latents):
        self.decoded.append(len(latents.free))
        return super().decode(latents)


class Patient(Oracle):
    """Says 0 until the mean of an image has passed a limit."""

    def __init__(self, limit):
        self.limit = limit

    def judge(self, images, originals=None):
        refuses = (images.flatten(1).mean(1) > self.limit).to(images.dtype)
        probabilities = torch.stack([1 - refuses, refuses], 1)
        return Judgement(probabilities, probabilities)


class Brightness(nn.Module):
    """Two logits; the loss of label 0 rises with the brightness, by NaN gradients or logits where asked."""

    def __init__(self, nan_logits_above=2.0, nan_gradient_above=2.0):
        super().__init__()
        self.nan_logits_above, self.nan_gradient_above = nan_logits_above, nan_gradient_above

    def forward(self, images):
        mean = images.flatten(1).mean(1)
        if images.requires_grad:
            mean.register_hook(lambda g: torch.where(mean.detach() > self.nan_gradient_above, float("nan"), g))
        logit = torch.where(mean > self.nan_logits_above, float("nan"), mean)
        return torch.stack([torch.zeros_like(logit), logit], 1)


def grey(*levels):
    return [Example(i, torch.full((3, SIZE, SIZE), level), 0) for i, level in enumerate(levels)]


STEP = 8 / 255
