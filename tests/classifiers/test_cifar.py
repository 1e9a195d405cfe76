"""The CIFAR networks against pytorch-cifar's, written here as plain functions of its tensors' names."""

import hashlib
from functools import partial

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from fmrgen.classifiers.cifar import Config
from fmrgen.classifiers.networks.cifar import NETWORKS, _WideResNet
from fmrgen.errors import UserError


class Literal:
    """Runs a network on tensors drawn as their names are first used: so the state dict comes to be in the order in
    which pytorch-cifar registers, if the network below asks in that order."""

    def __init__(self):
        self.state, self.drawn = {}, torch.Generator().manual_seed(0)

    def _draw(self, name, shape, scale=1.0, shift=0.0):
        if name not in self.state:
            self.state[name] = torch.randn(shape, generator=self.drawn) * scale + shift
        return self.state[name]

    def conv(self, x, name, outputs, kernel=1, stride=1, bias=False, groups=1):
        inputs = x.shape[1] // groups
        weight = self._draw(f"{name}.weight", (outputs, inputs, kernel, kernel), (inputs * kernel**2) ** -0.5)
        shift = self._draw(f"{name}.bias", (outputs,), 0.1) if bias else None
        return F.conv2d(x, weight, shift, stride, kernel // 2, groups=groups)

    def norm(self, x, name):
        width = (x.shape[1],)
        weight = self._draw(f"{name}.weight", width, 0.1, 1.0)
        bias, mean = self._draw(f"{name}.bias", width, 0.1), self._draw(f"{name}.running_mean", width, 0.1)
        variance = self.state.setdefault(f"{name}.running_var", torch.rand(width, generator=self.drawn) + 0.5)
        self.state.setdefault(f"{name}.num_batches_tracked", torch.tensor(1))
        return F.batch_norm(x, mean, variance, weight, bias)

    def linear(self, x, name="linear"):
        weight = self._draw(f"{name}.weight", (10, x.shape[1]), x.shape[1] ** -0.5)
        return F.linear(x, weight, self._draw(f"{name}.bias", (10,), 0.1))

    def normed(self, x, conv, norm, outputs, *args, **options):
        return self.norm(self.conv(x, conv, outputs, *args, **options), norm)


def pooled(x):
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def resnet18(net, x):
    x = F.relu(net.normed(x, "conv1", "bn1", 64, 3))
    for layer, width in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            place, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = F.relu(net.normed(x, f"{place}.conv1", f"{place}.bn1", width, 3, stride))
            y = net.normed(y, f"{place}.conv2", f"{place}.bn2", width, 3)
            if stride != 1:
                x = net.normed(x, f"{place}.shortcut.0", f"{place}.shortcut.1", width, 1, stride)
            x = F.relu(y + x)
    return net.linear(pooled(x))


def resnet50(net, x):
    x = F.relu(net.normed(x, "conv1", "bn1", 64, 3))
    for layer, (width, blocks) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True), 1):
        for block in range(blocks):
            place, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = F.relu(net.normed(x, f"{place}.conv1", f"{place}.bn1", width))
            y = F.relu(net.normed(y, f"{place}.conv2", f"{place}.bn2", width, 3, stride))
            y = net.normed(y, f"{place}.conv3", f"{place}.bn3", 4 * width)
            if block == 0:
                x = net.normed(x, f"{place}.shortcut.0", f"{place}.shortcut.1", 4 * width, 1, stride)
            x = F.relu(y + x)
    return net.linear(pooled(x))


def preactresnet18(net, x):
    x = net.conv(x, "conv1", 64, 3)
    for layer, width in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            place, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            active = F.relu(net.norm(x, f"{place}.bn1"))
            y = net.conv(active, f"{place}.conv1", width, 3, stride)
            y = net.conv(F.relu(net.norm(y, f"{place}.bn2")), f"{place}.conv2", width, 3)
            changes = stride != 1 or x.shape[1] != width
            x = y + (net.conv(active, f"{place}.shortcut.0", width, 1, stride) if changes else x)
    return net.linear(pooled(x))


def vgg19(net, x):
    place = 0
    for width, repeats in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(repeats):
            x = F.relu(net.normed(x, f"features.{place}", f"features.{place + 1}", width, 3, bias=True))
            place += 3
        x, place = F.max_pool2d(x, 2), place + 1
    return net.linear(x.flatten(1), "classifier")


