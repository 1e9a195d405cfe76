"""What strangers may have put into files: nothing of it runs or is written outside, and a line says what was refused.

Every case has a canary, the file `ran` in the working folder, that shows whether something ran.
"""

import builtins
import io
import json
import os
import re
import tarfile
import zipfile

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from commands import fmrgen, run, upload
from diffusers import VQModel
from photos import lay_out
from taming_files import CONFIG, Taming
from transformers import CLIPConfig, CLIPModel, ResNetConfig, ResNetForImageClassification

from fmrgen.recipe.job import load_recipe
from fmrgen.weights.assets import resolve_path

LENET = "{kind: lenet, num_classes: 2}"
TIMM = "{kind: timm, model: resnet18, model_args: {num_classes: 2}, checkpoint: w.pth}"
COMMAND = "touch ran"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, with a recipe and photos of two classes."""
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path)
    torch.manual_seed(0)
    return tmp_path


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


def save(thing, path, layout):
    if layout == "zip in a zip":
        torch.save(thing, "inner.pth")
        with zipfile.ZipFile(path, "w") as outer:
            outer.write("inner.pth", "archive/data.pkl")
    else:
        torch.save(thing, path, _use_new_zipfile_serialization=layout == "zip")


@pytest.mark.parametrize("layout", ["zip", "legacy", "zip in a zip"])
@pytest.mark.parametrize("code", CODE, ids=lambda code: code.__name__)
@pytest.mark.parametrize(
    "classifier", ["{kind: lenet, num_classes: 2, checkpoint: w.pth}", TIMM], ids=["torch", "timm"]
)
def test_code_in_a_classifiers_checkpoint(place, capsys, classifier, code, layout):
    save({"state_dict": {"w": torch.zeros(2)}, "more": code()}, "w.pth", layout)
    assert run("generate", "r.yaml", f"classifier={classifier}", "-o", "out", "-q") == 2
    told = "holds more than tensors, and nothing in it is run; save its state_dict alone|not a readable checkpoint"
    error = capsys.readouterr().err
    assert re.fullmatch(rf"fmrgen: classifier.checkpoint: w.pth: ({told}).*\n", error), error
    assert not (place / "ran").exists()


@pytest.mark.parametrize("layout", ["zip", "legacy"])
@pytest.mark.parametrize("code", CODE, ids=lambda code: code.__name__)
def test_code_in_a_taming_checkpoint_is_left_aside(place, capsys, caplog, code, layout):
    state = Taming().state_dict()
    save({"state_dict": {**state, "hidden": code()}, "callbacks": {"a": code()}}, "last.ckpt", layout)
    (place / "model.yaml").write_text(yaml.safe_dump(CONFIG))
    generator = "{kind: vqgan, checkpoint: last.ckpt, config: model.yaml, image_size: 32}"
    status = run("generate", "r.yaml", f"generator={generator}", "-o", "out", "-q", "perturb.budget=1")
    assert not (place / "ran").exists()
    if status == 2:
        error = capsys.readouterr().err
        assert "generator.checkpoint: last.ckpt is not a readable checkpoint, and nothing in it was run" in error
        return
    assert layout == "zip"
    assert status == 0, capsys.readouterr().err
    (line,) = [record.getMessage() for record in caplog.records if "only its tensors" in record.getMessage()]
    assert re.fullmatch(
        r"generator.checkpoint: last.ckpt: only its tensors were read; ignored, and not run: [\w., …]+", line
    )


def test_code_in_a_zip_that_is_a_program(place, capsys):
    torch.jit.script(torch.nn.Linear(2, 2)).save("w.pth")
    assert run("generate", "r.yaml", "classifier.checkpoint=w.pth", "-o", "out", "-q") == 2
    assert (
        "classifier.checkpoint: w.pth: is a TorchScript program, not weights; it was not run; export the network as ONNX"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE])
@pytest.mark.parametrize("key", ["classifier.checkpoint=w.pth", "generator={kind: vqgan, checkpoint: w.pth, config: model.yaml, image_size: 32}"])  # fmt: skip
def test_the_oldest_format_of_torch_is_not_unpacked(place, capsys, key, kind):
    (place / "model.yaml").write_text(yaml.safe_dump(CONFIG))
    with tarfile.open("w.pth", "w") as tar:
        for name in ("storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.devmajor, member.devminor = kind, "/etc/passwd", 1, 5
            tar.addfile(member)
    assert run("generate", "r.yaml", key, "-o", "out", "-q") == 2
    assert "checkpoint: w.pth: is a tar, and is not unpacked; save the state_dict anew" in capsys.readouterr().err


def with_pickled_weights(model, folder, weights):
    """A saved model whose weights are a pickle that runs a command."""
    model.save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    torch.save({**model.state_dict(), "more": Reduce()}, folder / weights)


@pytest.mark.parametrize(
    ("section", "make", "weights"),
    [
        ("classifier={kind: transformers, model: ./m}", lambda: ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])), "pytorch_model.bin"),
        ("oracle={kind: clip, model: ./m}", lambda: CLIPModel(CLIPConfig.from_pretrained(resolve_path("asset:mnist/clip"))), "pytorch_model.bin"),
        ("generator={kind: vqgan, model: ./m, image_size: 32}", lambda: VQModel(), "diffusion_pytorch_model.bin"),
    ],
    ids=["transformers", "clip", "diffusers"],
)  # fmt: skip
def test_code_in_the_weights_of_a_model_folder(place, capsys, section, make, weights):
    with_pickled_weights(make(), place / "m", weights)
    assert run("generate", "r.yaml", section, "-o", "out", "-q") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    refusal = r"fmrgen: (classifier|oracle|generator)\.model: \./m (can't be loaded: |is not a readable checkpoint, and nothing in it was run )"
    assert re.match(refusal, error), error
    assert not (place / "ran").exists()


REMOTE_CODE = """
open("ran", "w")
from transformers import ResNetForImageClassification
class Custom(ResNetForImageClassification):
    pass
