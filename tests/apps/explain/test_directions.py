"""Directions of failures: what they share is found, moved along and confirmed; where they share nothing, none is."""

import numpy as np
import pytest
import torch
from fakes import Identity
from small_models import SIZE, smooth_images

from fmrgen.apps.explain.attributes import Brightness, Colour, Slant
from fmrgen.apps.explain.directions import Direction, GeneratedMoves, failure_directions
from fmrgen.apps.explain.interventions import Originals, confirmed
from fmrgen.engine.interfaces import Latents

NUMBERS = 48


def shifts(count, seed, along=None):
    """Of latents of which every number moves by chance, and some `along` one way."""
    noise = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return noise if along is None else noise + along


def spike(*places):
    common = torch.zeros(NUMBERS)
    common[list(places)] = 4.0
    return common.view(3, 4, 4)


def test_what_clusters_have_in_common_is_found():
    one, other = spike(0, 1, 2), spike(30, 31)
    found = failure_directions(torch.cat([shifts(30, 0, one), shifts(12, 1, other)]), shifts(40, 2))
    assert [direction.failures for direction in found] == [30, 12]
    for direction, planted in zip(found, (one, other), strict=True):
        free = direction.free
        assert torch.cosine_similarity(free.flatten(), planted.flatten(), dim=0) > 0.9
        assert 7 < free.norm() < 12  # as the shifts are long


def test_what_others_share_too_is_no_direction_of_failures():
    everywhere = spike(5, 6, 7)
    found = failure_directions(shifts(40, 3, everywhere + spike(20)), shifts(40, 4, everywhere))
    assert found
    for direction in found:
        assert direction.free.flatten()[20] > 3 * direction.free.flatten()[5:8].abs().max()


@pytest.mark.parametrize(("failures", "others"), [(19, 40), (0, 40), (40, 9)])
def test_too_few_show_no_direction(failures, others):
    assert failure_directions(shifts(failures, 0, spike(0)), shifts(others, 1)) == []


class Halved(Identity):
    """Draws images half as bright, and remembers the labels that it was told."""

    def encode(self, images, labels):
        self.seen = labels
        return Latents(images.clone(), labels[:, None].float())

    def decode(self, latents):
        assert len(latents.fixed) == len(latents.free)
        return 0.5 * latents.free


@pytest.fixture
def moves():
    images = 0.2 + 0.5 * smooth_images(40).float()
    return GeneratedMoves(Halved(), images, np.arange(40) % 3, range(40))


def brighter(by):
    return Direction(torch.full((3, SIZE, SIZE), by), 12)


def test_an_image_moves_by_what_the_generator_makes_of_it(moves):
    at = np.array([7, 3])
    torch.testing.assert_close(moves.along(brighter(0.2), at, 0.5), moves.images[at] + 0.05)
    torch.testing.assert_close(moves.along(brighter(0.2), at, 0.0), moves.images[at])
    assert moves.generator.seen.tolist() == (np.arange(40) % 3).tolist()
    shifted = moves.shifts(0.5 * moves.images + 0.1)
    torch.testing.assert_close(shifted, torch.full_like(shifted, 0.1))


def test_the_control_is_as_long_in_the_latent_and_another_for_each(moves):
    at = np.arange(10)
    changes = 2 * (moves.elsewhere(brighter(0.05), at, 1.0) - moves.images[:10])
    torch.testing.assert_close(changes.flatten(1).norm(dim=1), brighter(0.05).free.norm().expand(10), rtol=1e-3, atol=0)
    assert torch.corrcoef(changes.flatten(1)).triu(1).abs().max() < 0.3
    torch.testing.assert_close(
        moves.elsewhere(brighter(0.05), at[3:4], 1.0), moves.elsewhere(brighter(0.05), at, 1.0)[3:4]
    )


def test_it_is_tried_like_an_attribute_and_named_by_what_moves(moves):
    """A classifier that errs on bright images: brightness is named, and slant and colour, which stay, are not."""
    limit = moves.images.flatten(1).mean(1) + 0.06
    labels = np.zeros(40, dtype=int)

    def answers(images, at):
        return (images.flatten(1).mean(1) > limit[torch.from_numpy(at)]).numpy().astype(int)

    of = Originals(moves.images, range(40), labels, answers, lambda images, at: np.ones(len(images), dtype=bool))
    _, change = moves.changes([brighter(0.1), brighter(0.2)], [Slant(), Brightness(), Colour()])
    (trial,) = of.try_out(change)
    assert (change.name, trial.hypothesis.words) == (
        "direction 2",
        "images moved as 12 failures were (brighter images)",
    )
    assert confirmed([trial]) == [trial]
    assert [(trial.moved[way].answers != labels).mean() for way in ("along", "against", "otherwise")] == [1, 0, 0]
