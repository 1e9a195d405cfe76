"""Recipes: inheritance, overrides, fingerprints, and what a mistake in one says."""

import pytest
from places import ROOT

from fmrgen.config import UNTRUSTED, validate
from fmrgen.errors import UserError
from fmrgen.recipe.classifier_forms import FORMS, WRITTEN
from fmrgen.recipe.files import shipped_recipes
from fmrgen.recipe.job import describe_recipes, load_recipe
from fmrgen.recipe.sections import ClassifierOnly

BASE = """
source: {kind: mnist}
classifier: {kind: lenet}
generator: {kind: transform, image_size: 32}
oracle: {kind: classifier, classifier: {kind: lenet}}
output: {config: c, split: s}
"""


@pytest.fixture
def write(tmp_path):
    def write(text=BASE, name="x.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_defaults_are_the_papers(write):
    perturb = load_recipe(write()).perturb
    assert (perturb.budget, perturb.step_size, perturb.update, perturb.reencode) == (50, 0.001, "sign", False)


def test_a_printed_recipe_is_the_recipe(tmp_path):
    recipe = load_recipe("mnist-lenet")
    (tmp_path / "same.yaml").write_text(str(recipe))
    assert load_recipe(tmp_path / "same.yaml") == recipe


def test_extends_merges_key_by_key_and_replaces_a_section_of_another_kind(write):
    write(BASE + "perturb: {budget: 7, step_size: 0.5}\n", "base.yaml")
    child = load_recipe(write("extends: base\nperturb: {budget: 9}\ngenerator: {kind: vqgan, model: m, image_size: 8}"))
    assert (child.perturb.budget, child.perturb.step_size) == (9, 0.5)
    assert child.generator.model_dump(exclude_none=True) == {"kind": "vqgan", "model": "m", "image_size": 8}


def test_what_extends_can_clear_and_another_target_drops_its_arguments(write):
    of_module = "classifier: {kind: module, target: outside_components:SmallNet, args: {width: 4}, mean: [1, 1, 1]}\n"
    prompts = "oracle: {kind: clip, model: m, class_prompts: {a: one a}}\n"
    kept = "".join(line for line in BASE.splitlines(True) if not line.startswith(("classifier", "oracle")))
    write(kept + of_module + prompts + "perturb: {budget: 7}\n", "base.yaml")
    other = load_recipe(write("extends: base\nclassifier: {target: elsewhere:Net}\noracle: {class_prompts: {}}"))
    assert other.classifier.args == {}
    assert other.classifier.mean == [1, 1, 1]
    assert other.oracle.class_prompts == {}
    same = load_recipe(write("extends: base\nclassifier: {size: 32}"), ["perturb={}"])
    assert same.classifier.args == {"width": 4}
    assert same.oracle.class_prompts == {"a": "one a"}
    assert same.perturb.budget == 50


@pytest.mark.parametrize(("name", "text"), [("names.txt", "one\ntwo\n\n"), ("names.json", '["one", "two"]')])
def test_names_may_be_in_a_file_and_are_in_the_recipe_from_then_on(write, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    of_names = f"class_names: {tmp_path / name}"
    loaded = load_recipe(
        write(), [f"source.classes={tmp_path / name}", f"classifier={{kind: module, target: 'a:B', {of_names}}}"]
    )
    assert loaded.source.classes == loaded.classifier.class_names == ["one", "two"]
    with pytest.raises(UserError, match=r"source.classes: .*gone can't be read as names: No such file"):
        load_recipe(write(), [f"source.classes={tmp_path / 'gone'}"])
    with pytest.raises(
        UserError, match=r"class_names: names a file, which an untrusted recipe may not; list the names"
    ):
        validate(ClassifierOnly, {"classifier": {"kind": "timm", "model": "m", "class_names": name}}, "x", UNTRUSTED)


def test_a_description_is_not_that_of_another_job(write):
    shipped = load_recipe("mnist-lenet")
    assert shipped.description_of(1000) == shipped.description != ""
    assert load_recipe("mnist-lenet", ["perturb.slots=7", "output.split=other"]).description == shipped.description
    fewer = load_recipe("mnist-lenet", ["source.limit=10"])
    assert fewer.description_of(10) == (
        "10 images of mnist, perturbed by vqgan asset:mnist/vqgan against lenet under clip asset:mnist/clip"
    )
    assert load_recipe("mnist-lenet", ["source.limit=10", "description=mine"]).description_of(10) == "mine"


def test_extends_names_a_file_beside_the_recipe(write, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    write(BASE + "perturb: {budget: 7}", "base.yaml")
    assert load_recipe(write("extends: base.yaml")).perturb.budget == 7


def test_overrides_are_yaml_and_reach_any_depth(write):
    overrides = [
        "perturb.step_size=1e-2",
        "perturb.reencode=true",
        "oracle.classifier.num_classes=3",
        "source.classes=[a, b]",
    ]
    recipe = load_recipe(write(), overrides)
    assert recipe.perturb.step_size == 0.01
    assert recipe.perturb.reencode is True
    assert recipe.oracle.classifier.num_classes == 3
    assert recipe.source.classes == ["a", "b"]


def test_an_override_of_the_kind_takes_its_keys_with_it(write):
    for overrides in (["generator.kind=vae", "generator.model=m"], ["generator.model=m", "generator.kind=vae"]):
        recipe = load_recipe(write(), [*overrides, "generator.image_size=64"])
        assert type(recipe.generator).__module__ == "fmrgen.generators.vae"
        assert recipe.generator.model == "m"


def test_fingerprint_is_of_what_changes_a_row(write):
    recipe = load_recipe(write())
    same = load_recipe(write(), ["perturb.slots=3", "source.on_error=skip", "description=other", "perturb.budget=50"])
    assert same.fingerprint == recipe.fingerprint
    assert len(recipe.fingerprint) == 16
    for override in ("perturb.budget=49", "source.limit=5", "output.shard_size=3", "oracle.classifier.num_classes=9"):
        assert load_recipe(write(), [override]).fingerprint != recipe.fingerprint


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["perturb.step_sise=1"], r"x.yaml: perturb.step_sise: unknown key, did you mean step_size\?"),
        (["oracle.classifier.num_clases=1"], r"oracle.classifier.num_clases: unknown key, did you mean num_classes\?"),
        (["genrator.kind=vqgan"], r"genrator: unknown key, did you mean generator\?"),
        (["generator.kind=vqgann"], r"generator: 'vqgann': unknown kind, did you mean vqgan\?"),
        (["generator.kind=no_such_package:Config"], r"generator: no_such_package:Config can't be imported"),
        (["generator.kind=fmrgen.recipe.job:Nothing"], r"the module defines no Nothing"),
        (["generator.kind=pathlib:Path"], r"'pathlib:Path' is not a fmrgen.ComponentConfig"),
        (["generator=3"], r"generator: needs a mapping with a kind"),
        (["generator.kind=vqgan"], r"generator: value error, give either model, or checkpoint and config|image_size"),
        (["perturb.budget=many"], r"perturb.budget: must be a whole number, not many"),
        (["perturb.step_size=0"], r"perturb: step_size must be auto or a positive number, not 0"),
        (["perturb.update=sgd"], r"perturb.update: must be 'sign', 'l2', 'adam', 'nes' or 'random'"),
        (["oracle.kind=clip", "oracle.prompts=[a cat]"], r"oracle.prompts.0: the prompt 'a cat' has no \{class\}"),
        (["perturb"], r"an override is section.key=value"),
        (["perturb.budget=[1"], r"=.*: not YAML: "),
    ],
)
def test_mistakes_are_one_line_that_names_the_key(write, overrides, message):
    with pytest.raises(UserError, match=message) as error:
        load_recipe(write(), overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a recipe must be a mapping of sections, this is a NoneType"),
        ("a: [", "not YAML"),
        ("source: {kind: mnist}", r"classifier: is missing \(and 3 more\)"),
        ("extends: nowhere", "extends: nowhere is neither a file beside it nor a shipped recipe"),
        ("extends: x", "extends itself"),
        ("extends: [a, b]", "extends: must be one recipe's file or name"),
    ],
)
def test_broken_files(write, text, message):
    with pytest.raises(UserError, match=message) as error:
        load_recipe(write(text))
    assert "\n" not in str(error.value)


def test_every_shipped_recipe_is_described_once():
    described = describe_recipes()
    assert {"mnist-lenet", "cifar10-resnet18", "imagenet9-resnet18", "train/mnist-clip"} <= described.keys()
    assert all(described.values())
    others = {name for name in shipped_recipes() if name not in described and not name.startswith("paper/")}
    assert others == {"_paper", "_imagenet", "_mnist"}


def test_every_short_form_of_a_classifier_is_on_the_page():
    page = (ROOT / "docs/guides/evaluate.md").read_text()
    for form in FORMS.values():
        assert f"`{form.prefix}:" in page, form.written
        assert form.written in WRITTEN or form.prefix == "http"
