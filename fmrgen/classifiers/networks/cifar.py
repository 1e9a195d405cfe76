"""Networks for 32 px images as kuangliu/pytorch-cifar has them (the paper's Table 6), and the wide ones of RobustBench:
from timm's by small edits where those are equal, else made here."""

from collections import OrderedDict
from collections.abc import Callable, Mapping

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, relu

_RESIDUAL = (64, 128, 256, 512)
_GROWTH, _DENSE_LAYERS = 32, (6, 12, 24, 16)


def resnet18(classes: int) -> nn.Module:
    return _resnet("resnet18", classes)


def resnet50(classes: int) -> nn.Module:
    return _resnet("resnet50", classes)


def _resnet(name: str, classes: int) -> nn.Module:
    """timm's, but that its stem keeps all 32×32 pixels."""
    network = timm.create_model(name, num_classes=classes)
    network.conv1 = _stem(64)
    network.maxpool = nn.Identity()
    return network


def preactresnet18(classes: int) -> nn.Module:
    network = timm.create_model("resnetv2_18", num_classes=classes)
    network.stem = nn.Sequential()
    network.stem.conv = _stem(64)
    network.norm = nn.Identity()
    network.head.fc = nn.Conv2d(_RESIDUAL[-1], classes, 1)
    return network


def vgg19(classes: int) -> nn.Module:
    features = timm.create_model("vgg19_bn", num_classes=0).features
    return nn.Sequential(features, nn.Flatten(), nn.Linear(512, classes))


def mobilenet(classes: int) -> nn.Module:
    """MobileNet v1."""
    network = timm.create_model("mobilenetv1_100", num_classes=classes, act_layer=nn.ReLU)
    network.conv_stem.stride = (1, 1)
    return network


def efficientnet_b0(classes: int) -> nn.Module:
    network = timm.create_model("efficientnet_b0", num_classes=classes)
    network.conv_stem.stride = (1, 1)
    network.conv_head, network.bn2 = nn.Identity(), nn.Identity()
    network.classifier = nn.Linear(320, classes)
    return network


def densenet121(classes: int) -> nn.Module:
    network = timm.create_model("densenet121", num_classes=classes)
    network.features.conv0 = _stem(64)
    network.features.norm0, network.features.pool0 = nn.Identity(), nn.Identity()
    return network


def googlenet(classes: int) -> nn.Module:
    return _GoogLeNet(classes)


def simpledla(classes: int) -> nn.Module:
    return _SimpleDla(classes)


def wide_resnet28_10(classes: int) -> nn.Module:
    return _WideResNet(28, 10, classes)


def wide_resnet34_10(classes: int) -> nn.Module:
    return _WideResNet(34, 10, classes)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    made.__name__: made
    for made in (
        *(resnet18, resnet50, preactresnet18, vgg19, googlenet, densenet121, mobilenet, efficientnet_b0, simpledla),
        *(wide_resnet28_10, wide_resnet34_10),
    )
}


