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
_MOST = 4  # directions
_FEWEST = 10  # failures of a direction
_SURE = 2.0  # standard deviations by which a number of the latent is moved another way where the classifier is fooled
_CLEAR = 0.25  # share of an attribute's largest change that is named
_NOTHING = 1e-4  # a change of grey images' colours
_NAMED = 2  # attributes of a direction


@dataclass(frozen=True)
class Direction:
    """What the ways of some latents have in common, `free` [...]; as long as half of them are at most."""

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
        self.every = np.arange(len(images))
        self.latents = self._encoded(images, self.every)
        self.drawn = self._decoded(self.latents.free, self.every)

    @torch.no_grad()
    def _encoded(self, images: Tensor, at: np.ndarray) -> Latents:
        places, parts = torch.from_numpy(at).to(images.device), []
        for part, of in zip(images.split(_BATCH), places.split(_BATCH), strict=True):
            self.generator.row_seeds = [row_seed(0, self.ids[place]) for place in of.tolist()]
            parts.append(self.generator.encode(part, self.labels[of]))
        free, fixed = zip(*parts, strict=True)
        return Latents(torch.cat(free).float(), None if fixed[0] is None else torch.cat(fixed))

    @torch.no_grad()
    def _decoded(self, free: Tensor, at: np.ndarray) -> Tensor:
        """The images of latents that are those at `at` [B], `free` [B, ...] moved."""
        fixed, places = self.latents.fixed, torch.from_numpy(at).to(free.device)
        made = [
            self.generator.decode(Latents(part, None if fixed is None else fixed[of]))
            for part, of in zip(free.split(_BATCH), places.split(_BATCH), strict=True)
        ]
        return torch.cat(made).float()

    def shifts(self, moved: Tensor) -> Tensor:
        """How far the latents of `moved` [N, 3, H, W], made of the images, are from those of the images as the
        generator draws them, [N, ...]."""
        return self._encoded(moved, self.every).free - self._encoded(self.drawn.clamp(0, 1), self.every).free

    def along(self, direction: Direction, at: np.ndarray, amount: float) -> Tensor:
        """The images at `at` [B], moved by `amount` of a direction."""
        return self._moved(at, amount * direction.free)

    def elsewhere(self, direction: Direction, at: np.ndarray, amount: float) -> Tensor:
        """Likewise, each in a random direction of its own as long as this one."""
        drawn = torch.stack([normal(list(direction.free.shape), row_seed(0, self.ids[row], "direction")) for row in at])
        long = drawn.flatten(1).norm(dim=1).view(-1, *[1] * direction.free.ndim)
        return self._moved(at, amount * (direction.free.norm() * drawn / long).to(self.images.device))

    def _moved(self, at: np.ndarray, by: Tensor) -> Tensor:
        places = torch.from_numpy(at).to(self.images.device)
        made = self._decoded(self.latents.free[places] + by, at)
        return (self.images[places] + made - self.drawn[places]).clamp(0, 1)

    def changes(self, directions: Sequence[Direction], attributes: Sequence[Attribute]) -> list[Change]:
        """What is to be tried of directions. The words of each are the attributes that change most along it, as shares
        of what their own largest change is."""
        before = {one: measured(one, self.images).mean() for one in attributes}
        largest = {
            one: measured(one, torch.cat([one.change(part, 1.0) for part in self.images.split(_BATCH)])).mean() - mean
            for one, mean in before.items()
        }
        found = []
        for number, direction in enumerate(directions, start=1):
            moved, shares = self.along(direction, self.every, 1.0), []
            for one, whole in largest.items():
                change = measured(one, moved).mean() - before[one]
                if abs(whole) > _NOTHING and abs(change / whole) >= _CLEAR:
                    shares.append((abs(change / whole), one.more if change > 0 else one.less))
            words = " and ".join(said for _, said in sorted(shares, reverse=True)[:_NAMED])
            found.append(self._change(f"direction {number}", direction, f" ({words})" if words else ""))
        return found

    def _change(self, name: str, direction: Direction, named: str) -> Change:
        return Change(
            name,
            {1: f"images moved as {direction.failures} failures were{named}"},
            lambda images, at, amount: self.along(direction, at, amount),
            lambda images, at, amount: self.elsewhere(direction, at, amount),
        )


def failure_directions(failures: Tensor, others: Tensor) -> list[Direction]:
    """What clusters of shifts by which a classifier was fooled [N, ...] have in common that those by which it was not
    [M, ...] lack, the largest cluster first; none where there are too few."""
    clusters = min(_MOST, len(failures) // (2 * _FEWEST))
    if not clusters or len(others) < _FEWEST:
        return []
    lengths = failures.flatten(1).norm(dim=1)
    units = failures.flatten(1) / lengths.clamp(min=1e-12)[:, None]
    from sklearn.cluster import KMeans  # a second's import, which a gate does without

    of_cluster = KMeans(clusters, n_init=4, random_state=0).fit_predict(units.cpu().numpy())
    found = []
    for number in range(clusters):
        members = torch.from_numpy(of_cluster == number).to(failures.device)
        if members.sum() < _FEWEST:
            continue
        cluster = failures[members]
        apart = cluster.mean(0) - others.mean(0)
        deviation = (cluster.var(0) / len(cluster) + others.var(0) / len(others)).sqrt()
        common = torch.where(apart.abs() >= _SURE * deviation, apart, 0)
        if (length := common.norm()) > 0:
            found.append(Direction(common * (lengths[members].median() / length), len(cluster)))
    return sorted(found, key=lambda one: -one.failures)
