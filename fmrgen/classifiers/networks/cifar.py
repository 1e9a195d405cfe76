"""Networks for 32 px images: those of kuangliu/pytorch-cifar (the paper's Table 6), RobustBench's wide ones, and a
small VGG.

Where timm has an equal network, it is timm's with small edits; the others are defined here.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from itertools import groupby
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, relu

# Of DenseNet-121.
_DENSE_WIDTH = 64  # channels of the stem
_GROWTH = 32  # channels that a layer adds
_DENSE_LAYERS = (6, 12, 24, 16)  # in each block


def _resnet(name: str, classes: int) -> nn.Module:
    """Return timm's network with a stem that keeps all 32×32 pixels."""
    network = timm.create_model(name, num_classes=classes)
    network.conv1 = _stem(64)
    network.maxpool = nn.Identity()
    return network


def preactresnet18(classes: int) -> nn.Module:
    network = timm.create_model("resnetv2_18", num_classes=classes)
    network.stem = nn.Sequential()
    network.stem.conv = _stem(64)
    network.norm = nn.Identity()
    network.head.fc = nn.Conv2d(512, classes, 1)
    return network


def vgg19(classes: int) -> nn.Module:
    features = timm.create_model("vgg19_bn", num_classes=0).features
    return nn.Sequential(features, nn.Flatten(), nn.Linear(512, classes))


def vgg7(classes: int) -> nn.Module:
    """Return a small VGG: six convolutions, and 83 thousand weights for 43 classes."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (16, 32, 64):
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, classes))


def mobilenet(classes: int) -> nn.Module:
    """Return MobileNet v1."""
    network = timm.create_model("mobilenetv1_100", num_classes=classes, act_layer=nn.ReLU)
    network.conv_stem.stride = (1, 1)
    return network


def efficientnet_b0(classes: int) -> nn.Module:
    network = timm.create_model("efficientnet_b0", num_classes=classes)
    network.conv_stem.stride = (1, 1)
    network.conv_head = nn.Identity()
    network.bn2 = nn.Identity()
    network.classifier = nn.Linear(320, classes)
    return network


def densenet121(classes: int) -> nn.Module:
    network = timm.create_model("densenet121", num_classes=classes)
    network.features.conv0 = _stem(64)
    network.features.norm0 = nn.Identity()
    network.features.pool0 = nn.Identity()
    return network


def renamed(network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return a state dict of pytorch-cifar under the names of `network`, whose tensors are in the same order.

    Any other state dict is returned as it is, for its names to be checked.
    """
    network_state = network.state_dict()
    used = {name: tensor for name, tensor in state.items() if not _is_unused(name, state)}
    if network_state.keys() == used.keys():
        return used
    if len(used) != len(network_state):
        return state
    if "stages.0.blocks.0.norm1.weight" in network_state:
        used = _with_shortcuts_first(used)
    reordered = dict(zip(network_state, used.values(), strict=True))
    if "features.denseblock1.denselayer1.norm1.weight" in network_state:
        reordered = _in_timm_order(reordered)
    for name, tensor in reordered.items():
        if tensor.ndim == 2 and network_state[name].ndim == 4:  # the head of ResNetV2 is a convolution in timm
            reordered[name] = tensor[:, :, None, None]
    return reordered


def _is_unused(name: str, state: Mapping[str, Tensor]) -> bool:
    """Return whether no image passes through a tensor.

    RobustBench's wide networks have a second first block, and EfficientNet-B0 a first expansion, that are not used.
    """
    if name.startswith("sub_block1."):
        return "block1.layer.0.conv1.weight" in state
    return "layers.0.conv3.weight" in state and name.startswith(("layers.0.conv1.", "layers.0.bn1."))


