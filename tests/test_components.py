"""Components: anyone's own by import path, each built-in kind, and what does not fit is told before any work."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from small_models import tiny_network
from strangers import change, save_resnet
from torch import nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms
from transformers import AutoModelForImageClassification

from fmrgen.classifiers.base import Classifier, GroupedClassifier, Normalize, digests_of, in_labels, left_out_note
from fmrgen.config import check_places, config_class
from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.errors import UserError
from fmrgen.jobs.generate import make_split
from fmrgen.jobs.lifecycle import new_provenance
from fmrgen.labels import Labels, make_labels
from fmrgen.oracles.clip import Config as ClipConfig
from fmrgen.recipe.build import _check_rows_apart, build_component, gives_probabilities
from fmrgen.recipe.job import load_recipe, parse_classifier
from fmrgen.weights.digest import weights_sha256

DIGITS = Labels(tuple("0123456789"), source_size=10)
SECTIONS = {
    "source": {"kind": "mnist", "limit": 12},
    "classifier": {"kind": "lenet"},
    "generator": {"kind": "transform", "image_size": 32},
    "oracle": {"kind": "classifier", "classifier": {"kind": "lenet"}},
    "perturb": {"budget": 4, "step_size": 0.05, "oracle_rule": "consistent"},
    "output": {"config": "c", "split": "s"},
}


def recipe(tmp_path, **sections):
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**SECTIONS, **sections}))
    return load_recipe(tmp_path / "r.yaml")


def classifier(kind, **options):
    return config_class("fmrgen.classifiers", kind).model_validate({"kind": kind, **options}).build()


def test_components_from_outside_the_package_run_unchanged(tmp_path):
    sections = {name: {"kind": f"outside_components:{kind}Config"} for name, kind in
                {"classifier": "SmallNet", "generator": "Tint", "oracle": "NotTooBright"}.items()}  # fmt: skip
    sections["classifier"]["width"] = 8
    summary = make_split(recipe(tmp_path, **sections), tmp_path / "out")
    assert summary.rows == 12
    assert summary.validation_rate.value == 100
    told = json.loads((tmp_path / "out/provenance/c/s.json").read_text())
    assert told["recipe"]["classifier"] == sections["classifier"]
    assert told["weights_sha256"]["classifier"]
    assert told["weights_sha256"]["generator"] is None


def test_threads_that_build_at_once_build_what_one_alone_does():
    """transformers and diffusers load weights through switches that the whole process shares."""
    recipe = load_recipe("mnist-lenet", ["source.limit=2"])

    def build(number):
        parts = (recipe.classifier, recipe.generator, recipe.oracle)
        return [weights_sha256(build_component(part, "part", object, "cpu")) for part in parts]

    alone = build(0)
    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(build, range(12))] == [alone] * 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("classifier={kind: onnx, model: gone.onnx}", "classifier.model: no such file as gone.onnx"),
        ("classifier={kind: zoo, model: cifar10-engstrom2019, folder: gone}", "classifier.folder: gone has no Engstrom2019Robustness.pt"),
        ("oracle={kind: classifier, classifier: {kind: lenet, checkpoint: gone.pth}}", "oracle.classifier.checkpoint: no such file as gone.pth"),
        ("source={kind: arrays, images: gone.npy, labels: gone.npy}", "source.images: no such file as gone.npy"),
        ("source={kind: datasets, path: ./gone}", "source.path: ./gone: no such file or folder"),
        ("source={kind: datasets, path: gone.parquet}", "source.path: gone.parquet: no such file"),
        ("source={kind: webdataset, urls: 'gone-{0..3}.tar'}", "source.urls: gone-0.tar does not exist"),
        ("classifier.checkpoint=hf:someone/repo/net.pth", None),
        ("source={kind: datasets, path: owner/name}", None),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told_before_anything_is_built(change, message):
    recipe = load_recipe("mnist-lenet", [change])
    with pytest.raises(UserError, match=re.escape(message)) if message else nullcontext():
        check_places(recipe)


@pytest.mark.parametrize(
    ("oracle", "column"),
    [
        ("outside_components:NotTooBrightConfig", "oracle_score"),
        ("outside_components:AnyClassConfig", "oracle_score"),
        ("{kind: classifier, classifier: 'asset:mnist/lenet'}", "oracle_score"),
        ("{kind: ensemble, oracles: [{kind: clip, model: 'asset:mnist/clip'}, {kind: 'outside_components:AnyClassConfig'}]}", "oracle_score"),
        ("{kind: ensemble, oracles: [{kind: clip, model: 'asset:mnist/clip'}]}", "clip_score"),
        ("{kind: clip, model: 'asset:mnist/clip'}", "clip_score"),
    ],
)  # fmt: skip
def test_the_column_of_scores_is_called_by_what_they_are(oracle, column):
    recipe = load_recipe("mnist-lenet", [f"oracle={oracle}"])
    assert new_provenance(recipe, recipe.build()).score_column == column


class Detached(nn.Module):
    def forward(self, images):
        return torch.zeros(len(images), 10)


class Grey(nn.Module):
    """A network of one channel, as many for MNIST are."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(3600, 10))

    def forward(self, images):
        return self.network(images)


