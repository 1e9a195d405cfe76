"""Attacks are foolbox's to the letter, and their short forms."""

import pytest
import torch
from small_models import LABELS, SIZE, tiny_network

from fmrgen.engine.attacks import Attack, attack_of_short_form
from fmrgen.errors import UserError

foolbox = pytest.importorskip("foolbox")


@pytest.fixture(scope="module")
def network():
    return tiny_network(1).eval()


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6, 3, SIZE, SIZE, generator=generator)
    return images, torch.randint(LABELS, (6,), generator=generator)


LINF = Attack(8 / 255, 10, 2 / 255), lambda: foolbox.attacks.LinfPGD(abs_stepsize=2 / 255, steps=10, random_start=False)
L2 = Attack(0.7, 10, 0.2, is_l2=True), lambda: foolbox.attacks.L2PGD(abs_stepsize=0.2, steps=10, random_start=False)


@pytest.mark.parametrize(
    ("attack", "theirs", "is_targeted"),
    [
        (Attack(8 / 255, 1, 8 / 255), lambda: foolbox.attacks.FGSM(), False),
        (Attack(0.5, 1, 0.5, is_l2=True), lambda: foolbox.attacks.FGM(), False),
        *((*pair, is_targeted) for pair in (LINF, L2) for is_targeted in (False, True)),
    ],
)
def test_they_are_foolboxes(network, batch, attack, theirs, is_targeted):
    images, labels = batch
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    criterion = (foolbox.criteria.TargetedMisclassification if is_targeted else foolbox.criteria.Misclassification)(
        labels
    )
    expected, _, _ = theirs()(model, images, criterion, epsilons=attack.epsilon)
    found = attack(network, images, labels, is_targeted=is_targeted)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert (found - images).abs().max() > 1e-3


@pytest.mark.parametrize("is_l2", [False, True])
def test_a_random_start_is_in_the_ball_and_each_rows_own(network, batch, is_l2):
    images, labels = batch
    start = Attack(0.1, 0, is_l2=is_l2, random_start=True)
    found = start(network, images, labels, row_seeds=range(6)) - images
    lengths = found.flatten(1).norm(dim=1) if is_l2 else found.flatten(1).abs().amax(1)
    assert bool((lengths <= 0.1 + 1e-6).all())
    assert bool((lengths > 0.05).all())
    alone = start(network, images[3:4], labels[3:4], row_seeds=[3]) - images[3:4]
    assert torch.equal(alone, found[3:4])
    assert not torch.equal(start(network, images, labels), start(network, images, labels))


def test_short_forms():
    assert attack_of_short_form("fgsm@8/255") == Attack(8 / 255, 1, 8 / 255)
    assert attack_of_short_form("pgd-20@4/255") == Attack(4 / 255, 20, 2.5 * 4 / 255 / 20, random_start=True)
    assert attack_of_short_form("pgd-10-l2@.5") == Attack(0.5, 10, 0.125, is_l2=True, random_start=True)
    for wrong in ("pgd", "pgd-20", "pgd-0@8/255", "fgsm@8/0", "cw@1", "pgd-20@8/255/3", "pgd-20@8", "fgsm@0"):
        with pytest.raises(UserError, match=f"^{wrong}: "):
            attack_of_short_form(wrong)
