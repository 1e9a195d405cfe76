"""The recipes for the Hub: what they say, and that each classifier builds and fits, without its weights."""

import pytest
import torch

from fmrgen.classifiers.base import GroupedClassifier, in_labels
from fmrgen.labels import make_labels
from fmrgen.recipe.job import describe_recipes, load_recipe

OTHER_GENERATORS = ["imagenet-adm", "imagenet-flux", "imagenet-sd-turbo", "imagenet-stylegan-xl"]
OTHER_GENERATORS += [name for name in describe_recipes() if name.startswith("imagenet64-")]
OTHER_GENERATORS += ["cifar10-iddpm", "cifar10-stylegan-xl"]
OTHER_ORACLES = ["imagenet-panel", "imagenet-siglip2"]
HUB = [
    name
    for name in describe_recipes()
    if not name.startswith(("train/", "sets/", "mnist-", "gtsrb-")) and name not in (*OTHER_GENERATORS, *OTHER_ORACLES)
]
IMAGENET = [name for name in HUB if name.startswith("imagenet-") and not name.endswith("-real")]


@pytest.mark.parametrize("name", HUB)
def test_the_papers_settings(name):
    recipe = load_recipe(name)
    assert (recipe.perturb.budget, recipe.perturb.step_size, recipe.perturb.update) == (50, 0.001, "sign")
    assert recipe.generator.kind == "vqgan"
    assert recipe.generator.image_size == 224
    assert recipe.oracle.model == "openai/clip-vit-base-patch32"
    assert recipe.oracle.prompts == ["an image of {class}"]


@pytest.mark.slow
@pytest.mark.parametrize("name", HUB)
def test_the_classifier_builds_and_answers_in_the_labels(name):
    recipe = load_recipe(name)
    without_weights = {"pretrained": False} if recipe.classifier.kind == "timm" else {"checkpoint": None}
    classifier = recipe.classifier.model_copy(update=without_weights).build()
    classes = 10 if name.startswith("cifar10") else 1000
    labels = make_labels(recipe.source.classes, [f"class {i}" for i in range(classes)])
    image = torch.rand(1, 3, 224, 224, requires_grad=True)
    fitted = in_labels(classifier, labels, image, "classifier")
    logits = fitted(image)
    assert logits.shape == (1, {"cifar10-resnet18": 10, "imagenet9-resnet18": 9}.get(name, 1000))
    assert isinstance(fitted, GroupedClassifier) == (name == "imagenet9-resnet18")
    logits.sum().backward()
    assert image.grad.abs().sum() > 0


def test_imagenet_recipes_share_one_config_and_differ_in_the_classifier_alone():
    assert len(IMAGENET) == 7
    recipes = [load_recipe(name) for name in IMAGENET]
    assert len({recipe.output.config for recipe in recipes}) == 1
    assert len({recipe.output.split for recipe in recipes}) == 7
    assert (
        len(
            {
                recipe.model_copy(update={"classifier": None, "output": None, "description": ""}).model_dump_json()
                for recipe in recipes
            }
        )
        == 1
    )
    assert all("." in recipe.classifier.model for recipe in recipes)  # a tag that pins the weights


@pytest.mark.parametrize("name", OTHER_GENERATORS)
def test_other_generators_change_the_generator_and_what_hangs_on_it(name):
    """The classifier, the source and the oracle are those of the paper's recipe; steps are to be found."""
    recipe = load_recipe(name)
    base = load_recipe("cifar10-resnet18" if name.startswith("cifar10") else "imagenet-resnet50")
    assert (recipe.source, recipe.classifier, recipe.oracle) == (base.source, base.classifier, base.oracle)
    assert recipe.generator.kind != "vqgan"
    assert recipe.output.config not in {load_recipe(other).output.config for other in {*OTHER_GENERATORS} - {name}}
    assert (recipe.generator.image_size == 64) == name.startswith("imagenet64")


@pytest.mark.parametrize("name", OTHER_ORACLES)
def test_other_oracles_change_the_oracle_alone(name):
    recipe, base = load_recipe(name), load_recipe("imagenet-resnet50")
    assert (recipe.source, recipe.generator, recipe.perturb) == (base.source, base.generator, base.perturb)
    members = recipe.oracle.oracles if name == "imagenet-panel" else [recipe.oracle]
    assert members[0].model == "google/siglip2-base-patch16-224"
    assert all(
        getattr(member, "class_prompts", base.oracle.class_prompts) == base.oracle.class_prompts for member in members
    )


@pytest.mark.parametrize("name", [name for name in OTHER_GENERATORS if load_recipe(name).generator.kind == "diffusion"])
def test_diffusion_files_are_called_as_published(name):
    from fmrgen.generators.diffusion import OFFICIAL

    assert load_recipe(name).generator.checkpoint.rpartition("/")[2] in OFFICIAL


def test_nine_class_imagenet_is_the_papers():
    labels = make_labels(load_recipe("imagenet9-resnet18").source.classes, [str(i) for i in range(1000)])
    assert dict(zip(labels.names, map(len, labels.groups), strict=True)) == {
        "dog": 118, "cat": 5, "frog": 3, "turtle": 5, "bird": 21, "primate": 18, "fish": 9, "crab": 4, "insect": 20,
    }  # fmt: skip
    assert labels.from_source(151) == labels.from_source(268) == 0
    assert labels.from_source(269) is None