class Picky(nn.Module):
    def forward(self, images):
        raise RuntimeError("only 77 px")


class Wrong(nn.Module):
    def forward(self, images):
        return {"logits_of": images}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"oracle": {"kind": "classifier", "classifier": {"kind": "lenet", "num_classes": 7}}}, "oracle.classifier: has 7 outputs"),
        ({"classifier": {"kind": "module", "target": "test_components:Detached"}}, "gives no gradients"),
        ({"classifier": {"kind": "module", "target": "test_components:Wrong"}}, r"must return logits of shape \[B, K\], one image gave a dict"),
        ({"classifier": {"kind": "module", "target": "test_components:DIGITS.names"}}, "classifier.target"),
        ({"classifier": {"kind": "module", "target": "test_components:NoSuch"}}, "the module defines no NoSuch"),
        ({"classifier": {"kind": "lenet", "checkpoint": "asset:mnist/lenat"}}, "no such asset; shipped are asset:gtsrb/cnn"),
        ({"generator": {"kind": "vqgan", "model": "asset:mnist/vqgan", "image_size": 30}}, "30 is not a multiple of 4; use 32"),
        ({"generator": {"kind": "vqgan", "model": "no/such-folder", "image_size": 32}}, "generator.model: no/such-folder can't be downloaded: it is not on this machine"),
        ({"classifier": {"kind": "timm", "model": "resnet18", "pretrained": False, "model_args": {"heads": 3}}}, "timm can't create resnet18"),
        ({"classifier": {"kind": "module", "target": "outside_components:SmallNet", "args": {"widht": 3}}}, "classifier.args: .* unexpected keyword argument 'widht'"),
        ({"classifier": {"kind": "module", "target": "test_components:Picky"}}, "classifier: fails on an image of 32 px: RuntimeError: only 77 px"),
        ({"oracle": {"kind": "outside_components:TintConfig"}}, "oracle: outside_components:TintConfig builds a Tint, not a Oracle"),
        ({"classifier": {"kind": "module", "target": "test_components:Grey"}}, "takes images of one channel and is given RGB; let its forward begin with"),
        ({"source": {"kind": "images"}}, "source: 'images': unknown kind"),
        ({"source": {"kind": "outside_components:TintConfig"}}, "source: 'outside_components:TintConfig' is not a fmrgen.SourceConfig"),
        ({"generator": {"kind": "vae", "model": "asset:mnist/clip", "image_size": 32}}, "generator.model: asset:mnist/clip is not one of diffusers' autoencoders"),
        ({"generator": {"kind": "vqgan", "model": "asset:mnist/clip", "image_size": 32}}, "generator.model: asset:mnist/clip is not a VQGAN's config"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_before_any_work(tmp_path, sections, message):
    with pytest.raises(UserError, match=message) as error:
        recipe(tmp_path, **sections).build()
    assert "\n" not in str(error.value)


# --- classifiers ----------------------------------------------------------------------------------------------------


def test_broken_and_foreign_checkpoints_are_one_line(tmp_path):
    state = classifier("lenet").network.state_dict()
    good = tmp_path / "good.pth"
    torch.save(state, good)
    (tmp_path / "cut.pth").write_bytes(good.read_bytes()[:3000])
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    torch.save({**state, "5.weight": torch.zeros(7, 84)}, tmp_path / "shape.pth")
    torch.save({key: value for key, value in state.items() if key != "5.bias"}, tmp_path / "missing.pth")
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "extra.pth")
    for name, message in {
        "cut.pth": "not a readable checkpoint",
        "none.pth": "holds no state dict",
        "shape.pth": r"5.weight \(\[7, 84\], not \[10, 84\]\) has another shape",
        "missing.pth": "5.bias is missing",
        "extra.pth": "extra is unknown to the model",
    }.items():
        with pytest.raises(UserError, match=message):
            classifier("lenet", checkpoint=str(tmp_path / name))


