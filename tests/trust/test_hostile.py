"""What strangers may have put into files: nothing of it runs or is written outside, and a line says what was refused."""

import builtins
import io
import json
import os
import re
import tarfile
import zipfile

import commands
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from commands import run, succeeded, upload
from diffusers import VQModel
from strangers import LENET, PROVENANCE, change, save_resnet
from taming_files import CONFIG, Taming
from transformers import AutoModelForImageClassification, CLIPConfig, CLIPModel

from fmrgen.recipe.job import load_recipe
from fmrgen.weights.assets import resolve_path

COMMAND = "touch ran"
TAMING = "generator={kind: vqgan, checkpoint: w.pth, config: model.yaml, image_size: 32}"
KEYS = {
    "torch": "classifier={kind: lenet, num_classes: 2, checkpoint: w.pth}",
    "timm": "classifier={kind: timm, model: resnet18, model_args: {num_classes: 2}, checkpoint: w.pth}",
}


class Reduce:
    """Runs a command as it is unpickled."""

    def __reduce__(self):
        return os.system, (COMMAND,)


class Evaluate:
    def __reduce__(self):
        return builtins.eval, ("open('ran', 'w')",)


class Nested:
    """Unpickles another stream as it is unpickled."""

    def __reduce__(self):
        import pickle

        return pickle.loads, (pickle.dumps(Reduce()),)


class Build:
    """Hands a state to a class of torch that would load code from it."""

    def __reduce__(self):
        return torch.nn.Module, (), {"_modules": {"x": Reduce()}}


class Loader:
    """Has torch load another file without its guard."""

    def __reduce__(self):
        torch.save(Reduce(), "inner.pth")
        return torch.load, ("inner.pth", None, None)


CODE = [Reduce, Evaluate, Nested, Build, Loader]


def save(thing, layout):
    if layout == "zip in a zip":
        torch.save(thing, "inner.pth")
        with zipfile.ZipFile("w.pth", "w") as outer:
            outer.write("inner.pth", "archive/data.pkl")
    else:
        torch.save(thing, "w.pth", _use_new_zipfile_serialization=layout == "zip")


@pytest.mark.parametrize("layout", ["zip", "legacy", "zip in a zip"])
@pytest.mark.parametrize("code", CODE, ids=lambda code: code.__name__)
@pytest.mark.parametrize("key", KEYS)
def test_code_in_a_classifiers_checkpoint(generate_refused, key, code, layout):
    save({"state_dict": {"w": torch.zeros(2)}, "more": code()}, layout)
    error = generate_refused(KEYS[key], told="fmrgen: classifier.checkpoint: w.pth: ")
    assert re.search("more than tensors, and nothing in it is run; save its state_dict alone|not a readable", error)


@pytest.mark.parametrize("layout", ["zip", "legacy"])
@pytest.mark.parametrize("code", CODE, ids=lambda code: code.__name__)
def test_code_in_a_taming_checkpoint_is_left_aside(place, capsys, caplog, code, layout):
    save({"state_dict": {**Taming().state_dict(), "hidden": code()}, "callbacks": {"a": code()}}, layout)
    (place / "model.yaml").write_text(yaml.safe_dump(CONFIG))
    status = run("generate", "r.yaml", TAMING, "-o", "out", "-q", "perturb.budget=1")
    assert not (place / "ran").exists()
    error = capsys.readouterr().err
    if status == 2:
        assert "generator.checkpoint: w.pth is not a readable checkpoint, and nothing in it was run" in error
        return
    assert (layout, status) == ("zip", 0), error
    (line,) = [record.getMessage() for record in caplog.records if "only its tensors" in record.getMessage()]
    only = r"generator.checkpoint: w.pth: only its tensors were read; ignored, and not run: [\w., …]+"
    assert re.fullmatch(only, line)


