"""Training with perturbed copies (App. G), and networks that see no colours (App. H)."""

from types import SimpleNamespace

import pytest
import torch
from stored import rows
from torch.nn.functional import cross_entropy

from fmrgen.apps.training.loop import train
from fmrgen.apps.training.objectives.consistency import Config as ConsistencyConfig
from fmrgen.apps.training.perturbed import PerturbedCopies
from fmrgen.apps.training.recipe import load_train_recipe
from fmrgen.classifiers.base import Classifier
from fmrgen.classifiers.lenet import Config as LenetConfig
from fmrgen.errors import UserError
from fmrgen.image_files import open_rgb
from fmrgen.recipe.job import load_recipe, parse_classifier


def test_each_image_has_its_own_copy_and_an_invalid_one_itself(finished_split):
    copies = PerturbedCopies(f"{finished_split}:mnist/lenet", 32)
    stored = rows(finished_split)
    valid, invalid = ([i for i, row in stored.items() if row["valid"] is kind] for kind in (True, False))
    ids = torch.tensor([valid[3], invalid[0], valid[0], 10**6])
    images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 32, 32)
    found = copies.of(ids, images)
    for place, number in ((0, valid[3]), (2, valid[0])):
        pixels = torch.tensor(list(open_rgb(stored[number]["image"]["bytes"]).tobytes()), dtype=torch.uint8)
        assert torch.equal(found[place].permute(1, 2, 0).flatten(), pixels)
    assert torch.equal(found[1], images[1])
    assert torch.equal(found[3], images[3])


@pytest.mark.parametrize("weight", [0.5, 0])
def test_the_loss_is_that_of_both_and_of_their_distance(weight):
    config = ConsistencyConfig(classifier=LenetConfig(), image_size=32, weight=weight, label_smoothing=0)
    objective = config.objective(torch.device("cpu"), load_recipe("mnist-lenet").source.build().labels)
    objective.network.load_state_dict(
        LenetConfig(checkpoint="asset:mnist/lenet/model.safetensors").build().state_dict()
    )
    objective.processes = SimpleNamespace(size=1)
    images, copies = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0)).unbind(0)
    labels = torch.tensor([1, 2, 3])
    one, other = objective.network(images), objective.network(copies)
    expected = cross_entropy(one, labels) + cross_entropy(other, labels) + weight * (one - other).square().sum()
    torch.testing.assert_close(objective.loss_of_pair(images, copies, labels, 0.0), expected)


def test_a_run_with_copies_trains_and_loads(tmp_path, finished_split):
    changes = ["source.split=test", "source.limit=120", "test.limit=20", "schedule.steps=8", "schedule.batch_size=16"]
    changes += ["model={kind: consistency, classifier: {kind: lenet}, image_size: 32}"]
    changes += [f"copies={finished_split}:mnist/lenet"]
    train(load_train_recipe("train/mnist-lenet", changes), tmp_path / "own")
    assert parse_classifier(str(tmp_path / "own"))[1].build()(torch.rand(1, 3, 32, 32)).shape == (1, 10)
    with pytest.raises(UserError, match="nowhere"):
        train(load_train_recipe("train/mnist-lenet", [*changes, "copies=nowhere"]), tmp_path / "other")


def test_a_gray_network_sees_no_colours():
    red, green = torch.zeros(2, 1, 3, 32, 32).unbind(0)
    red[:, 0], green[:, 1] = 0.587, 0.299  # of one brightness
    gray = Classifier(torch.nn.Flatten(), lambda images: images, channels="gray")
    torch.testing.assert_close(gray(red), gray(green))
    colours = LenetConfig(checkpoint="asset:mnist/lenet/model.safetensors")
    without = LenetConfig(checkpoint="asset:mnist/lenet/model.safetensors", channels="gray")
    digits = torch.rand(2, 1, 32, 32).expand(2, 3, 32, 32)
    torch.testing.assert_close(without.build()(digits), colours.build()(digits))
    assert not torch.allclose(without.build()(red), colours.build()(red))
    recipe = load_recipe("mnist-lenet")
    assert load_recipe("mnist-lenet", ["classifier.channels=rgb"]).fingerprint == recipe.fingerprint
    assert load_recipe("mnist-lenet", ["classifier.channels=gray"]).fingerprint != recipe.fingerprint