def test_timm_uses_its_own_transform_and_arguments():
    made = classifier(
        "timm", model="vit_tiny_patch16_224.augreg_in21k_ft_in1k", pretrained=False, model_args={"num_classes": 5}
    )
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    assert made(image).shape == (1, 5)
    grey = made.preprocess(torch.full((1, 3, 64, 64), 0.5))
    assert grey.shape == (1, 3, 224, 224)
    assert grey.abs().max() < 1e-5  # mean and std of these weights are 0.5, not ImageNet's
    made(image).sum().backward()
    assert image.grad.abs().sum() > 0


def test_transformers_classifier_uses_its_processor(tmp_path):
    save_resnet(tmp_path)
    changes = {"crop_pct": 1.0, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    change(tmp_path / "preprocessor_config.json", **changes)
    made = classifier("transformers", model=str(tmp_path))
    image = torch.rand(2, 3, 32, 32, requires_grad=True)
    network = AutoModelForImageClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        expected = network((image - 0.5) / 0.25).logits
    assert made(image).allclose(expected, atol=1e-5)
    made(image).sum().backward()
    assert image.grad.abs().sum() > 0


def test_weights_that_the_files_lack_are_not_made_up(tmp_path):
    save_resnet(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    kept = {key: value for key, value in state.items() if not key.startswith("classifier")}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks weights of a ResNetForImageClassification: classifier"):
        classifier("transformers", model=str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:900])
    with pytest.raises(UserError, match="classifier.model: .* can't be loaded"):
        classifier("transformers", model=str(tmp_path))


def test_module_by_import_path_with_its_own_normalisation():
    made = classifier(
        "module", target="outside_components:SmallNet", args={"width": 4}, mean=[0.5] * 3, std=[0.5] * 3, size=32
    )
    image = torch.rand(2, 3, 48, 48)
    assert made(image).shape == (2, 10)
    same_size = torch.rand(2, 3, 32, 32)
    assert made(same_size).allclose(made.network((same_size - 0.5) / 0.5))


def test_a_classifier_of_more_classes_than_labels_is_told(tmp_path):
    """A thousand-way network on a folder of forty classes has an easier task than it was generated against."""

    class Named(nn.Sequential):
        class_names = [f"class {i}" for i in range(1000)]  # noqa: RUF012

    image = torch.rand(1, 3, 2, 2)
    network = Named(nn.Flatten(), nn.Linear(12, 1000))
    folders = tuple(f"class_{i}" for i in range(300, 340))
    among = in_labels(network, Labels(folders, source_size=40), image, "classifier")
    assert among(image).equal(network(image)[:, 300:340])
    assert "chooses only among the 40 labels, not among its 960 other classes" in left_out_note(
        among, Labels(folders, source_size=40)
    )
    everything = make_labels(network.class_names, folders)
    assert [everything.from_source(i) for i in range(40)] == list(range(300, 340))
    whole = in_labels(network, everything, image, "classifier")
    assert whole(image).equal(network(image))
    assert left_out_note(whole, everything) is None
    few = nn.Sequential(nn.Flatten(), nn.Linear(12, 40))
    with pytest.raises(UserError, match="has 40 outputs for 1000 labels"):
        in_labels(few, everything, image, "classifier")


def test_grouped_classes_sum_their_probabilities():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    labels = Labels(("a", "b"), ((0, 1, 2), (4,)), 6)
    image = torch.rand(1, 3, 2, 2)
    grouped = in_labels(network, labels, image, "classifier")
    assert isinstance(grouped, GroupedClassifier)
    source = network(image).softmax(1)
    expected = torch.stack([source[:, :3].sum(1), source[:, 4]], 1)
    assert grouped(image).softmax(1).allclose(expected / expected.sum(1, keepdim=True))
    assert in_labels(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), labels, image, "c")(image).shape == (1, 2)
    with pytest.raises(UserError, match=r"has 5 outputs for 2 labels \(or the source's 6 classes\)"):
        in_labels(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), labels, image, "classifier")


