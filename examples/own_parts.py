"""A generator and an oracle of your own: principal components, and nearest neighbours. Runs offline, on a CPU."""

import argparse
from pathlib import Path

import torch
from torch import Tensor

import fmrgen


class PrincipalComponents(fmrgen.Generator):
    """Latents are the images' coordinates along `count` directions, in units of their spread: a step of 0.1 is a tenth
    of what images differ by along each of them.
    """

    def __init__(self, images: Tensor, count: int) -> None:
        """`images` are grey, [N, S, S] in [0, 1]."""
        self.image_size = images.shape[-1]
        flat = images.flatten(1)
        self.mean = flat.mean(0)
        _, spread, directions = torch.linalg.svd(flat - self.mean, full_matrices=False)
        self.directions = directions[:count].contiguous()  # [count, S·S]
        self.spread = spread[:count] / len(flat) ** 0.5

    def encode(self, images: Tensor, labels: Tensor) -> fmrgen.Latents:
        flat = images.mean(1).flatten(1)
        coordinates = (flat - self.mean) @ self.directions.T
        rest = flat - self.mean - coordinates @ self.directions  # what the directions can't say stays as it is
        return fmrgen.Latents(free=coordinates / self.spread, fixed=rest)

    def decode(self, latents: fmrgen.Latents) -> Tensor:
        flat = self.mean + (latents.free * self.spread) @ self.directions + latents.fixed
        grey: Tensor = flat.clamp(0, 1).view(-1, 1, self.image_size, self.image_size)
        return grey.expand(-1, 3, -1, -1)


class Neighbours(fmrgen.Oracle):
    """The share of each class among the `count` known images that are nearest."""

    def __init__(self, images: Tensor, labels: Tensor, count: int) -> None:
        self.known, self.classes, self.count = images.flatten(1), labels, count

    def set_labels(self, labels: fmrgen.Labels) -> None:
        self.width = len(labels.names)

    def judge(self, images: Tensor, originals: fmrgen.Originals | None = None) -> fmrgen.Judgement:
        distances = torch.cdist(images.mean(1).flatten(1), self.known)
        nearest = self.classes[distances.topk(self.count, largest=False).indices]
        votes = torch.nn.functional.one_hot(nearest, self.width).float().mean(1)
        return fmrgen.Judgement(probabilities=votes, score=votes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path("out"))
    arguments = parser.parse_args()

    training = list(fmrgen.load_recipe("mnist-lenet", ["source.split=train"]).source.build().load_all(32))
    known = torch.stack([example.image.mean(0) for example in training])
    labels = torch.tensor([example.label for example in training])
    recipe = fmrgen.load_recipe("mnist-lenet", [f"source.limit={arguments.digits}"])
    split = fmrgen.generate(
        recipe,
        generator=PrincipalComponents(known, count=60),
        oracle=Neighbours(known, labels, count=10),
        output=arguments.output,
        config="components",
        step_size=0.05,
        min_probability=0.8,
    )
    print(repr(split))
    for path in fmrgen.show(split, arguments.output / "gallery"):
        print(path)


if __name__ == "__main__":
    main()
