"""Published checkpoints: every layout of them, downloads that stay what they were, and the lines for what can't be."""

import os

import pytest
import timm
import torch

from fmrgen.classifiers.networks.cifar import NETWORKS, _WideResNet
from fmrgen.classifiers.zoo import MODELS, Config, Published
from fmrgen.errors import UserError
from fmrgen.recipe.job import parse_classifier


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return timm.create_model("resnet18").eval()


LAYOUTS = {
    "plain": lambda state: state,
    "state_dict, module.": lambda state: {"state_dict": prefixed(state, "module."), "epoch": 3},
    "model_state_dict": lambda state: {"model_state_dict": state, "arch": "resnet18"},
    "0. and 1.": lambda state: {"0.mean": torch.zeros(3), "0.std": torch.ones(3), **prefixed(state, "1.")},
    "Madry's": lambda state: {
        "model": {**prefixed(state, "module.model."), **prefixed(state, "module.attacker.model."), "module.normalizer.new_mean": torch.zeros(3)}
    },
    "RobustBench's": lambda state: {"state_dict": {"mu": torch.zeros(3), "sigma": torch.ones(3), **prefixed(state, "model.")}},
    "RobustBench's, normalised": lambda state: {"normalize.mean": torch.zeros(3), **prefixed(state, "model.")},
}  # fmt: skip


def prefixed(state, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_loads(tmp_path, monkeypatch, network, layout):
    monkeypatch.setitem(MODELS, "small", Published("small.pth.tar", None, "MIT", network="resnet18"))
    torch.save(LAYOUTS[layout](network.state_dict()), tmp_path / "small.pth.tar")
    classifier = Config(model="small", folder=str(tmp_path)).build()
    images = torch.rand(2, 3, 224, 224)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        torch.testing.assert_close(classifier.network((images - mean) / std), network((images - mean) / std))
        assert classifier(torch.rand(1, 3, 256, 256)).shape == (1, 1000)
    assert len(classifier.class_names) == 1000


def test_names_that_only_look_so_are_left_alone(tmp_path):
    """A network may keep all it has in `model`, or be a chain whose first link has no weights."""
    from fmrgen.weights.checkpoint import load_checkpoint

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = torch.nn.Linear(2, 2)

    for network in (Own(), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2))):
        torch.save(network.state_dict(), tmp_path / "own.pt")
        load_checkpoint(network, str(tmp_path / "own.pt"))


@pytest.mark.parametrize("name", MODELS)
def test_networks_of_the_zoo_are_those_of_their_papers(name):
    published = MODELS[name]
    sizes = {
        "resnet50": (320, 25_557_032),
        "xcit_large_24_p16_224": (391, 103_792_648),
        "wide_resnet28_10": (155, 36_479_194),
        "wide_resnet34_10": (191, 46_160_474),
    }
    with torch.device("meta"):
        if published.is_cifar:
            network = NETWORKS[published.network](10)
        else:
            network = timm.create_model(published.network, pretrained=False, **published.arguments)
    if published.network in sizes and (published.is_cifar == published.network.startswith("wide")):
        entries, parameters = sizes[published.network]
        assert len(network.state_dict()) == entries
        assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert published.licence
    assert published.address or published.found_at


def test_a_network_of_cifar_10_is_given_what_it_uses(tmp_path, monkeypatch):
    """RobustBench's wide networks have a second first block, which nothing goes through."""
    published = MODELS["cifar10-hendrycks2019"]
    monkeypatch.setitem(NETWORKS, published.network, lambda classes: _WideResNet(10, 1, classes))
    network = NETWORKS[published.network](10).eval()
    state = prefixed(network.state_dict(), "module.")
    unused = {name.replace("block1", "sub_block1"): tensor for name, tensor in state.items() if "block1" in name}
    torch.save({"state_dict": {**state, **unused}}, tmp_path / published.file)
    classifier = Config(model="cifar10-hendrycks2019", folder=str(tmp_path)).build()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(classifier(images), network(2 * images - 1))
    assert classifier.class_names[:3] == ["airplane", "automobile", "bird"]


def test_a_short_form(tmp_path):
    assert parse_classifier("zoo:augmix")[1] == Config(model="augmix")
    with pytest.raises(UserError, match="no model augmax; choose from sin, ant, ant-sin, augmix"):
        parse_classifier("zoo:augmax")


class Run:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_mistakes_are_one_line(tmp_path, monkeypatch, network):
    monkeypatch.setitem(MODELS, "small", Published("small.pth", None, "MIT", "example.org/small", network="resnet18"))
    torch.save({"state_dict": network.state_dict(), "run": Run(str(tmp_path / "made"))}, tmp_path / "small.pth")
    for section, message in (
        (Config(model="small"), "small has to be downloaded by hand: small.pth from example.org/small; then name its"),
        (Config(model="small", folder=str(tmp_path / "x")), "classifier.folder: "),
        (Config(model="small", folder=str(tmp_path)), "holds more than tensors, and nothing in it is run"),
    ):
        with pytest.raises(UserError) as caught:
            section.build()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "made").exists()
