"""ONNX files say what the network says that they were exported from."""

import pytest
import timm
import torch
from commands import run
from onnxruntime.quantization import quantize_dynamic
from torch import nn

from fmrgen import evaluate
from fmrgen.classifiers.onnx import Config
from fmrgen.errors import UserError
from fmrgen.recipe.job import parse_classifier
from fmrgen.weights.digest import weights_sha256

NAMES = [str(digit) for digit in range(10)]


def exported(network, path, size=32, batch=2, dynamic=True, channels_last=False):
    """An ONNX file of a network."""
    images = torch.rand(batch, *((size, size, 3) if channels_last else (3, size, size)))
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    torch.onnx.export(network.eval(), (images,), str(path), dynamic_shapes=shapes, external_data=False, verbose=False)
    return str(path)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return timm.create_model("resnet18", num_classes=10).eval()


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    return exported(network, tmp_path_factory.mktemp("onnx") / "net.onnx")


@pytest.mark.slow
def test_predictions_are_those_of_the_network(network, file):
    images = torch.rand(2000, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    normalised = (images - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    for keys, given in (({}, images), ({"mean": mean, "std": std}, normalised)):
        with torch.no_grad():
            expected = network(given)
        found = Config(model=file, class_names=NAMES, **keys).build()(images)
        assert (found.argmax(1) == expected.argmax(1)).float().mean() >= 0.999
        assert torch.allclose(found, expected, atol=1e-3)


@pytest.mark.slow
def test_weights_that_lie_beside_the_file_are_told_apart(tmp_path):
    digests = set()
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(seed)
        net, path = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)), tmp_path / str(number) / "net.onnx"
        path.parent.mkdir()
        torch.onnx.export(net, (torch.rand(2, 3, 32, 32),), str(path), external_data=True, verbose=False)
        assert path.with_name("net.onnx.data").exists()
        digests.add(weights_sha256(Config(model=str(path)).build()))
    assert len(digests) == 2


@pytest.mark.slow
def test_a_network_of_8_bits_that_weighs_a_batch_together_is_asked_image_by_image(tmp_path):
    """Dynamic quantisation takes its scale from all images that come together: answers would depend on neighbours."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 64), nn.ReLU(), nn.Linear(64, 10))
    plain = exported(net, tmp_path / "plain.onnx")
    quantize_dynamic(plain, str(tmp_path / "int8.onnx"))
    images = torch.rand(6, 3, 32, 32) * torch.linspace(0.1, 1, 6).view(-1, 1, 1, 1)
    network = Config(model=str(tmp_path / "int8.onnx")).build()
    together = network(images)
    assert torch.equal(together, torch.cat([network(image[None]) for image in images]))
    network.network._together = None
    assert not torch.allclose(network(images), together, atol=1e-4)
    assert Config(model=plain).build().network._together is None


@pytest.mark.slow
def test_a_split_is_evaluated(finished_split, file, tmp_path):
    found = evaluate([str(finished_split)], [f"onnx:{file}"], progress=False)
    assert found.classifiers[0].name == "net"
    assert found.classifiers[0].weights_sha256
    assert 0 <= found.results[0].total.standard_accuracy.value <= 100


class Last(nn.Module):
    """A network over [B, H, W, 3]."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(10))
        self.network(torch.rand(1, 3, 8, 8))

    def forward(self, images):
        return self.network(images.permute(0, 3, 1, 2))


@pytest.mark.slow
def test_other_layouts_and_fixed_batches(tmp_path):
    torch.manual_seed(0)
    last = Last().eval()
    path = exported(last, tmp_path / "last.onnx", size=8, batch=4, dynamic=False, channels_last=True)
    classifier = Config(model=path, mean=[0, 0, 0], std=[1, 1, 1]).build()
    images = torch.rand(7, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(classifier(images), last(images.permute(0, 2, 3, 1)), atol=1e-5)
    assert classifier(torch.rand(3, 3, 16, 16)).shape == (3, 10)  # brought to the file's size
    assert classifier.network.size == 8


@pytest.mark.slow
def test_what_is_no_network(tmp_path, file, capsys):
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    flat = str(tmp_path / "flat.onnx")
    torch.onnx.export(nn.Linear(4, 2).eval(), (torch.rand(1, 4),), flat, external_data=False, verbose=False)
    for name, error in (
        ("x", "x.onnx can't be loaded"),
        ("y", "no such file"),
        ("flat", r"it must take floats \[B, 3, H, W\] or \[B, H, W, 3\] alone"),
    ):
        with pytest.raises(UserError, match=error):
            Config(model=str(tmp_path / f"{name}.onnx")).build()
    section = f"classifier={{kind: onnx, model: {file}}}"
    assert run("generate", "mnist-lenet", "--limit", "2", section, "-o", tmp_path / "out") == 2
    assert "classifier: gives no gradients; set perturb.update=nes" in capsys.readouterr().err
    assert parse_classifier(f"mine=onnx:{file}")[0] == "mine"