def test_code_in_a_zip_that_is_a_program(generate_refused):
    torch.jit.script(torch.nn.Linear(2, 2)).save("w.pth")
    program = "is a TorchScript program, not weights; it was not run; export the network as ONNX"
    generate_refused("classifier.checkpoint=w.pth", told=f"classifier.checkpoint: w.pth: {program}")


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE])
@pytest.mark.parametrize("key", ["classifier.checkpoint=w.pth", TAMING], ids=["classifier", "taming"])
def test_the_oldest_format_of_torch_is_not_unpacked(place, generate_refused, key, kind):
    (place / "model.yaml").write_text(yaml.safe_dump(CONFIG))
    with tarfile.open("w.pth", "w") as tar:
        for name in ("storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.devmajor, member.devminor = kind, "/etc/passwd", 1, 5
            tar.addfile(member)
    generate_refused(key, told="checkpoint: w.pth: is a tar, and is not unpacked; save the state_dict anew")


def save_clip(folder):
    CLIPModel(CLIPConfig.from_pretrained(resolve_path("asset:mnist/clip"))).save_pretrained(folder)


@pytest.mark.parametrize(
    ("section", "make", "load", "weights"),
    [
        ("classifier={kind: transformers, model: ./m}", save_resnet, AutoModelForImageClassification, "pytorch_model.bin"),
        ("oracle={kind: clip, model: ./m}", save_clip, CLIPModel, "pytorch_model.bin"),
        ("generator={kind: vqgan, model: ./m, image_size: 32}", lambda folder: VQModel().save_pretrained(folder), VQModel, "diffusion_pytorch_model.bin"),
    ],
    ids=["transformers", "clip", "diffusers"],
)  # fmt: skip
def test_code_in_the_weights_of_a_model_folder(place, generate_refused, section, make, load, weights):
    make(place / "m")
    state = load.from_pretrained(place / "m").state_dict()
    for path in (place / "m").glob("*.safetensors"):
        path.unlink()
    torch.save({**state, "more": Reduce()}, place / "m" / weights)
    error = generate_refused(section, told=f"fmrgen: {section.partition('=')[0]}.model: ./m ")
    assert re.search(r"can't be loaded: |is not a readable checkpoint, and nothing in it was run ", error), error


REMOTE_CODE = """
open("ran", "w")
from transformers import ResNetForImageClassification
class Custom(ResNetForImageClassification):
    pass
"""


@pytest.mark.slow
def test_code_of_a_repo_runs_by_an_explicit_key_alone_and_the_card_says_so(place, refused, generate_refused, capsys):
    classes = {"AutoModelForImageClassification": "custom.Custom"}
    of_all = {"AutoConfig": "custom.Custom", **classes}
    save_resnet(place / "m", auto_map=of_all, model_type="strange")
    (place / "m/custom.py").write_text(REMOTE_CODE)
    classifier = "classifier={kind: transformers, model: ./m}"
    generate_refused(classifier, told="classifier.model: ./m can't be loaded: ")
    change(place / "m/config.json", auto_map=classes, model_type="resnet")
    job = ["generate", "r.yaml", classifier, "-o", "out", "-q"]
    assert run(*job, "classifier.trust_remote_code=true") == 0, capsys.readouterr().err
    (place / "ran").unlink()
    card = (place / "out/README.md").read_text()
    told = r"\| code \| \*\*runs code of its maker's choice,\*\* that of \./m \(trust\\?_remote\\?_code\)"
    assert re.search(told, card)
    told = "recipe in its provenance runs that of ./m (trust_remote_code) and reads ./m; if you trust it, use --trust"
    refused("verify", "out", "-q", told=told)


MEMBERS = {
    "climbs out": ("../../ran", {}),
    "absolute": ("/tmp/ran.png", {}),
    "symbolic link": ("0.png", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
    "hard link": ("0.png", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}),
    "device": ("0.png", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}),
    "pipe": ("0.png", {"type": tarfile.FIFOTYPE}),
}


@pytest.mark.parametrize("case", MEMBERS)
def test_a_tar_that_leads_elsewhere(place, generate_refused, case):
    name, options = MEMBERS[case]
    with tarfile.open("x.tar", "w") as tar:
        member = tarfile.TarInfo(name)
        for key, value in options.items():
            setattr(member, key, value)
        tar.addfile(member, io.BytesIO())
    before = sorted(place.rglob("*"))
    generate_refused("source={kind: webdataset, urls: x.tar, classes: [a, b], limit: 4}", told="fmrgen: ")
    assert [path for path in sorted(place.rglob("*")) if "out" not in path.parts[-4:]][: len(before)] == before
    assert not (place.parent.parent / "ran").exists()