def densenet121(net, x):
    x = net.conv(x, "conv1", 64, 3)
    for block, layers in enumerate((6, 12, 24, 16), 1):
        for layer in range(layers):
            place = f"dense{block}.{layer}"
            y = net.conv(F.relu(net.norm(x, f"{place}.bn1")), f"{place}.conv1", 128)
            y = net.conv(F.relu(net.norm(y, f"{place}.bn2")), f"{place}.conv2", 32, 3)
            x = torch.cat([y, x], 1)
        if block < 4:
            x = net.conv(F.relu(net.norm(x, f"trans{block}.bn")), f"trans{block}.conv", x.shape[1] // 2)
            x = F.avg_pool2d(x, 2)
    return net.linear(pooled(F.relu(net.norm(x, "bn"))))


def mobilenet(net, x):
    x = F.relu(net.normed(x, "conv1", "bn1", 32, 3))
    widths = (64, (128, 2), 128, (256, 2), 256, (512, 2), 512, 512, 512, 512, 512, (1024, 2), 1024)
    for layer, told in enumerate(widths):
        width, stride = told if isinstance(told, tuple) else (told, 1)
        place = f"layers.{layer}"
        x = F.relu(net.normed(x, f"{place}.conv1", f"{place}.bn1", x.shape[1], 3, stride, groups=x.shape[1]))
        x = F.relu(net.normed(x, f"{place}.conv2", f"{place}.bn2", width))
    return net.linear(pooled(x))


def efficientnet_b0(net, x):
    """As it is today: squeeze-and-excitation by the width of the block's input, and no shortcut that changes shape."""
    x = F.silu(net.normed(x, "conv1", "bn1", 32, 3))
    layer = 0
    for expansion, width, repeats, kernel, stride in (
        (1, 16, 1, 3, 1), (6, 24, 2, 3, 2), (6, 40, 2, 5, 2), (6, 80, 3, 3, 2), (6, 112, 3, 5, 1), (6, 192, 4, 5, 2), (6, 320, 1, 3, 1),
    ):  # fmt: skip
        for repeat in range(repeats):
            place, step, inputs = f"layers.{layer}", stride if repeat == 0 else 1, x.shape[1]
            expanded = F.silu(net.normed(x, f"{place}.conv1", f"{place}.bn1", expansion * inputs))
            y = x if expansion == 1 else expanded  # the weights of the first one are there, and not used
            y = F.silu(net.normed(y, f"{place}.conv2", f"{place}.bn2", y.shape[1], kernel, step, groups=y.shape[1]))
            gate = F.silu(net.conv(F.adaptive_avg_pool2d(y, 1), f"{place}.se.se1", inputs // 4, bias=True))
            y = y * net.conv(gate, f"{place}.se.se2", y.shape[1], bias=True).sigmoid()
            y = net.normed(y, f"{place}.conv3", f"{place}.bn3", width)
            x = y + x if step == 1 and inputs == width else y
            layer += 1
    return net.linear(pooled(x))


# What each has in pytorch-cifar: parameters, and entries of its state dict.
LITERAL = {
    resnet18: (11_173_962, 122),
    resnet50: (23_520_842, 320),
    preactresnet18: (11_171_146, 102),
    vgg19: (20_040_522, 114),
    densenet121: (6_956_298, 722),
    mobilenet: (3_217_226, 164),
    efficientnet_b0: (3_599_686, 360),
}
IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("literal", LITERAL)
def test_weights_of_pytorch_cifar_load_and_say_what_they_said_there(tmp_path, literal):
    net = Literal()
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2023, 0.1994, 0.2010])
    expected = literal(net, (IMAGES - mean.view(-1, 1, 1)) / std.view(-1, 1, 1))
    learned = [tensor for key, tensor in net.state.items() if not key.endswith(("mean", "var", "tracked"))]
    assert (sum(tensor.numel() for tensor in learned), len(net.state)) == LITERAL[literal]
    state = {f"module.{key}": tensor for key, tensor in net.state.items()}
    torch.save({"net": state, "acc": 95.4}, tmp_path / "own.pth")
    section = Config(model=literal.__name__, checkpoint=str(tmp_path / "own.pth"), std=std.tolist())
    with torch.no_grad():
        found = section.build()(IMAGES)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert found.std() > 0.1


# Networks that fmrgen defines itself, as pytorch-cifar or RobustBench do: a digest of the names and shapes in their
# state dict, and the first logits of the first image where the weights are drawn as below.
OWN = {
    "googlenet": (NETWORKS["googlenet"], "ad7764611165a264", (-0.0298, 0.3009, 0.0571)),
    "simpledla": (NETWORKS["simpledla"], "f312e889898aad10", (0.1140, 0.3278, -0.1438)),
    "wide": (partial(_WideResNet, 10, 2), "98c6e5ac69f38ab9", (0.1025, -0.1163, -0.1150)),
}


@pytest.mark.parametrize("name", OWN)
def test_networks_of_our_own_are_what_they_were(name):
    make, names, logits = OWN[name]
    network = make(10).eval()
    state, random = network.state_dict(), torch.Generator().manual_seed(0)
    listed = "\n".join(f"{key} {tuple(values.shape)}" for key, values in state.items())
    assert hashlib.sha256(listed.encode()).hexdigest()[:16] == names
    for key, values in state.items():
        if values.ndim > 1:
            values.copy_(torch.randn(values.shape, generator=random) * values[0].numel() ** -0.5)
        elif key.endswith(("weight", "var")):
            values.copy_(torch.rand(values.shape, generator=random) + 0.5)
        else:
            values.copy_(torch.randn(values.shape, generator=random) * 0.1)
    with torch.no_grad():
        torch.testing.assert_close(network(IMAGES)[0, :3], torch.tensor(logits), atol=2e-4, rtol=1e-3)


def test_the_small_vgg_comes_back_from_its_weights(tmp_path):
    network = NETWORKS["vgg7"](43)
    assert sum(weights.numel() for weights in network.parameters()) == 83_355
    save_file(network.state_dict(), tmp_path / "own.safetensors")
    plain = {"mean": [0] * 3, "std": [1] * 3}
    section = Config(model="vgg7", num_classes=43, checkpoint=str(tmp_path / "own.safetensors"), **plain)
    torch.testing.assert_close(section.build()(IMAGES), network.eval()(IMAGES))


def test_weights_of_another_network_are_one_line(tmp_path):
    save_file(NETWORKS["mobilenet"](10).state_dict(), tmp_path / "own.safetensors")
    with pytest.raises(UserError, match="not weights of this model") as caught:
        Config(model="resnet18", checkpoint=str(tmp_path / "own.safetensors")).build()
    assert "\n" not in str(caught.value)