def _with_shortcuts_first(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict in the order of timm's ResNetV2: the shortcut of a block comes before the rest of it."""
    ordered = {}
    for _, names in groupby(state, lambda name: name.split(".")[:2]):  # by layer and block
        for name in sorted(names, key=lambda name: "shortcut" not in name):
            ordered[name] = state[name]
    return ordered


def _in_timm_order(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return DenseNet's tensors with their channels in timm's order: new ones come last, in pytorch-cifar first."""
    orders = {}  # of the channels that come into a layer
    width = _DENSE_WIDTH
    for block, layers in enumerate(_DENSE_LAYERS, 1):
        for layer in range(layers):
            place = f"features.denseblock{block}.denselayer{layer + 1}"
            orders[f"{place}.norm1"] = orders[f"{place}.conv1"] = _timm_channels(width, layer)
        place = f"features.transition{block}"
        orders[f"{place}.norm"] = orders[f"{place}.conv"] = _timm_channels(width, layers)
        width = (width + layers * _GROWTH) // 2
    orders["features.norm5"] = orders["classifier"] = orders[f"{place}.norm"]  # there is no last transition
    reordered = dict(state)
    for name, tensor in state.items():
        layer_name = name.rpartition(".")[0]
        if layer_name in orders and tensor.ndim > 1:
            reordered[name] = tensor[:, orders[layer_name]]
        elif layer_name in orders and tensor.ndim == 1 and name != "classifier.bias":
            reordered[name] = tensor[orders[layer_name]]
    return reordered


def _timm_channels(width: int, layers: int) -> list[int]:
    """Return the place in pytorch-cifar of each of timm's channels, after so many layers have added to `width`."""
    channels = list(range(layers * _GROWTH, layers * _GROWTH + width))
    for layer in range(layers):
        start = (layers - 1 - layer) * _GROWTH
        channels += range(start, start + _GROWTH)
    return channels


def _stem(width: int) -> nn.Conv2d:
    return nn.Conv2d(3, width, 3, padding=1, bias=False)


def _normed(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, bias: bool = False) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)
    return [convolution, nn.BatchNorm2d(outputs)]


def _active(inputs: int, outputs: int, kernel: int = 1, bias: bool = False) -> list[nn.Module]:
    return [*_normed(inputs, outputs, kernel, bias=bias), nn.ReLU()]


class _Inception(nn.Module):
    """Four branches side by side: convolutions of 1, of 3 and of 5 pixels, and pooling.

    The widths are the channels of each branch; those of 3 and of 5 pixels have some before and some after.
    """

    def __init__(
        self, inputs: int, width_1: int, widths_3: tuple[int, int], widths_5: tuple[int, int], pooled: int
    ) -> None:
        super().__init__()
        self.b1 = nn.Sequential(*_active(inputs, width_1, bias=True))
        self.b2 = nn.Sequential(*_active(inputs, widths_3[0], bias=True), *_active(*widths_3, 3, bias=True))
        narrow, wide = widths_5  # two convolutions of 3 pixels see as much as one of 5
        self.b3 = nn.Sequential(
            *_active(inputs, narrow, bias=True),
            *_active(narrow, wide, 3, bias=True),
            *_active(wide, wide, 3, bias=True),
        )
        self.b4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), *_active(inputs, pooled, bias=True))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b1(x), self.b2(x), self.b3(x), self.b4(x)], 1)