# --- oracles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [10, 32, 40])
def test_clip_is_the_librarys_own_zero_shot(count):
    from transformers import CLIPModel, CLIPProcessor

    from fmrgen.weights.assets import resolve_path

    folder = resolve_path("asset:mnist/clip")
    oracle = ClipConfig(model="asset:mnist/clip").build()
    oracle.set_labels(Labels(tuple(map(str, range(count)))))
    images = (torch.rand(3, 3, 32, 32) * 255).round() / 255
    model, processor = CLIPModel.from_pretrained(folder), CLIPProcessor.from_pretrained(folder)
    texts = [f"an image of {digit}" for digit in range(count)]
    inputs = processor(text=texts, images=(images * 255).to(torch.uint8), return_tensors="pt", padding=True)
    with torch.no_grad():
        output = model(**inputs)
    judgement = oracle.judge(images)
    assert judgement.probabilities.allclose(output.logits_per_image.softmax(1), atol=1e-6)
    assert judgement.score.allclose(output.logits_per_image / model.logit_scale.exp(), atol=1e-6)


def test_clip_prompts_are_averaged():
    texts = []
    for prompts in (["an image of {class}"], ["the digit {class}"], ["an image of {class}", "the digit {class}"]):
        oracle = ClipConfig(model="asset:mnist/clip", prompts=prompts).build()
        oracle.set_labels(DIGITS)
        texts.append(oracle._text)
    mean = (texts[0] + texts[1]) / 2
    assert texts[2].allclose(mean / mean.norm(dim=1, keepdim=True), atol=1e-6)


def test_clip_takes_the_first_synonym():
    named, whole = (ClipConfig(model="asset:mnist/clip", first_synonym=first).build() for first in (True, False))
    named.set_labels(Labels(("tench, Tinca tinca", "eel, snake")))
    whole.set_labels(Labels(("tench", "eel")))
    assert torch.equal(named._text, whole._text)


def test_weights_digest_is_of_the_numbers_alone(tmp_path):
    one, other = classifier("lenet"), classifier("lenet")
    assert weights_sha256(one) != weights_sha256(other)
    torch.save(one.network.state_dict(), tmp_path / "w.pth")
    assert weights_sha256(classifier("lenet", checkpoint=str(tmp_path / "w.pth"))) == weights_sha256(one)
    assert weights_sha256(Classifier(nn.Identity(), Normalize([0], [1]))) is None


class Plain(Generator):
    """Its weights are in no module."""

    image_size = 8
    derived = ("norm",)

    def __init__(self, mean, basis):
        self.mean, self.bases = mean, {"first": [basis]}
        self.norm = basis.norm()

    def encode(self, images, labels):
        return Latents(images - self.mean)

    def decode(self, latents):
        return latents.free + self.mean


def test_weights_in_plain_tensors_are_digested():
    mean, basis = torch.zeros(3, 8, 8), torch.eye(3)
    one = weights_sha256(Plain(mean, basis))
    assert one == weights_sha256(Plain(mean.clone(), basis))
    assert len({one, weights_sha256(Plain(mean + 1, basis)), weights_sha256(Plain(mean, basis + 1))}) == 3
    assert weights_sha256(Plain(mean.numpy(), basis)) == one
    again = Plain(mean, basis)
    again.norm = again.norm + 1
    assert weights_sha256(again) == one

    class Bare(nn.Module):
        def __init__(self, weight):
            super().__init__()
            self.weight = weight
            self.itself = [self]  # a circle

    assert weights_sha256(Bare(mean)) != weights_sha256(Bare(mean + 1)) != None  # noqa: E711


def test_a_network_is_known_behind_any_wrapper():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    wrapped = Classifier(network, Normalize([0.0] * 3, [1.0] * 3))
    grouped = GroupedClassifier(wrapped, [[1], [0]], 4)
    for recorded in map(weights_sha256, (network, wrapped, grouped)):
        assert all(recorded in digests_of(classifier) for classifier in (network, wrapped, grouped))
        assert recorded not in digests_of(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)))


