"""A split of somebody else is data: nothing in it runs, and nothing outside it is read, unless the user trusts it."""

import importlib
import json
import os
import re
import shutil
import signal
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import commands
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from commands import fmrgen, run, succeeded, upload
from datasets import ClassLabel, Dataset, Features, Image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from photos import photo
from strangers import EVIL, LENET, alter, change, save_resnet
from watched import no_trespass

from fmrgen import evaluate
from fmrgen.cli.options import is_own
from fmrgen.errors import UserError
from fmrgen.recipe.sections import ComponentConfigs
from fmrgen.trust.recipes import untrusted_config, untrusted_demands


def webdataset(urls):
    return {"kind": "webdataset", "urls": urls, "limit": 20, "classes": ["a", "b"]}


SOURCES = {
    "files": webdataset(["photos/x.tar"]),
    "address": webdataset("http://127.0.0.1:9/{0..1}.tar"),
    "chain": webdataset("hf://datasets/a/b/x.tar::/etc/passwd"),
    "folder": {"kind": "imagefolder", "path": "photos"},
    "format": {"kind": "datasets", "path": "imagefolder"},
    "files of a dataset": {"kind": "datasets", "path": "someone/there", "data_files": ["../../secret.png"]},
    "code": {"kind": "evil_code:Net"},
}


@pytest.mark.parametrize("case", SOURCES)
def test_a_source_of_a_stranger_runs_and_reads_nothing(place, case):
    alter(place, source=SOURCES[case])
    with no_trespass(place):
        notes = evaluate("theirs", LENET).splits[0].notes
    assert any("if you trust it, pass trust=True" in note for note in notes), notes
    assert not (place / "ran").exists()


def test_the_command_tells_of_it_in_its_report(place):
    alter(place, source=SOURCES["code"])
    with no_trespass(place):
        assert run("evaluate", "theirs", "-c", LENET, "-o", "report", "-q") == 0
    report = (place / "report/evaluation.md").read_text().replace("\\", "")
    assert "if you trust it, pass --trust" in report
    assert not (place / "ran").exists()


NET = "evil_code:Net"
OF_NET = {"kind": "classifier", "classifier": NET}
JUDGES = {
    "target": {"classifier": {"kind": "module", "target": NET}},
    "short form in an oracle": {"oracle": OF_NET},
    "short form in an ensemble": {"oracle": {"kind": "ensemble", "oracles": [{"kind": "clip"}, OF_NET]}},
    "kind": {"oracle": {"kind": "evil_code:Config"}},
    **{
        f"remote code, {trust!r}": {"classifier": {"kind": "transformers", "model": "remote", "trust_remote_code": trust}}
        for trust in (True, 1, 1.0, "true", "yes", "on")
    },
}  # fmt: skip


@pytest.mark.parametrize("case", JUDGES)
def test_models_of_a_stranger_run_nothing(place, refused, case):
    alter(place, **JUDGES[case])
    named = "evil_code:"
    if "remote" in case:
        auto = {"AutoConfig": "custom.Custom", "AutoModelForImageClassification": "custom.Custom"}
        save_resnet(place / "remote", auto_map=auto, model_type="strange")
        (place / "remote/custom.py").write_text("open('ran', 'w')\n")
        named = "that of remote (trust_remote_code)"
    with no_trespass(place):
        error = refused("verify", "theirs", "-q", told="fmrgen: theirs: the recipe in its provenance runs ")
    assert named in error
    assert error.endswith("; if you trust it, use --trust\n")


def test_with_trust_they_run(place, capsys):
    alter(place, oracle=OF_NET)
    assert run("verify", "theirs", "-q", "--trust") == 2
    assert (place / "ran").exists()


def test_a_split_is_ones_own_if_it_demands_no_more_than_the_recipe_of_the_folder(place):
    recipe = yaml.safe_load((place / "r.yaml").read_text())
    (place / "my_net.py").write_text(EVIL.partition("\n")[2])
    mine = {"kind": "module", "target": "my_net:Net"}
    (place / "fmrgen.yaml").write_text(yaml.safe_dump({**recipe, "classifier": mine}))
    alter(place, classifier=mine, source=recipe["source"])
    assert is_own("theirs")
    alter(place, classifier={"kind": "module", "target": NET})
    assert not is_own("theirs")
    alter(place, classifier=mine, source=SOURCES["files"])
    assert not is_own("theirs")
    assert not (place / "ran").exists()