TEMPLATE = "{{ cycler.__init__.__globals__.os.system('touch ran') }}{% for x in range(9) %}9{% endfor %}"
MARKUP = "</script><script>document.title='ran'</script><img src=x onerror=alert(1)>"


@pytest.mark.slow
def test_templates_and_markup_in_class_names_are_text(place, capsys):
    classes = json.dumps([TEMPLATE, MARKUP])
    job = ["generate", "r.yaml", f"source.classes={classes}", f"description={json.dumps(TEMPLATE)}"]
    assert run(*job, "-o", "out", "-q") == 0, capsys.readouterr().err
    assert run("show", "out") == 0
    assert run("evaluate", "out", "-c", LENET, "-q") == 0, capsys.readouterr().err
    card = (place / "out/README.md").read_text()
    assert "999" not in card
    assert "cycler" in card
    for page in ("gallery/gallery.html", "evaluation/report.html"):
        text = (place / page).read_text()
        assert "cycler" in text
        assert MARKUP not in text
        assert "<img src=x" not in text
    assert "<script>document" not in (place / "evaluation/evaluation.md").read_text()
    assert not (place / "ran").exists()


def test_ids_that_are_markup_are_escaped(place, capsys):
    table = pq.read_table("theirs/c/s-00000-of-00001.parquet").select(["image", "label", "id"])
    ids = table["id"].to_pylist()
    table = table.set_column(2, "id", [[f"{MARKUP}{number}" for number in ids]])
    pq.write_table(table, "x.parquet")
    assert run("show", "x.parquet") == 0, capsys.readouterr().err
    assert MARKUP not in (place / "gallery/gallery.html").read_text()


def test_a_script_beside_a_dataset_is_not_run(place, generate_refused):
    (place / "scripted").mkdir()
    (place / "scripted/scripted.py").write_text("open('ran', 'w')\n")
    told = "source: scripted, split 'test', can't be opened"
    generate_refused("source={kind: datasets, path: scripted}", told=told)


def test_an_image_address_in_somebodys_rows_is_not_read(place, refused):
    kinds = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    images = pa.array([{"bytes": None, "path": str(place / "secret.png")}], kinds)
    (place / "rows").mkdir()
    pq.write_table(pa.table({"image": images, "label": [0]}), "rows/x.parquet")
    refused("evaluate", "rows/x.parquet", "-c", LENET, "-q", told="its file is not in the split")


@pytest.mark.slow
def test_a_hub_repo_that_answers_with_other_paths_than_asked(place, hub, tmp_path):
    upload(hub, place / "theirs", "someone/odd")
    world = hub.world()
    repo = world.repos["someone/odd"]
    commit = repo["commits"][repo["refs"]["main"]]
    evil = [world.keep(b"{}"), False]
    outside = ["../ran", "../../ran", "/tmp/ran.json", "provenance/../../ran.json", "provenance/c/../../../ran.json",
               "results/c/s/../../../../ran.json", "results/../../x/ran.json", "pictures/../../ran.png"]  # fmt: skip
    commit["files"] |= dict.fromkeys(outside, evil)
    told = json.loads((place / PROVENANCE).read_text()) | {"files": {"../../../ran.parquet": "0" * 64}}
    commit["files"]["provenance/c/other.json"] = [world.keep(json.dumps(told).encode()), False]
    world.save()

    def files():
        return {path for path in tmp_path.rglob("*") if "hub" not in path.parts and "home" not in path.parts}

    before = files()
    environment = hub.environment
    succeeded("verify", "someone/odd:c/s", "--files", **environment)
    told = "its provenance is not that of a finished split"
    commands.refused("show", "someone/odd:c/other", "-o", "shown", told=told, **environment)
    succeeded("push", "theirs", "someone/odd", "--public", "-q", **environment)
    assert files() == before
    assert not [path for folder in (tmp_path, tmp_path.parent) for path in folder.glob("ran*")]
    assert not os.path.exists("/tmp/ran.json")


def test_recipes_of_the_paper_trust_nobody():
    for section in ("classifier", "generator", "oracle", "source"):
        assert not getattr(getattr(load_recipe("imagenet-resnet50"), section), "trust_remote_code", False)