def renamed(network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A state dict of pytorch-cifar under the names of `network`, whose tensors lie in the same order; any other one as
    it is, for its names to be checked."""
    own = network.state_dict()
    used = {name: tensor for name, tensor in state.items() if not _is_unused(name, state)}
    if own.keys() == used.keys():
        return used
    if len(used) != len(own):
        return state
    if "stages.0.blocks.0.norm1.weight" in own:
        used = _shortcuts_first(used)
    answer = dict(zip(own, used.values(), strict=True))
    if "features.denseblock1.denselayer1.norm1.weight" in own:
        answer = _in_timms_order(answer)
    # The head of ResNetV2 is a convolution in timm.
    flat = [name for name, tensor in answer.items() if tensor.ndim == 2 and own[name].ndim == 4]
    return {**answer, **{name: answer[name][:, :, None, None] for name in flat}}


def _is_unused(name: str, state: Mapping[str, Tensor]) -> bool:
    """What nothing goes through: a second first block of RobustBench's wide networks, the first expansion of
    EfficientNet-B0."""
    if name.startswith("sub_block1."):
        return "block1.layer.0.conv1.weight" in state
    return "layers.0.conv3.weight" in state and name.startswith(("layers.0.conv1.", "layers.0.bn1."))


def _shortcuts_first(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """In timm's ResNetV2 the shortcut of a block comes before the rest of it."""
    places = {name: ".".join(name.split(".")[:2]) for name in state}  # layer and block
    ranks = {place: rank for rank, place in enumerate(dict.fromkeys(places.values()))}
    return dict(sorted(state.items(), key=lambda entry: (ranks[places[entry[0]]], "shortcut" not in entry[0])))


def _in_timms_order(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """DenseNet's channels: there what is new comes first, in timm it comes last."""
    answer, width = dict(state), 64
    for block, layers in enumerate(_DENSE_LAYERS, 1):
        for layer in range(layers):
            place = f"features.denseblock{block}.denselayer{layer + 1}"
            order = _order(width, layer)
            for kind in ("weight", "bias", "running_mean", "running_var"):
                answer[f"{place}.norm1.{kind}"] = state[f"{place}.norm1.{kind}"][order]
            answer[f"{place}.conv1.weight"] = state[f"{place}.conv1.weight"][:, order]
        order = _order(width, layers)
        last = block == len(_DENSE_LAYERS)
        place = "features.norm5" if last else f"features.transition{block}.norm"
        for kind in ("weight", "bias", "running_mean", "running_var"):
            answer[f"{place}.{kind}"] = state[f"{place}.{kind}"][order]
        after = "classifier.weight" if last else f"features.transition{block}.conv.weight"
        answer[after] = state[after][:, order]
        width = (width + layers * _GROWTH) // 2
    return answer


def _order(width: int, added: int) -> list[int]:
    """Where each of timm's channels lies there, after so many layers have added theirs to the first `width`."""
    old = list(range(added * _GROWTH, added * _GROWTH + width))
    new = [(added - 1 - layer) * _GROWTH + channel for layer in range(added) for channel in range(_GROWTH)]
    return old + new


def _stem(width: int) -> nn.Conv2d:
    return nn.Conv2d(3, width, 3, padding=1, bias=False)


def _normed(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, bias: bool = False) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)
    return [convolution, nn.BatchNorm2d(outputs)]


def _active(inputs: int, outputs: int, kernel: int = 1, bias: bool = False) -> list[nn.Module]:
    return [*_normed(inputs, outputs, kernel, bias=bias), nn.ReLU()]


class _Inception(nn.Module):
    def __init__(self, inputs: int, one: int, three: tuple[int, int], five: tuple[int, int], pooled: int) -> None:
        super().__init__()
        self.b1 = nn.Sequential(*_active(inputs, one, bias=True))
        self.b2 = nn.Sequential(*_active(inputs, three[0], bias=True), *_active(*three, 3, bias=True))
        narrow, wide = five  # two convolutions of 3 see what one of 5 does
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
        answer: Tensor = self.linear(adaptive_avg_pool2d(self.b5(self.a5(x)), 1).flatten(1))
        return answer


class _Basic(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _normed(inputs, outputs, 3, stride)
        self.conv2, self.bn2 = _normed(outputs, outputs, 3)
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Sequential(*_normed(inputs, outputs, 1, stride) if changes else [])

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
    """Two halves one after the other, and what joins them (Yu et al. 2018, simplified)."""

    def __init__(self, inputs: int, outputs: int, levels: int, stride: int) -> None:
        super().__init__()
        self.root = _Root(outputs)

        def half(width: int, stride: int) -> nn.Module:
            return _Basic(width, outputs, stride) if levels == 1 else _Tree(width, outputs, levels - 1, stride)

        self.left_tree, self.right_tree = half(inputs, stride), half(outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        left = self.left_tree(x)
        answer: Tensor = self.root(left, self.right_tree(left))
        return answer


class _SimpleDla(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.base = nn.Sequential(*_active(3, 16, 3))
        self.layer1 = nn.Sequential(*_active(16, 16, 3))
        self.layer2 = nn.Sequential(*_active(16, 32, 3))
        self.layer3 = _Tree(32, 64, 1, 1)
        self.layer4 = _Tree(64, 128, 2, 2)
        self.layer5 = _Tree(128, 256, 2, 2)
        self.layer6 = _Tree(256, 512, 1, 2)
        self.linear = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.base, self.layer1, self.layer2, self.layer3, self.layer4, self.layer5, self.layer6):
            x = layer(x)
        answer: Tensor = self.linear(adaptive_avg_pool2d(x, 1).flatten(1))
        return answer


class _WideResNet(nn.Module):
    """Zagoruyko & Komodakis 2016, under the names of TRADES and RobustBench."""

    def __init__(self, depth: int, widening: int, classes: int) -> None:
        super().__init__()
        narrow, *widths = 16, 16 * widening, 32 * widening, 64 * widening
        self.conv1 = _stem(narrow)
        self.block1, self.block2, self.block3 = (
            _wide_group(inputs, width, (depth - 4) // 6, stride)
            for inputs, width, stride in zip((narrow, *widths), widths, (1, 2, 2), strict=False)
        )
        self.bn1 = nn.BatchNorm2d(widths[-1])
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        values = self.block3(self.block2(self.block1(self.conv1(images))))
        logits: Tensor = self.fc(relu(self.bn1(values)).mean((2, 3)))
        return logits


def _wide_group(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    made = [_WideBlock(inputs, width, stride), *(_WideBlock(width, width) for _ in range(blocks - 1))]
    return nn.Sequential(OrderedDict(layer=nn.Sequential(*made)))


class _WideBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        changes = inputs != outputs
        self.convShortcut: nn.Module | None = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else None

    def forward(self, values: Tensor) -> Tensor:
        active = relu(self.bn1(values))
        shortcut = values if self.convShortcut is None else self.convShortcut(active)
        found: Tensor = self.conv2(relu(self.bn2(self.conv1(active)))) + shortcut
        return found