def test_all_code_is_named_in_the_line_and_on_the_card(place, refused):
    oracles = [{"kind": "evil:One"}, {"kind": "classifier", "classifier": {"kind": "module", "target": "evil:two"}}]
    remote = {"kind": "transformers", "model": "some/one", "trust_remote_code": "yes"}
    alter(place, classifier=remote, oracle={"kind": "ensemble", "oracles": oracles})
    named = "that of some/one (trust_remote_code), evil:One, evil:two"
    refused("verify", "theirs", "-q", told=f"runs {named}; if you trust it")
    from fmrgen.publish.card import write_card

    write_card(place / "theirs")
    assert named in (place / "theirs/README.md").read_text().replace("\\", "")


def test_what_says_nothing_of_itself_is_refused():
    from fmrgen.config import ComponentConfig

    class New(ComponentConfig):
        kind: str = "new"

    assert (New().code_it_runs(), New().places_it_reads()) == (["new"], ["whatever new likes"])


@pytest.mark.slow
def test_a_stranger_on_the_hub_runs_nothing(place, hub):
    alter(place, source=SOURCES["code"], oracle=OF_NET)
    upload(hub, place / "theirs", "someone/theirs")
    options = {"cwd": place, **hub.environment}
    shutil.rmtree(place / "theirs")
    succeeded("evaluate", "someone/theirs", "-c", LENET, "-q", **options)
    told = "runs evil_code:Net; if you trust it, use --trust"
    commands.refused("verify", "someone/theirs", told=told, **options)
    assert not (place / "ran").exists()


@pytest.mark.slow
def test_the_folder_that_one_stands_in_lends_no_modules(place):
    for name in ("peft", "timm", "datasets", "flash_attn"):
        (place / f"{name}.py").write_text(EVIL)
    for launcher in (("-m", "fmrgen"), (str(Path(sys.executable).parent / "fmrgen"),)):
        done = fmrgen("verify", "theirs", "-q", launcher=launcher, cwd=place, fresh=True)
        assert "classifier" in done.stderr or done.returncode == 0, done.stderr
        assert not (place / "ran").exists()


# Images that lie elsewhere


def with_paths(place, *paths):
    """A folder `leak` whose rows hold paths instead of images."""
    (place / "leak").mkdir(exist_ok=True)
    columns = {"image": [{"bytes": None, "path": path} for path in paths], "label": [0] * len(paths)}
    rows = Dataset.from_dict(columns, features=Features({"image": Image(), "label": ClassLabel(names=["a", "b"])}))
    pq.write_table(rows.data.table, "leak/test.parquet")


OUTSIDE = "its file is not in the split: "
LEADS = {
    "absolute": ("{place}/secret.png", OUTSIDE),
    "upwards": ("{place}/leak/../secret.png", OUTSIDE),
    "link": ("{place}/leak/link.png", "is a link out of the folder"),
    "chain that ends inside": ("{place}/secret.png::{place}/leak/test.parquet", OUTSIDE),
    "zip that ends outside": ("zip://secret.png::{place}/secret.zip", OUTSIDE),
    "address": ("file://{place}/secret.png", OUTSIDE),
    "address that a folder swallows": ("http://127.0.0.1:{port}/../../leak/x.png", OUTSIDE),
    "address of a chain": ("zip://x.png::http://127.0.0.1:{port}/x.zip::{place}/leak/test.parquet", OUTSIDE),
    "protocol of others": ("github://a:b@/x.png::{place}/leak/test.parquet", OUTSIDE),
    "pipe": ("{place}/leak/pipe.png", "is a pipe, a socket or a device, and no file"),
    "device": ("/dev/zero", OUTSIDE),
}