"""


@pytest.mark.slow
def test_code_of_a_repo_runs_by_an_explicit_key_alone_and_the_card_says_so(place, capsys):
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_labels=2)
    ResNetForImageClassification(config).save_pretrained("m")
    (place / "m/preprocessor_config.json").write_text(
        '{"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 32}}'
    )
    (place / "m/custom.py").write_text(REMOTE_CODE)
    told = json.loads((place / "m/config.json").read_text())
    told |= {"auto_map": {"AutoModelForImageClassification": "custom.Custom"}, "model_type": "strange"}
    (place / "m/config.json").write_text(
        json.dumps(told | {"auto_map": {"AutoConfig": "custom.Custom", **told["auto_map"]}})
    )
    job = ["generate", "r.yaml", "classifier={kind: transformers, model: ./m}", "-o", "out", "-q"]
    assert run(*job) == 2
    assert "classifier.model: ./m can't be loaded: " in capsys.readouterr().err
    assert not (place / "ran").exists()
    (place / "m/config.json").write_text(json.dumps(told | {"model_type": "resnet"}))
    assert run(*job, "classifier.trust_remote_code=true") == 0, capsys.readouterr().err
    assert (place / "ran").exists()
    card = (place / "out/README.md").read_text()
    assert re.search(
        r"\| code \| \*\*runs code of its maker's choice,\*\* that of \./m \(trust\\?_remote\\?_code\)", card
    )
    assert run("verify", "out", "-q") == 2
    assert (
        "recipe in its provenance runs that of ./m (trust_remote_code) and reads ./m; if you trust it, use --trust"
        in capsys.readouterr().err
    )


MEMBERS = {
    "climbs out": ("../../ran", {}),
    "absolute": ("/tmp/ran.png", {}),
    "symbolic link": ("0.png", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
    "hard link": ("0.png", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}),
    "device": ("0.png", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}),
    "pipe": ("0.png", {"type": tarfile.FIFOTYPE}),
}


@pytest.mark.parametrize("case", MEMBERS)
def test_a_tar_that_leads_elsewhere(place, capsys, case):
    name, options = MEMBERS[case]
    with tarfile.open("x.tar", "w") as tar:
        member = tarfile.TarInfo(name)
        for key, value in options.items():
            setattr(member, key, value)
        tar.addfile(member, io.BytesIO())
    before = sorted(place.rglob("*"))
    source = "{kind: webdataset, urls: x.tar, classes: [a, b], limit: 4}"
    assert run("generate", "r.yaml", f"source={source}", "-o", "out", "-q") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
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
    assert run("generate", "r.yaml", "-o", "out", "-q") == 0, capsys.readouterr().err
    table = pq.read_table("out/c/s-00000-of-00001.parquet").select(["image", "label", "id"])
    ids = table["id"].to_pylist()
    table = table.set_column(2, "id", [[f"{MARKUP}{number}" for number in ids]])
    pq.write_table(table, "x.parquet")
    assert run("show", "x.parquet") == 0, capsys.readouterr().err
    assert MARKUP not in (place / "gallery/gallery.html").read_text()


def test_a_script_beside_a_dataset_is_not_run(place, capsys):
    (place / "scripted").mkdir()
    (place / "scripted/scripted.py").write_text("open('ran', 'w')\n")
    assert run("generate", "r.yaml", "source={kind: datasets, path: scripted}", "-o", "out", "-q") == 2
    assert "source: scripted, split 'test', can't be opened" in capsys.readouterr().err
    assert not (place / "ran").exists()


def test_an_image_address_in_somebodys_rows_is_not_read(place, capsys):
    (place / "secret.png").write_bytes((place / "photos/a/0.png").read_bytes())
    import pyarrow as pa

    images = pa.array(
        [{"bytes": None, "path": str(place / "secret.png")}], pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )
    (place / "theirs").mkdir()
    pq.write_table(pa.table({"image": images, "label": [0]}), "theirs/x.parquet")
    assert run("evaluate", "theirs/x.parquet", "-c", LENET, "-q") == 2
    assert "its file is not in the split" in capsys.readouterr().err


@pytest.mark.slow
def test_a_hub_repo_that_answers_with_other_paths_than_asked(place, hub, tmp_path):
    assert run("generate", "r.yaml", "-o", "out", "-q") == 0
    upload(hub, place / "out", "someone/odd")
    world = hub.world()
    repo = world.repos["someone/odd"]
    commit = repo["commits"][repo["refs"]["main"]]
    evil = [world.keep(b"{}"), False]
    outside = ["../ran", "../../ran", "/tmp/ran.json", "provenance/../../ran.json", "provenance/c/../../../ran.json",
               "results/c/s/../../../../ran.json", "results/../../x/ran.json", "pictures/../../ran.png"]  # fmt: skip
    commit["files"] |= dict.fromkeys(outside, evil)
    told = json.loads((place / "out/provenance/c/s.json").read_text())
    told["files"] = {"../../../ran.parquet": "0" * 64}
    commit["files"]["provenance/c/other.json"] = [world.keep(json.dumps(told).encode()), False]
    world.save()
    before = {path for path in tmp_path.rglob("*") if "hub" not in path.parts and "home" not in path.parts}
    environment = hub.environment
    assert fmrgen("verify", "someone/odd:c/s", "--files", **environment).returncode == 0
    refused = fmrgen("show", "someone/odd:c/other", "-o", "shown", **environment)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert "its provenance is not that of a finished split" in refused.stderr
    pushed = fmrgen("push", "out", "someone/odd", "--public", "-q", **environment)
    assert pushed.returncode == 0, pushed.stderr
    after = {path for path in tmp_path.rglob("*") if "hub" not in path.parts and "home" not in path.parts}
    assert after == before
    assert not [path for folder in (tmp_path, tmp_path.parent) for path in folder.glob("ran*")]
    assert not os.path.exists("/tmp/ran.json")


def test_recipes_of_the_paper_trust_nobody():
    for section in ("classifier", "generator", "oracle", "source"):
        assert not getattr(getattr(load_recipe("imagenet-resnet50"), section), "trust_remote_code", False)