@pytest.mark.parametrize("sides", [(32, 32), (28, 40), (33, 50), (50, 33), (17, 99), (48, 31)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_are_resized_as_torchvision_does(sides, dtype):
    images = torch.rand((2, 3, *sides), generator=torch.Generator().manual_seed(0)).to(dtype)
    for interpolation, mode in (("auto", InterpolationMode.BICUBIC), ("bilinear", InterpolationMode.BILINEAR)):
        resized = transforms.resize(images, [30], interpolation=mode, antialias=True).clamp(0, 1)
        expected = transforms.center_crop(resized, [30])
        assert torch.equal(Normalize([0.0] * 3, [1.0] * 3, 30, interpolation)(images), expected)


def test_an_enlarged_image_comes_back_as_it_was():
    """A network for 32 px behind a generator of larger images: the mean over whole blocks undoes the enlargement."""
    small = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = Normalize([0.0] * 3, [1.0] * 3, size=32)
    large = small.repeat_interleave(7, 2).repeat_interleave(7, 3)
    torch.testing.assert_close(plain(large), small)
    assert plain(large[..., :210]).shape == (2, 3, 32, 32)  # a shorter side of 210 is no multiple
    wide = torch.cat([large, large], 3)
    torch.testing.assert_close(plain(wide), torch.cat([small, small], 3)[..., 16:48])
    edges = (large > 0.5).float()[..., :200, :200]
    assert plain(edges).min() >= 0
    assert plain(edges).max() <= 1
    blurred = Normalize([0.0] * 3, [1.0] * 3, size=32, interpolation="bilinear")(large)
    assert (blurred - small).abs().mean() > 0.01


def test_source_classes_are_found_by_name_before_they_are_grouped():
    """A perfect classifier whose classes are in an order of its own is perfect on groups too."""
    names = ("cat", "dog", "truck", "ship")
    labels = make_labels({"animal": "0-1", "vehicle": "2-3"}, names)
    order = [2, 0, 3, 1]

    class Perfect(torch.nn.Module):
        class_names = tuple(names[index] for index in order)

        def forward(self, images):
            source_class = (images.flatten(1).mean(1) * 10).round().long()
            return 9.0 * torch.nn.functional.one_hot(source_class, 4)[:, order].float()

    images = torch.stack([torch.full((3, 8, 8), index / 10) for index in range(4)])
    grouped = in_labels(Perfect(), labels, images[:1], "classifier")
    assert grouped(images).argmax(1).tolist() == [0, 0, 1, 1]
    wrong = Perfect()
    wrong.class_names = ("a", "b", "c", "d")
    with pytest.raises(UserError, match=r"its classes \(a, b, c, …\) don't match the labels \(cat, dog, truck, …\)"):
        in_labels(wrong, labels, images[:1], "classifier")


def test_a_target_may_be_a_network_itself():
    from outside_components import READY

    for given in ("outside_components:READY", "{kind: module, target: 'outside_components:READY'}"):
        built = parse_classifier(given)[1].build()
        assert built.network is READY
    with pytest.raises(UserError, match="can't be called with"):
        parse_classifier("{kind: module, target: 'outside_components:READY', args: {width: 3}}")[1].build()
    with pytest.raises(UserError, match=r"classifier\.target: 'nb3.mine' must be package\.module:Name"):
        parse_classifier("{kind: module, target: nb3.mine}")


class Together(Generator):
    """Decodes each latent with a bit of the others, or of chance."""

    image_size = 16

    def __init__(self, how):
        self.how = how

    def encode(self, images, labels):
        return Latents(images.clone())

    def decode(self, latents):
        free = latents.free
        beside = {"mean": free.mean(), "chance": torch.rand(()), "seeded": self.noise(free)}[self.how]
        return (free + 0.1 * beside).clamp(0, 1)


@pytest.mark.parametrize("how", ["mean", "chance", "seeded"])
def test_a_generator_whose_rows_see_each_other_is_refused(how):
    generator = Together(how)
    latents = Latents(torch.full((1, 3, 16, 16), 0.5))
    if how == "seeded":
        _check_rows_apart(generator, latents)
        return
    with pytest.raises(
        UserError, match="what it decodes from a latent depends on the others in the batch, or on chance"
    ):
        _check_rows_apart(generator, latents)


@pytest.mark.parametrize(("last", "told"), [(nn.Softmax(1), True), (nn.Identity(), False), (nn.Sigmoid(), False)])
def test_probabilities_instead_of_logits_are_seen(last, told):
    assert gives_probabilities(nn.Sequential(tiny_network(1), last), 16) == told