@pytest.mark.parametrize(
    "command", [["evaluate", "leak", "-c", LENET, "-q"], ["show", "leak"]], ids=lambda words: words[0]
)
@pytest.mark.parametrize("case", LEADS)
def test_rows_of_a_stranger_read_nothing_outside(place, refused, listener, case, command):
    path, told = LEADS[case]
    with_paths(place, path.format(place=place, port=listener.port))
    if case == "link":
        os.symlink(place / "secret.png", place / "leak/link.png")
    os.mkfifo(place / "leak/pipe.png")
    (place / "secret.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    with no_trespass(place):
        refused(*command, told=told)
    assert listener.requests == []


def test_rows_may_name_images_of_their_own_folder_and_zips(place, capsys):
    photo(place / "leak/in it.png")
    with zipfile.ZipFile(place / "leak/some.zip", "w") as file:
        file.write(place / "secret.png", "member.png")
    with_paths(place, f"{place}/leak/in it.png", f"zip://member.png::{place}/leak/some.zip")
    assert run("evaluate", "leak", "-c", LENET, "-q") == 0, capsys.readouterr().err


def of_dataset(repo):
    return ["generate", "r.yaml", f"source={{kind: datasets, path: {repo}, classes: [a, b]}}"]


@pytest.mark.slow
def test_rows_on_the_hub_read_nothing_here(place, hub, listener):
    repo = f"someone/leak@{'0' * 40}"
    for number, path in enumerate(
        (
            f"{place}/secret.png::hf://datasets/{repo}",
            f"hf://datasets/{repo}/../../other/secret/x.png",
            f"http://127.0.0.1:{listener.port}/x.png",
        )
    ):
        with_paths(place, path)
        upload(hub, place / "leak", f"someone/leak{number}")
        evaluate_it = ["evaluate", f"someone/leak{number}", "-c", LENET]
        for command in (evaluate_it, of_dataset(f"someone/leak{number}")) if number < 1 else (evaluate_it,):
            done = fmrgen(*command, "-q", cwd=place, **hub.environment)
            assert done.returncode == 2, done.stderr
            assert re.search(f"its file is not in [^ ]+( split)?: {re.escape(path)}", done.stderr), done.stderr
    assert listener.requests == []


CARDS = {
    "absolute": "data_files: {place}/photos/a/0.png",
    "upwards": "data_files: [{{split: test, path: ../photos/a/0.png}}]",
    "address": "data_files: http://127.0.0.1:{port}/x.parquet",
    "folder": "data_dir: {place}/photos",
}


@pytest.mark.parametrize("name", ["README.md", ".huggingface.yaml"])
@pytest.mark.parametrize("case", CARDS)
def test_a_dataset_whose_card_leads_elsewhere_is_not_read(place, refused, listener, case, name):
    with_paths(place, "x.png")
    text = f"configs:\n- config_name: default\n  {CARDS[case].format(place=place, port=listener.port)}\n"
    (place / "leak" / name).write_text(f"---\n{text}---\n" if name == "README.md" else text)
    with no_trespass(place):
        refused("evaluate", "leak", "-c", LENET, "-q", told=f"leak: its {name} takes data from ")
    assert listener.requests == []


@pytest.mark.slow
def test_a_card_on_the_hub_leads_nowhere_else(place, hub):
    with_paths(place, "x.png")
    configs = [{"config_name": "default", "data_files": path} for path in (f"{place}/photos/a/0.png", "test.parquet")]
    (place / "leak/README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")
    upload(hub, place / "leak", "someone/leak")
    for command in (["evaluate", "someone/leak", "-c", LENET], of_dataset("someone/leak")):
        told = "someone/leak: its README.md takes data from "
        commands.refused(*command, "-q", told=told, cwd=place, **hub.environment)


# Files that are links, pipes, or called like something else

AGAIN = ["generate", "r.yaml", "output.keep_original=false", "-o", "theirs", "-q"]


def test_links_out_of_a_folder_are_not_followed(place, refused, hub):
    outside = place / "elsewhere"
    outside.mkdir()
    (outside / "note").write_text("---\nlicense: mit\n---\nprivate words")

    def not_pushed(told):
        pushed = fmrgen("push", "theirs", "someone/digits", "-q", cwd=place, **hub.environment)
        assert pushed.returncode == 2
        assert told in pushed.stderr

    (place / "theirs/README.md").unlink()
    (place / "theirs/README.md").symlink_to(outside / "note")
    refused(*AGAIN, told="theirs/README.md: is a link out of the folder, which is not followed")
    not_pushed("is a link out of the folder")
    (place / "theirs/README.md").unlink()

    (place / "theirs/results").symlink_to(outside)
    told = "theirs/results: is a link out of the folder, which is not followed"
    refused("evaluate", "theirs", "-c", LENET, "-q", "--record", told=told)
    assert sorted(path.name for path in outside.iterdir()) == ["note"]
    (place / "theirs/results").unlink()

    (place / "theirs/results/c/s").mkdir(parents=True)
    (place / "theirs/results/c/s/x.json").symlink_to(outside / "note")
    not_pushed("x.json: is a link out of the folder")
    assert "private words" not in "".join(path.read_text(errors="replace") for path in hub.world().blobs.iterdir())


@pytest.mark.parametrize("file", ["provenance/c/s.json", "c/s-00000-of-00001.parquet", "README.md"])
def test_pipes_in_a_folder_are_not_waited_for(place, capsys, file):
    (place / "theirs" / file).unlink()
    os.mkfifo(place / "theirs" / file)
    readers = (["verify", "theirs", "--files"], ["verify", "theirs"], ["evaluate", "theirs", "-c", LENET, "-q"])
    for command in (AGAIN,) if file == "README.md" else (*readers, AGAIN):  # the others do not read it
        torch.manual_seed(0)  # the weights that the split was begun with
        signal.alarm(60)
        try:
            run(*command)
        finally:
            signal.alarm(0)
        output = capsys.readouterr()
        assert "is a pipe, a socket or a device, and no file" in output.out + output.err, (command, output)
        assert output.err.count("\n") <= 1


@pytest.mark.parametrize("name", ["~", "hf:", "~root", "a b%20#@*?[x]", "\u202e"])
def test_folders_of_odd_names_work(place, capsys, name):
    assert run("generate", "r.yaml", "-o", f"./{name}", "-q") == 0, capsys.readouterr().err
    assert evaluate(name, LENET).splits[0].rows == 4
    for command in (["verify", name, "--files"], ["show", name]):
        assert run(*command) == 0, (command, capsys.readouterr().err)


def test_a_folder_with_two_colons_is_refused_in_a_line(refused):
    told = "fmrgen: a::b: datasets can't read from a path with :: in it; use a folder of another name\n"
    refused("generate", "r.yaml", "-o", "a::b", "-q", told=told)
    shutil.copytree("theirs", "a::b")
    refused("evaluate", "a::b", "-c", LENET, "-q", told=told)


# Weights


LOADING = {
    "checkpoint_path": "evil.pth",
    "pretrained_cfg": {"file": "evil.pth"},
    "pretrained_cfg_overlay": {"file": "evil.pth", "source": ""},
    "cache_dir": "/tmp",
    "img_size": "http://127.0.0.1:9",
}


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("name", LOADING)
def test_arguments_of_timm_load_nothing(place, refused, generate_refused, name):
    torch.save({"x": Evil()}, "evil.pth")
    config = {"kind": "timm", "model": "resnet18", "pretrained": False, "model_args": {name: LOADING[name]}}
    generate_refused(f"classifier={json.dumps(config)}", told=f"classifier.model_args: {name} ")
    alter(place, classifier=config)
    refused("verify", "theirs", told="fmrgen: ")


def test_a_config_of_transformers_has_timm_load_nothing(place, generate_refused):
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    config = TimmWrapperConfig(architecture="resnet18", num_labels=2, do_pooling=True)
    TimmWrapperForImageClassification(config).save_pretrained("wrapped")
    torch.save({"x": Evil()}, "evil.pth")
    change(place / "wrapped/config.json", model_args={"checkpoint_path": "evil.pth"})
    told = "./wrapped can't be loaded: checkpoint_path loads weights"
    generate_refused("classifier={kind: transformers, model: ./wrapped}", told=told)


def test_a_config_of_transformers_grants_itself_no_code(place, generate_refused):
    for name, told in {
        "inner": {"model_type": "strange", "auto_map": {"AutoConfig": "custom.Custom"}},
        "outer": {
            "model_type": "lightglue",
            "trust_remote_code": True,
            "keypoint_detector_config": {"model_type": "strange", "_name_or_path": "./inner"},
        },
    }.items():
        (place / name).mkdir()
        change(place / name / "config.json", **told)
    (place / "inner/custom.py").write_text("open('ran', 'w')\n")
    told = "classifier.model: ./outer can't be loaded: "
    generate_refused("classifier={kind: transformers, model: ./outer}", told=told)


@pytest.mark.parametrize("revision", ["../../x", "/abs", "a b"])
def test_revisions_are_names(generate_refused, revision):
    config = {"kind": "transformers", "model": "a/b", "revision": revision}
    generate_refused(f"classifier={json.dumps(config)}", told=f"{revision!r} is not a branch, tag or commit")


# Anything at all


names = st.sampled_from(
    ["evil_code:Net", "evil:x", "somebody.elses:Config", "os:system", "pipe:touch ran", "{pipe:touch ran,pipe:true}",
     "p{ipe:touch ran,x}", "secret.png", "/etc/passwd", "../secret", "file://secret.png", "http://127.0.0.1:9/x",
     "asset:mnist/lenet", "asset:mnist/clip", "asset:mnist/vqgan", "asset:../../secret", "timm:resnet18", "hf:a/b",
     "hf:a/b/c.bin", "hf:a/b/../../secret", "theirs", "remote", "a/b", "photos/a", "~/secret", "x::secret.png",
     "hf://datasets/a/b/x.tar", "hf://datasets/a/b::secret.png", "zip://secret.png::x", "\x1b]0;x\x07", "resnet18", ""]
)  # fmt: skip
scalars = st.one_of(names, st.booleans(), st.integers(-2, 40), st.floats(allow_nan=False), st.none())
trees = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3))
)
# What a key of a component may plausibly hold; all others hold names.
VALUES = {
    "classifier": st.deferred(lambda: classifiers),
    "oracles": st.lists(st.deferred(lambda: oracles), min_size=1, max_size=3),
    "trust_remote_code": st.sampled_from([True, False, 1, 0, 1.0, "true", "yes", "on", "no"]),
    "urls": st.one_of(names, st.lists(names, min_size=1, max_size=3)),
    "data_files": st.one_of(names, st.lists(names, max_size=3)),
    "image_size": st.just(32),
    "prompts": st.just(["an image of {class}"]),
    **dict.fromkeys(("limit", "num_classes", "tar_size", "size"), st.integers(1, 20)),
    **dict.fromkeys(("pretrained", "streaming", "first_synonym"), st.booleans()),
    **dict.fromkeys(
        ("model_args", "args", "data_config"), st.dictionaries(st.sampled_from([*LOADING, "depth"]), trees)
    ),
    **dict.fromkeys(("mean", "std"), st.just([0.5, 0.5, 0.5])),
    "target": st.sampled_from(["evil_code:Net", "os:system", "evil:x"]),
    "class_names": st.none(),
    "classes": st.sampled_from([None, ["a", "b"]]),
    "split": st.sampled_from(["test", "train"]),
    "fit": st.just("crop"),
    "on_error": st.just("fail"),
    "license": st.none(),
    "label": st.just("cls"),
    "image": st.just(["png"]),
}