class _GoogLeNet(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.pre_layers = nn.Sequential(*_active(3, 192, 3, bias=True))
        self.a3 = _Inception(192, 64, (96, 128), (16, 32), 32)
        self.b3 = _Inception(256, 128, (128, 192), (32, 96), 64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.a4 = _Inception(480, 192, (96, 208), (16, 48), 64)
        self.b4 = _Inception(512, 160, (112, 224), (24, 64), 64)
        self.c4 = _Inception(512, 128, (128, 256), (24, 64), 64)
        self.d4 = _Inception(512, 112, (144, 288), (32, 64), 64)
        self.e4 = _Inception(528, 256, (160, 320), (32, 128), 128)
        self.a5 = _Inception(832, 256, (160, 320), (32, 128), 128)
        self.b5 = _Inception(832, 384, (192, 384), (48, 128), 128)
        self.linear = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.b3(self.a3(self.pre_layers(x))))
        x = self.maxpool(self.e4(self.d4(self.c4(self.b4(self.a4(x))))))
        logits: Tensor = self.linear(adaptive_avg_pool2d(self.b5(self.a5(x)), 1).flatten(1))
        return logits


class _Basic(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _normed(inputs, outputs, 3, stride)
        self.conv2, self.bn2 = _normed(outputs, outputs, 3)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(*_normed(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return relu(y + self.shortcut(x))


class _Root(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.bn = _normed(2 * width, width)

    def forward(self, *branches: Tensor) -> Tensor:
        return relu(self.bn(self.conv(torch.cat(branches, 1))))


class _Tree(nn.Module):
    """Two halves one after the other, and a root that joins them (Yu et al. 2018, simplified)."""

    def __init__(self, levels: int, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half: Any = _Basic if levels == 1 else partial(_Tree, levels - 1)
        self.root = _Root(outputs)
        self.left_tree, self.right_tree = half(inputs, outputs, stride), half(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        left = self.left_tree(x)
        logits: Tensor = self.root(left, self.right_tree(left))
        return logits


class _SimpleDla(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.base = nn.Sequential(*_active(3, 16, 3))
        self.layer1 = nn.Sequential(*_active(16, 16, 3))
        self.layer2 = nn.Sequential(*_active(16, 32, 3))
        self.layer3 = _Tree(1, 32, 64, 1)
        self.layer4 = _Tree(2, 64, 128, 2)
        self.layer5 = _Tree(2, 128, 256, 2)
        self.layer6 = _Tree(1, 256, 512, 2)
        self.linear = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.base, self.layer1, self.layer2, self.layer3, self.layer4, self.layer5, self.layer6):
            x = layer(x)
        logits: Tensor = self.linear(adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class _WideResNet(nn.Module):
    """Zagoruyko & Komodakis 2016, under the names of TRADES and RobustBench."""

    def __init__(self, depth: int, widening: int, classes: int) -> None:
        super().__init__()
        width = 16 * widening
        blocks = (depth - 4) // 6  # of each of the three groups
        self.conv1 = _stem(16)
        self.block1 = _wide_group(16, width, blocks, stride=1)
        self.block2 = _wide_group(width, 2 * width, blocks, stride=2)
        self.block3 = _wide_group(2 * width, 4 * width, blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(4 * width)
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        values = self.block3(self.block2(self.block1(self.conv1(images))))
        logits: Tensor = self.fc(relu(self.bn1(values)).mean((2, 3)))
        return logits


def _wide_group(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    layer = nn.Sequential(_WideBlock(inputs, width, stride))
    for _ in range(blocks - 1):
        layer.append(_WideBlock(width, width))
    return nn.Sequential(OrderedDict(layer=layer))


class _WideBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.convShortcut: nn.Module | None = None
        if inputs != outputs:
            self.convShortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        active = relu(self.bn1(values))
        shortcut = values if self.convShortcut is None else self.convShortcut(active)
        outputs: Tensor = self.conv2(relu(self.bn2(self.conv1(active)))) + shortcut
        return outputs


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "resnet18": partial(_resnet, "resnet18"),
    "resnet50": partial(_resnet, "resnet50"),
    "preactresnet18": preactresnet18,
    "vgg7": vgg7,
    "vgg19": vgg19,
    "googlenet": _GoogLeNet,
    "densenet121": densenet121,
    "mobilenet": mobilenet,
    "efficientnet_b0": efficientnet_b0,
    "simpledla": _SimpleDla,
    "wide_resnet28_10": partial(_WideResNet, 28, 10),
    "wide_resnet34_10": partial(_WideResNet, 34, 10),
}
