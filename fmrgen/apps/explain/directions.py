"""Directions in which a generator's latents moved where a classifier was fooled: clusters of their shifts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fmrgen.apps.explain.attributes import Attribute, measured
from fmrgen.apps.explain.interventions import Change
from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.engine.models import row_seed
from fmrgen.engine.updates import normal

_BATCH = 64
_MOST_DIRECTIONS = 4
_FEWEST_FAILURES = 10  # of a direction
_SURE = 2.0  # standard deviations by which a number of the latent is moved another way where the classifier is fooled
_CLEAR = 0.25  # share of an attribute's largest change that is named
_NO_CHANGE = 1e-4  # no attribute is named whose largest change is smaller: the colours of grey images
_NAMED = 2  # attributes in the words of a direction


@dataclass(frozen=True)
class Direction:
    """A shift `free` [...] that the latents of some failures share; its length is the median length of theirs."""

    free: Tensor
    failures: int


class GeneratedMoves:
    """Images moved by what a generator makes of it when the latents of their originals are moved.

    An image is its original plus the difference of two decodings, so that what the generator can't draw stays.

    Args:
        generator: of the split.
        images: originals [N, 3, H, W] in [0, 1], H = W = the generator's.
        labels: [N].
        ids: [N], which seed what is random.
    """

    def __init__(self, generator: Generator, images: Tensor, labels: np.ndarray, ids: Sequence[int]) -> None:
        self.generator, self.images, self.ids = generator, images, ids
        self.labels = torch.from_numpy(labels).to(images.device)
        self.all_places = np.arange(len(images))
        self.latents = self._encoded(images, self.all_places)
        self.drawn = self._decoded(self.latents.free, self.all_places)

    @torch.no_grad()
    def _encoded(self, images: Tensor, at: np.ndarray) -> Latents:
        """Return the latents of `images` [B, 3, H, W], which are made of the originals at `at` [B]."""
        places = torch.from_numpy(at).to(images.device)
        free, fixed = [], []
        for batch, batch_places in zip(images.split(_BATCH), places.split(_BATCH), strict=True):
            self.generator.row_seeds = [row_seed(0, self.ids[place]) for place in batch_places.tolist()]
            latents = self.generator.encode(batch, self.labels[batch_places])
            free.append(latents.free)
            if latents.fixed is not None:
                fixed.append(latents.fixed)
        return Latents(torch.cat(free).float(), torch.cat(fixed) if fixed else None)

    @torch.no_grad()
    def _decoded(self, free: Tensor, at: np.ndarray) -> Tensor:
        """Return the images of the latents at `at` [B], `free` [B, ...] moved."""
        places = torch.from_numpy(at).to(free.device)
        images = []
        for batch, batch_places in zip(free.split(_BATCH), places.split(_BATCH), strict=True):
            fixed = None if self.latents.fixed is None else self.latents.fixed[batch_places]
            images.append(self.generator.decode(Latents(batch, fixed)))
        return torch.cat(images).float()

    def shifts(self, moved: Tensor) -> Tensor:
        """Return how far the latents of `moved` [N, 3, H, W] are from those of the images they were made of, [N, ...].

        The latter are the latents of the images as the generator draws them.
        """
        drawn = self._encoded(self.drawn.clamp(0, 1), self.all_places)
        return self._encoded(moved, self.all_places).free - drawn.free

    def along(self, direction: Direction, at: np.ndarray, amount: float) -> Tensor:
        """Return the images at `at` [B], moved by `amount` of a direction.

        Args:
            direction: to move along.
            at: places of the images.
            amount: from -1 to 1.
        """
        return self._moved(at, amount * direction.free)

    def elsewhere(self, direction: Direction, at: np.ndarray, amount: float) -> Tensor:
        """Return the images at `at` [B], each moved in a random direction of its own.

        Args:
            direction: which the random ones are as long as.
            at: places of the images.
            amount: from -1 to 1.
        """
        noise = []
        for row in at:
            noise.append(normal(list(direction.free.shape), row_seed(0, self.ids[row], "direction")))
        drawn = torch.stack(noise)
        length = drawn.flatten(1).norm(dim=1).view(-1, *[1] * direction.free.ndim)
        return self._moved(at, amount * (direction.free.norm() * drawn / length).to(self.images.device))

    def _moved(self, at: np.ndarray, shift: Tensor) -> Tensor:
        places = torch.from_numpy(at).to(self.images.device)
        decoded = self._decoded(self.latents.free[places] + shift, at)
        return (self.images[places] + decoded - self.drawn[places]).clamp(0, 1)

    def changes(self, directions: Sequence[Direction], attributes: Sequence[Attribute]) -> list[Change]:
        """Return a change for each direction, worded by the attributes that change most along it.

        How much they do is measured as a share of their own largest change.
        """
        before, largest = {}, {}
        for attribute in attributes:
            changed = torch.cat([attribute.change(batch, 1.0) for batch in self.images.split(_BATCH)])
            before[attribute] = measured(attribute, self.images).mean()
            largest[attribute] = measured(attribute, changed).mean() - before[attribute]
        changes = []
        for number, direction in enumerate(directions, start=1):
            moved = self.along(direction, self.all_places, 1.0)
            shares = []
            for attribute, whole in largest.items():
                change = measured(attribute, moved).mean() - before[attribute]
                if abs(whole) > _NO_CHANGE and abs(change / whole) >= _CLEAR:
                    words = attribute.more if change > 0 else attribute.less
                    shares.append((abs(change / whole), words))
            strongest = sorted(shares, reverse=True)[:_NAMED]
            changes.append(self._change(f"direction {number}", direction, [words for _, words in strongest]))
        return changes

    def _change(self, name: str, direction: Direction, attribute_words: Sequence[str]) -> Change:
        """Return the change along a direction, which the words of its attributes describe."""

        def move(images: Tensor, at: np.ndarray, amount: float) -> Tensor:
            return self.along(direction, at, amount)

        def move_otherwise(images: Tensor, at: np.ndarray, amount: float) -> Tensor:
            return self.elsewhere(direction, at, amount)

        words = f"images moved as {direction.failures} failures were"
        if attribute_words:
            words += f" ({' and '.join(attribute_words)})"
        return Change(name, {1: words}, move, move_otherwise)


def failure_directions(failures: Tensor, others: Tensor) -> list[Direction]:
    """Return what clusters of fooling shifts have in common that other shifts lack, the largest cluster first.

    The list is empty if there are too few shifts.

    Args:
        failures: shifts by which the classifier was fooled, [N, ...].
        others: shifts by which it was not, [M, ...].
    """
    clusters = min(_MOST_DIRECTIONS, len(failures) // (2 * _FEWEST_FAILURES))
    if not clusters or len(others) < _FEWEST_FAILURES:
        return []
    lengths = failures.flatten(1).norm(dim=1)
    units = failures.flatten(1) / lengths.clamp(min=1e-12)[:, None]
    from sklearn.cluster import KMeans  # a second's import, which a gate does without

    assigned = KMeans(clusters, n_init=4, random_state=0).fit_predict(units.cpu().numpy())
    directions = []
    for number in range(clusters):
        members = torch.from_numpy(assigned == number).to(failures.device)
        if members.sum() < _FEWEST_FAILURES:
            continue
        cluster = failures[members]
        difference = cluster.mean(0) - others.mean(0)
        deviation = (cluster.var(0) / len(cluster) + others.var(0) / len(others)).sqrt()
        common = torch.where(difference.abs() >= _SURE * deviation, difference, 0)
        length = common.norm()
        if length > 0:
            directions.append(Direction(common * (lengths[members].median() / length), len(cluster)))
    return sorted(directions, key=lambda direction: -direction.failures)