def component(role, kind):
    """Sections of a built-in kind, with any of its keys, and sometimes anything at all in one of them."""
    fields = importlib.import_module(f"fmrgen.{role}.{kind}").Config.model_fields
    values = {name: VALUES.get(name, names) for name in fields if name != "kind"}
    required = {name: values.pop(name) for name, field in fields.items() if field.is_required() and name in values}
    plausible = st.fixed_dictionaries({"kind": st.just(kind), **required}, optional=values)
    odd = st.tuples(plausible, st.sampled_from([*fields, "odd"]), trees).map(lambda t: {**t[0], t[1]: t[2]})
    return st.one_of(*[plausible] * 7, odd)


def sections(role, *kinds):
    of_others = st.fixed_dictionaries({"kind": names}, optional={"x": trees})
    return st.one_of(*3 * [component(role, kind) for kind in kinds], of_others, trees)


sources = sections("sources", "mnist", "imagefolder", "datasets", "webdataset")
classifiers = sections("classifiers", "timm", "transformers", "module", "lenet")
generators = sections("generators", "vqgan", "vae", "transform")
oracles = sections("oracles", "clip", "classifier", "ensemble")
VALID = {
    "source": {"kind": "mnist"},
    "classifier": {"kind": "lenet", "num_classes": 2},
    "generator": {"kind": "transform", "image_size": 32},
    "oracle": {"kind": "classifier", "classifier": {"kind": "lenet", "num_classes": 2}},
}
anything = {"source": sources, "classifier": classifiers, "generator": generators, "oracle": oracles}
recipes = st.one_of(
    *(strategy.map(lambda told, role=role: {**VALID, role: told}) for role, strategy in anything.items())
)


@pytest.mark.slow
@settings(
    max_examples=40 * settings.default.max_examples,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tree=recipes)
def test_no_provenance_does_anything_before_it_is_trusted(place, tree):
    for module in ("sources", "classifiers", "generators", "oracles"):
        importlib.import_module(f"fmrgen.{module}")
    with no_trespass(place, reads=False), suppress(UserError):
        untrusted_demands(ComponentConfigs, tree, "x")
        found = untrusted_config(ComponentConfigs, tree, "x", trust=False, cure="cure")
        build_what_is_admitted(found)
    assert not (place / "ran").exists()


def build_what_is_admitted(found):
    """Offline: what is admitted may be looked for in the caches, and is not there."""
    for name in VALID:
        config = getattr(found, name)
        if config.kind in ("timm", "cifar", "mnist"):  # seconds each, and nothing in them that names anything
            continue
        with suppress(Exception):
            config.build()
