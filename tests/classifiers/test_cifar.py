"""The CIFAR networks against pytorch-cifar's, written here as plain functions of its tensors' names."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from fmrgen.classifiers.cifar import Config
from fmrgen.classifiers.networks.cifar import NETWORKS
from fmrgen.errors import UserError

PARAMETERS = {
    "resnet18": 11_173_962,
    "resnet50": 23_520_842,
    "preactresnet18": 11_171_146,
    "vgg19": 20_040_522,
    "googlenet": 6_166_250,
    "densenet121": 6_956_298,
    "mobilenet": 3_217_226,
    "efficientnet_b0": 3_599_686,
    "simpledla": 15_142_970,
    "wide_resnet28_10": 36_479_194,
    "wide_resnet34_10": 46_160_474,
}
ENTRIES = dict(zip(PARAMETERS, (122, 320, 102, 114, 450, 722, 164, 360, 236, 155, 191), strict=True))


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


def basic(net, x, place, width, stride):
    y = F.relu(net.normed(x, f"{place}.conv1", f"{place}.bn1", width, 3, stride))
    y = net.normed(y, f"{place}.conv2", f"{place}.bn2", width, 3)
    if stride != 1 or x.shape[1] != width:
        x = net.normed(x, f"{place}.shortcut.0", f"{place}.shortcut.1", width, 1, stride)
    return F.relu(y + x)


def resnet18(net, x):
    x = F.relu(net.normed(x, "conv1", "bn1", 64, 3))
    for layer, width in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            x = basic(net, x, f"layer{layer}.{block}", width, 2 if layer > 1 and block == 0 else 1)
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


def wide(net, x, depth):
    x = net.conv(x, "conv1", 16, 3)
    for group, width in enumerate((160, 320, 640), 1):
        for block in range((depth - 4) // 6):
            place, stride = f"block{group}.layer.{block}", 2 if group > 1 and block == 0 else 1
            active = F.relu(net.norm(x, f"{place}.bn1"))
            y = net.conv(active, f"{place}.conv1", width, 3, stride)
            y = net.conv(F.relu(net.norm(y, f"{place}.bn2")), f"{place}.conv2", width, 3)
            x = y + (net.conv(active, f"{place}.convShortcut", width, 1, stride) if block == 0 else x)
    return net.linear(F.relu(net.norm(x, "bn1")).mean((2, 3)), "fc")


def wide_resnet28_10(net, x):
    return wide(net, x, 28)


def wide_resnet34_10(net, x):
    return wide(net, x, 34)


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


def inception(net, x, place, one, three, five, pool):
    def step(x, branch, index, width, kernel=1):
        name = f"{place}.{branch}"
        return F.relu(net.normed(x, f"{name}.{index}", f"{name}.{index + 1}", width, kernel, bias=True))

    first = step(x, "b1", 0, one)
    second = step(step(x, "b2", 0, three[0]), "b2", 3, three[1], 3)
    third = step(step(step(x, "b3", 0, five[0]), "b3", 3, five[1], 3), "b3", 6, five[1], 3)
    return torch.cat([first, second, third, step(F.max_pool2d(x, 3, 1, 1), "b4", 1, pool)], 1)


def googlenet(net, x):
    x = F.relu(net.normed(x, "pre_layers.0", "pre_layers.1", 192, 3, bias=True))
    x = inception(net, x, "a3", 64, (96, 128), (16, 32), 32)
    x = F.max_pool2d(inception(net, x, "b3", 128, (128, 192), (32, 96), 64), 3, 2, 1)
    x = inception(net, x, "a4", 192, (96, 208), (16, 48), 64)
    x = inception(net, x, "b4", 160, (112, 224), (24, 64), 64)
    x = inception(net, x, "c4", 128, (128, 256), (24, 64), 64)
    x = inception(net, x, "d4", 112, (144, 288), (32, 64), 64)
    x = F.max_pool2d(inception(net, x, "e4", 256, (160, 320), (32, 128), 128), 3, 2, 1)
    x = inception(net, x, "a5", 256, (160, 320), (32, 128), 128)
    return net.linear(pooled(inception(net, x, "b5", 384, (192, 384), (48, 128), 128)))


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


def tree(net, x, place, width, levels, stride):
    """Its root is registered before its halves, and used after them."""
    for part in ("conv.weight", "bn"):
        if part == "bn":
            net.norm(torch.zeros(1, width, 1, 1), f"{place}.root.bn")
        else:
            net.conv(torch.zeros(1, 2 * width, 1, 1), f"{place}.root.conv", width)
    if levels == 1:
        left = basic(net, x, f"{place}.left_tree", width, stride)
        right = basic(net, left, f"{place}.right_tree", width, 1)
    else:
        left = tree(net, x, f"{place}.left_tree", width, levels - 1, stride)
        right = tree(net, left, f"{place}.right_tree", width, levels - 1, 1)
    return F.relu(net.normed(torch.cat([left, right], 1), f"{place}.root.conv", f"{place}.root.bn", width))


def simpledla(net, x):
    for name, width in (("base", 16), ("layer1", 16), ("layer2", 32)):
        x = F.relu(net.normed(x, f"{name}.0", f"{name}.1", width, 3))
    for layer, width, levels, stride in ((3, 64, 1, 1), (4, 128, 2, 2), (5, 256, 2, 2), (6, 512, 1, 2)):
        x = tree(net, x, f"layer{layer}", width, levels, stride)
    return net.linear(pooled(x))


LITERAL = {made.__name__: made for made in (resnet18, resnet50, wide_resnet28_10, wide_resnet34_10, preactresnet18, vgg19, googlenet, densenet121, mobilenet, efficientnet_b0, simpledla)}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_weights_of_pytorch_cifar_load_and_say_what_they_said_there(tmp_path, name):
    net = Literal()
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2023, 0.1994, 0.2010])
    normalised = (images - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    expected = LITERAL[name](net, normalised)
    learned = [tensor for key, tensor in net.state.items() if not key.endswith(("mean", "var", "tracked"))]
    assert (sum(tensor.numel() for tensor in learned), len(net.state)) == (PARAMETERS[name], ENTRIES[name])
    torch.save(
        {"net": {f"module.{key}": tensor for key, tensor in net.state.items()}, "acc": 95.4}, tmp_path / "own.pth"
    )
    section = Config(model=name, checkpoint=str(tmp_path / "own.pth"), std=std.tolist())
    with torch.no_grad():
        found = section.build()(images)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert found.std() > 0.1


def test_the_small_vgg_comes_back_from_its_weights(tmp_path):
    assert NETWORKS.keys() - PARAMETERS.keys() == {"vgg7"}
    network = NETWORKS["vgg7"](43)
    assert sum(weights.numel() for weights in network.parameters()) == 83_355
    save_file(network.state_dict(), tmp_path / "own.safetensors")
    section = Config(
        model="vgg7", num_classes=43, checkpoint=str(tmp_path / "own.safetensors"), mean=[0] * 3, std=[1] * 3
    )
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(section.build()(images), network.eval()(images))


def test_weights_of_another_network_are_one_line(tmp_path):
    save_file(NETWORKS["mobilenet"](10).state_dict(), tmp_path / "own.safetensors")
    with pytest.raises(UserError, match="not weights of this model") as caught:
        Config(model="resnet18", checkpoint=str(tmp_path / "own.safetensors")).build()
    assert "\n" not in str(caught.value)
