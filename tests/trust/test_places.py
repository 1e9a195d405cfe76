"""Standing in a stranger's folder, and writing into one: names are not looked up in it, and links lead nowhere."""

import json
import os
import subprocess
import sys
import zipfile

import commands
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from commands import fmrgen, run, succeeded, upload
from datasets import Dataset, Features, Image, List, Value
from photos import RECIPE
from safetensors.torch import load_file, save_file
from strangers import EVIL, LENET, PROVENANCE, alter, change, save_resnet
from watched import no_trespass

EVALUATE = ("evaluate", "theirs", "-c", LENET, "-q")


def untouched(place):
    assert [path.name for path in (place.parent / "outside").iterdir()] == ["private.png"]
    assert (place.parent / "outside/private.png").read_bytes() == b"private"
    assert not (place / "ran").exists()


@pytest.mark.slow
def test_names_are_not_files_that_lie_about(place, tmp_path, capsys):
    code = yaml.safe_dump({**RECIPE, "classifier": {"kind": "module", "target": "evil_code:Net"}})
    for name in ("asset:mnist/lenet", "timm:resnet18", "hf:a/b", "mnist-lenet"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(code)
    (tmp_path / "mine.yaml").write_text("extends: mnist-lenet\n")
    assert run("evaluate", "theirs", "-c", "asset:mnist/lenet", "-q") == 2  # ten classes, for two labels
    assert run("evaluate", "theirs", "-c", "hf:a/b", "-q") == 2
    for recipe in ("mnist-lenet", str(tmp_path / "mine.yaml")):
        assert run("generate", recipe, "--limit", "4", "-o", f"out{len(recipe)}", "-q") == 0, capsys.readouterr().err
    untouched(place)


def test_a_name_that_a_recipe_extends_is_not_sought_where_one_stands(place, tmp_path, refused):
    (place / "base.yaml").write_text(yaml.safe_dump(RECIPE))
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\n")
    told = "extends: base.yaml is neither a file beside it nor a shipped recipe"
    refused("generate", tmp_path / "mine.yaml", "-o", "out", told=told)


@pytest.mark.slow
def test_a_module_from_elsewhere_brings_no_modules_of_the_folder(place, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/my_code.py").write_text(EVIL.replace("open('ran', 'w')", "import importlib.util as u\nassert u.find_spec('pydot') is None"))  # fmt: skip
    (place / "pydot.py").write_text(EVIL)
    options = {"cwd": place, "fresh": True, "PYTHONPATH": str(tmp_path / "mine")}
    succeeded("verify", "theirs", "--files", **options)
    classifier = "classifier={kind: module, target: 'my_code:Net'}"
    done = fmrgen("generate", "r.yaml", classifier, "-o", "out", "-q", **options)
    assert "AssertionError" not in done.stderr, done.stderr
    untouched(place)


def test_links_at_the_names_of_temporary_files_are_not_written_through(place):
    for pid in range(os.getpid(), os.getpid() + 5):
        (place / f"theirs/.README.md.{pid}.tmp").symlink_to("../../outside/private.png")
    assert run(*EVALUATE, "--record") == 0
    untouched(place)


@pytest.mark.parametrize("name", ["provenance", "c", "pictures"])
def test_a_job_writes_through_no_link_in_its_folder(place, refused, name):
    (place / "mine").mkdir()
    (place / "mine" / name).symlink_to("../../outside")
    refused("generate", "r.yaml", "-o", "mine", "-q", told="is a link out of the folder, which is not followed")
    untouched(place)


@pytest.mark.parametrize("name", ["c/.s-00000.claim.0", "provenance/c/.s.claim.0"])
def test_a_job_claims_through_no_link(place, monkeypatch, name):
    monkeypatch.setenv("FMRGEN_LEASE_SECONDS", "0.3")
    kept = place.parent / "kept"
    kept.write_text("mine")
    (place / "mine" / name).parent.mkdir(parents=True)
    (place / "mine" / name).symlink_to(kept)
    assert run("generate", "r.yaml", "-o", "mine", "-q") == 0
    assert kept.read_text() == "mine"


@pytest.mark.parametrize(
    "record",
    ["[]", '{"runs": 3}', '{"runs": {"a": 5}}', '{"finished": true}', '{"files": {"../x": ""}}', "{", "pipe", "link"],
)
def test_what_an_unfinished_split_has_on_record_is_data(place, capsys, record):
    records = place / "theirs/provenance/c"
    (records / "s.json").rename(records / ".s.begun.json")
    path = records / ".s.run-1.json"
    if record == "pipe":
        os.mkfifo(path)
    elif record == "link":
        (place.parent / "note").write_text("private words")
        path.symlink_to(place.parent / "note")
    else:
        path.write_text(record)
    for command in (["verify", "theirs", "--files"], ["verify", "theirs"], EVALUATE):
        assert run(*command) in (0, 1, 2)
        error = capsys.readouterr().err
        assert error.count("\n") <= 1
        assert "private words" not in error


def test_a_folder_that_is_a_link_as_a_whole_works(place, capsys):
    (place / "disk").mkdir()
    (place / "mine").symlink_to("disk")
    assert run("generate", "r.yaml", "-o", "mine", "-q") == 0, capsys.readouterr().err
    assert run("evaluate", "mine", "-c", LENET, "-q") == 0, capsys.readouterr().err


# Folders `leak` of anybody, whose data lies elsewhere or unpacks to more than memory holds


def data_by_a_link(leak, outside):
    Dataset.from_dict({"image": [b"x"], "label": [0]}).to_parquet(outside / "x.parquet")
    (leak / "test.parquet").symlink_to("../../outside/x.parquet")


def zeros(leak, outside):
    table = pa.table({"image": pa.array([bytes(100 << 20)], pa.large_binary()), "label": [0]})
    pq.write_table(table, leak / "test.parquet", compression="zstd")


def zeros_far_below(leak, outside):
    (leak / "deep/down").mkdir(parents=True)
    zeros(leak / "deep/down", outside)


def one_image_for_many_rows(leak, outside):
    image = np.random.default_rng(0).bytes(8000)
    images = pa.DictionaryArray.from_arrays(pa.array(np.zeros(400_000, np.int32)), pa.array([image]))
    table = pa.table({"image": images, "label": [0] * 400_000})
    pq.write_table(table, leak / "x.parquet", row_group_size=400_000)


BOMB = "those can't be images, and they are not unpacked"


@pytest.mark.parametrize(
    ("lay", "data", "told"),
    [
        (data_by_a_link, "leak", "leak/test.parquet: is a link out of the folder"),
        (zeros, "leak", BOMB),
        (zeros_far_below, "leak/**/*.parquet", BOMB),  # a pattern can mean all of them
        (one_image_for_many_rows, "leak/x.parquet", "would unpack to up to 3,200,000,000 of image"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_folder_whose_data_is_not_read(place, refused, lay, data, told):
    (place / "leak").mkdir()
    lay(place / "leak", place.parent / "outside")
    refused("evaluate", data, "-c", LENET, "-q", told=told)


def test_many_different_images_are_many_bytes_and_no_bomb(place):
    """Whose dictionary times their number would be more than is unpacked."""
    from fmrgen.trust.parquet import check_parquet_files

    images = [np.random.default_rng(number).bytes(4000) for number in range(600)]
    pq.write_table(pa.table({"image": images}), "many.parquet", row_group_size=600, dictionary_pagesize_limit=1 << 30)
    metadata = pq.read_metadata("many.parquet").row_group(0).column(0)
    assert metadata.total_uncompressed_size * 600 > 1 << 30
    check_parquet_files(["many.parquet"])


def test_images_inside_lists_are_not_opened(place, capsys, listener):
    (place / "nested").mkdir()
    rows = {"image": [{"bytes": (place / "photos/a/0.png").read_bytes(), "path": None}], "label": [0],
            "more": [[{"bytes": None, "path": f"http://127.0.0.1:{listener.port}/x.png"}]]}  # fmt: skip
    features = Features({"image": Image(), "label": Value("int64"), "more": List(Image())})
    pq.write_table(Dataset.from_dict(rows, features=features).data.table, "nested/test.parquet")
    assert run("evaluate", "nested", "-c", LENET, "-q") == 0, capsys.readouterr().err
    assert listener.requests == []


def test_a_commit_that_is_none_names_no_file(place, hub):
    upload(hub, place / "theirs", "someone/theirs")
    told = {"id": "someone/theirs", "sha": "../../../../../../ran", "siblings": [], "private": False, "tags": []}
    for number in range(20):
        hub.fail(at=number, match="/api/datasets/someone/theirs", status=200, body=json.dumps(told))
    for more in (["--files"], []):
        commands.refused("verify", "someone/theirs:c/s", *more, told="is not a commit", cwd=place, **hub.environment)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"kind": "lenet", "num_classes": 12_000_000}, "classifier.num_classes: must be 100,000 or less"),
        ({"kind": "timm", "model": "resnet18", "data_config": {"input_size": [3, 8000, 8000]}}, "numbers up to 4096"),
        ({"kind": "timm", "model": "resnet18", "model_args": {"embed_dim": 10**9}}, "numbers up to 65536"),
    ],
)
def test_sizes_that_fill_the_memory(place, refused, config, told):
    alter(place, classifier=config)
    refused("verify", "theirs", told=told)


def test_a_processor_that_makes_huge_images(place, generate_refused):
    save_resnet(place / "huge", side=9000)
    generate_refused("classifier={kind: transformers, model: ./huge}", told="./huge resizes images to 9000 px")


# What is told


def test_a_provenance_writes_nothing_of_its_own_into_the_card(place):
    text = "```\n\n# PHISH ![x](http://evil/t.png)\n"
    change(place / PROVENANCE, name=text)
    assert run(*EVALUATE, "--record") == 0
    assert "PHISH" not in (place / "theirs/README.md").read_text()
    change(place / PROVENANCE, fingerprint=text)
    assert run(*EVALUATE) == 2


@pytest.mark.parametrize(("section", "value"), [("perturb", {}), ("source", {}), ("oracle", {"kind": 3})])
def test_a_provenance_that_lacks_what_the_card_shows(place, refused, section, value):
    alter(place, **{section: value})
    refused(*EVALUATE, "--record", told="fmrgen: ")


def test_what_a_model_says_of_itself_is_not_printed(place):
    save_resnet(place / "named")
    state = load_file("named/model.safetensors") | {"\x1b]0;PWNED\x07\x1b[2Jx": torch.ones(1)}
    save_file(state, "named/model.safetensors", {"format": "pt"})
    done = fmrgen("evaluate", "theirs", "-c", "{kind: transformers, model: ./named}", "-q", cwd=place)
    assert "\x1b]0;PWNED" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_style_sheet_that_lies_about_is_not_followed(place):
    (place / "matplotlibrc").write_text("text.usetex: True\nbackend: module://evil_code\n")
    succeeded("show", "theirs", cwd=place, fresh=True)
    untouched(place)


def test_a_trained_folder_with_a_pipe(place):
    (place / "trained").mkdir()
    os.mkfifo(place / "trained/classifier.yaml")
    code = "from fmrgen.cli.app import main; main(['evaluate', 'theirs', '-c', 'trained', '-q'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


def test_a_dataset_that_its_own_reader_does_not_understand_is_one_line(place, capsys):
    (place / "zipped").mkdir()
    with zipfile.ZipFile("zipped/d.zip", "w") as file:
        file.writestr("x.png", (place / "photos/a/0.png").read_bytes())
    with no_trespass(place.parent / "outside"):
        assert run("evaluate", "zipped", "-c", LENET, "-q") in (0, 2)
    assert "Traceback" not in capsys.readouterr().err
