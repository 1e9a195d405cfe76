"""Exports are read by the tools that they are for, with everything in them; tars serve as sources as they are."""

import functools
import gzip
import io
import json
import os
import shutil
import tarfile
import threading
from datetime import datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import webdataset
import yaml
from commands import launched
from datasets import ClassLabel, Dataset, Features, Image, List, Value, load_dataset
from PIL import Image as PILImage
from stored import assert_same_rows
from torchvision.datasets import ImageFolder

from fmrgen.apps.interchange.export import export
from fmrgen.errors import UserError
from fmrgen.recipe.job import load_recipe, source_config_of


def stored(folder, pattern="mnist/lenet-*.parquet"):
    """The rows of a split as they are stored, by id; images as bytes, stop reasons by name."""
    reasons = ("budget", "oracle", "rejected", "nonfinite")
    found = {}
    for path in sorted(folder.glob(pattern)):
        for row in pq.read_table(path).to_pylist():
            images = {name: row[name]["bytes"] for name in ("image", "original")}
            found[row["id"]] = row | images | {"stop_reason": reasons[row["stop_reason"]]}
    return found


def test_tars_come_back_whole_through_the_webdataset_library(finished_split, tmp_path):
    assert export(str(finished_split), tmp_path / "tars", "webdataset", tar_size=50) == 120
    names = sorted(path.name for path in (tmp_path / "tars").iterdir())
    assert names == ["lenet-000000.tar", "lenet-000001.tar", "lenet-000002.tar", "lenet.json"]
    expected, found = stored(finished_split), {}
    for sample in webdataset.WebDataset(f"{tmp_path}/tars/lenet-{{000000..000002}}.tar", shardshuffle=False):
        told = json.loads(sample["json"])
        assert sample["__key__"] == f"{told['id']:08d}"
        assert int(sample["cls"]) == told["label"]
        found[told["id"]] = {**told, "image": sample["image.png"], "original": sample["original.png"]}
    assert found == expected
    beside = json.loads((tmp_path / "tars/lenet.json").read_text())
    assert beside["classes"] == [str(digit) for digit in range(10)]
    assert beside["provenance"] == json.loads((finished_split / "provenance/mnist/lenet.json").read_text())
    assert [tar["rows"] for tar in beside["tars"]] == [50, 50, 20]
    assert Features.from_dict(beside["columns"])["stop_reason"].names[0] == "budget"
    export(str(finished_split), tmp_path / "again", "webdataset", tar_size=50)
    for name in names:
        assert (tmp_path / "tars" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_tars_and_folders_come_back_through_load_dataset(finished_split, tmp_path):
    export(str(finished_split), tmp_path / "tars", "webdataset")
    export(str(finished_split), tmp_path / "folders", "imagefolder")
    expected = stored(finished_split)
    tars = load_dataset("webdataset", data_files=f"{tmp_path}/tars/lenet-*.tar", split="train")
    for name in ("image.png", "original.png"):
        tars = tars.cast_column(name, Image(decode=False))
    for row in tars:
        told = row["json"] | {name: row[f"{name}.png"]["bytes"] for name in ("image", "original")}
        assert told == expected[row["json"]["id"]]
    folders = load_dataset("imagefolder", data_dir=f"{tmp_path}/folders", split="train")
    assert len(folders) == len(tars) == 120
    for row in folders:
        wanted = expected[row["id"]]
        for name in ("image", "original"):
            assert row[name].convert("RGB").tobytes() == PILImage.open(io.BytesIO(wanted[name])).tobytes()
        rest = wanted.keys() - {"image", "original"}
        assert {name: row[name] for name in rest} == {name: wanted[name] for name in rest}
    folder = ImageFolder(tmp_path / "folders/image")
    assert [label for _, label in folder.samples] == sorted(row["label"] for row in expected.values())


CLASSES = ["zebra", "../../etc", "a/b", ".hidden", "crane", "crane", "<b>&", ""]


def foreign(tmp_path, **columns):
    """A stranger's split: JPEG, two channels more than needed, classes in no order and with names of every kind."""
    buffer = io.BytesIO()
    PILImage.new("RGB", (20, 12), "teal").save(buffer, "JPEG")
    rows = len(CLASSES)
    image = {"bytes": buffer.getvalue(), "path": None}
    data = {
        "label": list(range(rows)),
        "picture": [None] * rows,
        "image": [image] * rows,
        "score": [float("nan")] * rows,
    }
    features = {"label": ClassLabel(names=["n" * (i + 1) for i in range(rows)]), "picture": Image(), "image": Image()}
    features |= {"score": Value("float32")}
    dataset = Dataset.from_dict(data, Features(features))
    names = columns.get("names")
    if names:
        table = dataset.data.table
        known = json.loads(table.schema.metadata[b"huggingface"])
        known["info"]["features"]["label"]["names"] = names
        table = table.replace_schema_metadata({b"huggingface": json.dumps(known).encode()})
        pq.write_table(table, tmp_path / "foreign.parquet")
    else:
        dataset.to_parquet(str(tmp_path / "foreign.parquet"))
    return f"{tmp_path}/foreign.parquet", buffer.getvalue()


def test_a_strangers_split_and_names_that_lead_elsewhere(tmp_path):
    names = [name or "nothing" for name in CLASSES]
    names[5] = "crane 2"
    split, jpeg = foreign(tmp_path, names=names)
    export(split, tmp_path / "deep/er/folders", "imagefolder")
    root = tmp_path / "deep/er/folders"
    found = sorted(path.name for path in (root / "image").iterdir())
    assert len(found) == len(names)
    assert [name[0] for name in found] == [str(label) for label in range(len(names))]  # in the order of the labels
    assert not (tmp_path / "etc").exists()
    assert {path.read_bytes() for path in root.rglob("*.jpg")} == {jpeg}
    told = [json.loads(line) for line in (root / "metadata.jsonl").read_text().splitlines()]
    assert [row["label"] for row in told] == list(range(len(names)))
    assert all(row["score"] is None and "picture_file_name" not in row for row in told)
    export(split, tmp_path / "tars", "webdataset")
    samples = list(webdataset.WebDataset(f"{tmp_path}/tars/split-000000.tar", shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"{row:08d}" for row in range(len(names))]
    assert all(sample["image.jpg"] == jpeg for sample in samples)


def test_what_is_in_the_place_is_not_overwritten_and_what_was_interrupted_is(finished_split, tmp_path):
    for form, place in (("imagefolder", "folders"), ("webdataset", "tars")):
        export(str(finished_split), tmp_path / place, form)
        with pytest.raises(UserError, match="choose another folder"):
            export(str(finished_split), tmp_path / place, form)
    partial = tmp_path / ".new.partial/image/0"
    partial.mkdir(parents=True)
    (partial / "old.png").write_bytes(b"")
    (tmp_path / "new").mkdir()
    export(str(finished_split), tmp_path / "new", "imagefolder")
    assert not list((tmp_path / "new").rglob("old.png"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/lenet-imagenet.tar").write_bytes(b"precious")
    for form in ("imagefolder", "webdataset"):
        with pytest.raises(UserError, match="is not empty; choose another folder"):
            export(str(finished_split), tmp_path / "mine", form)
    assert (tmp_path / "mine/lenet-imagenet.tar").read_bytes() == b"precious"
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    export(str(finished_split), tmp_path / "link", "webdataset")
    assert (tmp_path / "real/lenet.json").exists()
    assert [path.name for path in tmp_path.glob(".*")] == [".new.partial"]  # of another run, which may still be at work


PNG = io.BytesIO()
PILImage.new("L", (4, 4)).save(PNG, "PNG")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": (ClassLabel(names=["a"]), [-1, 0])}, "row 0 has no label"),
        ({"label": (Value("int64"), [1, None])}, "row 1 has no label"),
        ({"image": (Image(), [PNG.getvalue(), None])}, "row 1 has no image"),
        ({"../../evil": (Image(), [PNG.getvalue()] * 2)}, "the image column '../../evil' has a name that no file can"),
        ({"when": (List(Value("timestamp[s]")), [[datetime(2026, 1, 1)]] * 2)}, "the column when holds datetime"),
        ({"views": (List(Image()), [[PNG.getvalue()]] * 2)}, "the column views contains"),
    ],
)
def test_what_no_format_can_hold_is_one_line(tmp_path, columns, message):
    told = {"image": (Image(), [PNG.getvalue()] * 2), "label": (Value("int64"), [0, 1]), **columns}
    data = {name: values for name, (_, values) in told.items()}
    dataset = Dataset.from_dict(data, Features({name: feature for name, (feature, _) in told.items()}))
    dataset.to_parquet(str(tmp_path / "x.parquet"))
    for form in ("imagefolder", "webdataset"):
        with pytest.raises(UserError) as error:
            export(f"{tmp_path}/x.parquet", tmp_path / form, form)
        assert message in str(error.value)
        assert not (tmp_path / form).exists()


def test_labels_without_names_keep_their_order_and_their_folders_apart(tmp_path):
    def folders(labels):
        data = {"image": [PNG.getvalue()] * len(labels), "label": labels, "n": [[1.0, float("nan")]] * len(labels)}
        features = {"image": Image(), "label": Value("int64" if isinstance(labels[0], int) else "string")}
        dataset = Dataset.from_dict(data, Features(features | {"n": List(Value("float32"))}))
        dataset.to_parquet(str(tmp_path / "x.parquet"))
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        export(f"{tmp_path}/x.parquet", out, "imagefolder")
        rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
        assert all(row["n"] == [1.0, None] for row in rows)
        return [row["image_file_name"].split("/")[1] for row in rows]

    numbers = folders([10, 2, 0])
    assert sorted(numbers) == [numbers[2], numbers[1], numbers[0]]
    words = folders(["a/b", "a_b", "..", "x" * 300, "a/b"])
    assert words[0] == words[4]
    assert len(set(words)) == 4
    assert all(0 < len(word) < 255 for word in words)


# Tars as sources


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Sixty digits as class folders, and the same ones in four tars, in the order of the folders."""
    root = tmp_path_factory.mktemp("digits")
    source = load_recipe("mnist-lenet", ["source.limit=60"]).source.build()
    for example in source.read(0, 60):
        path = root / f"folders/{example.label}/{example.id:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        example.image.save(path)
    files = sorted((root / "folders").rglob("*.png"))
    (root / "tars").mkdir()
    for number in range(4):
        with tarfile.open(root / f"tars/d-{number}.tar", "w") as tar:
            for place in range(number * 16, min(60, number * 16 + 16)):
                add(tar, f"some/where/{place:04d}.cls", files[place].parent.name.encode())
                add(tar, f"some/where/{place:04d}.json", json.dumps({"name": files[place].parent.name}).encode())
                add(tar, f"some/where/{place:04d}.png", files[place].read_bytes())
    return root


def add(tar, name, content, **options):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for option, value in options.items():
        setattr(member, option, value)
    tar.addfile(member, io.BytesIO(content))


def tars(urls, **options):
    section = {
        "kind": "webdataset",
        "urls": urls if isinstance(urls, list) else str(urls),
        "classes": [str(digit) for digit in range(10)],
        **options,
    }
    return source_config_of(section, "test").build()


def examples(source, *spans):
    spans = spans or ((0, len(source)),)
    return [(e.id, bytes(e.image), e.label) for start, stop in spans for e in source.read(start, stop)]


def test_names_beside_tars_are_not_waited_for(digits, tmp_path):
    tar = Path(shutil.copy(digits / "tars/d-0.tar", tmp_path))
    os.mkfifo(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("[" * 100_000)
    told = {"tars": [{"name": tar.name}], "classes": [f"digit {number}" for number in range(10)]}
    (tmp_path / "c.json").write_text(json.dumps(told))
    assert tars(tar, classes=None).labels.names[3] == "digit 3"


@pytest.fixture(scope="module")
def served(digits):
    """The address of the digits' folder on a web server."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(digits / "tars"))
    handler.log_message = lambda *arguments: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.slow
def test_tars_make_the_same_split_as_the_folder_they_were_made_of(digits, tmp_path):
    sources = {
        "folder": {"kind": "imagefolder", "path": str(digits / "folders")},
        "tars": {"kind": "webdataset", "urls": f"{digits}/tars/d-{{0..3}}.tar", "classes": [str(d) for d in range(10)]},
    }
    base = yaml.safe_load(yaml.safe_dump({"extends": "_mnist", "perturb": {"budget": 4, "step_size": 0.1}}))
    found = {}
    for name, source in sources.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**base, "source": source, "output": {"shard_size": 7}}))
    for name, processes in (("folder", 1), ("tars", 2)):
        for result in launched(processes, "generate", tmp_path / f"{name}.yaml", "-o", tmp_path / name, "-q"):
            assert result.returncode == 0, result.stderr
        found[name] = stored(tmp_path / name)
    assert_same_rows(found["tars"], found["folder"])


def test_tars_are_read_from_any_position_wherever_they_are(digits, served):
    files = f"{digits}/tars/d-{{0..3}}.tar"
    everything = examples(tars(files))
    assert [number for number, *_ in everything] == list(range(60))
    assert examples(tars(f"{digits}/tars/d-[0-3].tar")) == everything
    spans = ((0, 7), (14, 21), (28, 35), (56, 60), (3, 5))
    wanted = [everything[i] for start, stop in spans for i in range(start, stop)]
    assert examples(tars(files), *spans) == wanted
    commands = [f"pipe:cat {digits}/tars/d-{number}.tar" for number in range(4)]
    for urls, options in (
        (f"{served}/d-{{0..3}}.tar", {}),
        (f"{served}/d-{{0..3}}.tar", {"tar_size": 16}),
        (commands, {}),
        (commands, {"tar_size": 16}),
    ):
        assert examples(tars(urls, limit=60, **options), *spans) == wanted
        assert examples(tars(urls, limit=30, **options)) == everything[:30]
    grouped = {"classes": {"even": ["0", "2", "4"], "seven": "7"}}
    wanted = examples(tars(files, **grouped))
    assert {label for *_, label in wanted} == {0, 1}
    assert examples(tars(f"{served}/d-{{0..3}}.tar", limit=10, **grouped), (0, 4), (6, 10)) == wanted[:4] + wanted[6:10]
    assert examples(tars(files, label="json.name", limit=20)) == everything[::3]  # they are sorted by class


def test_an_export_is_a_source_with_its_classes(finished_split, tmp_path):
    export(str(finished_split), tmp_path, "webdataset")
    source = source_config_of({"kind": "webdataset", "urls": f"{tmp_path}/lenet-000000.tar"}, "test").build()
    assert source.labels.names == tuple(str(digit) for digit in range(10))
    expected = stored(finished_split)
    assert examples(source) == [(i, expected[i]["original"], expected[i]["label"]) for i in range(120)]


@pytest.mark.parametrize(
    ("urls", "options", "message"),
    [
        ("{root}/none-{{0..2}}.tar", {}, "source.urls: {root}/none-0.tar and 2 other files do not exist"),
        ("{root}/none-*.tar", {}, "source.urls: {root}/none-*.tar: no such file"),
        ("{root}/folders", {}, "source.urls: {root}/folders is a folder without a nshards.txt that can be read"),
        ("{root}/tars/text.tar", {}, "text.tar: can't be read as a tar"),
        ("{root}/tars/cut.tar", {}, "cut.tar: can't be read as a tar: unexpected end of data"),
        ("{served}/d-0.tar", {}, "source.limit: how many samples the tars contain is only known for files; set it"),
        ("{served}/d-7.tar", {"limit": 5}, "d-7.tar: can't be read as a tar"),
        (
            "{served}/d-{{0..1}}.tar",
            {"limit": 60},
            "source.limit: the tars end after 32 samples; start again with that",
        ),
        (
            "{served}/d-{{0..3}}.tar",
            {"limit": 60, "tar_size": 10},
            "source.tar_size: {served}/d-0.tar holds more samples than 10",
        ),
        ("pipe:exit 3 # SECRET", {"limit": 5}, "source.urls: pipe:exit …: can't be read as a tar"),
        ("{served}/d-{{0..3}}.tar", {"limit": 16, "tar_size": 10}, "d-0.tar holds more samples than 10"),
        ("{served}/d-{{0..3}}.tar", {"limit": 60, "tar_size": 20}, "d-0.tar holds 16 samples, not 20"),
        (
            "{root}/tars/d-0.tar",
            {"label": "txt"},
            "source.label: sample 0 has no member txt, only cls, json, png; set",
        ),
        ("{root}/tars/d-0.tar", {"label": "json.nothing"}, "source.label: the json of sample 0 has no nothing in it"),
        ("{root}/tars/d-0.tar", {"image": ["tif"]}, "source.image: sample 0 has no member tif, only cls, json, png"),
        ("{root}/tars/d-{{0..3.tar", {}, "source.urls: a brace in it is not closed"),
        ("{root}/tars/corrupt.tar", {}, "corrupt.tar: can't be read as a tar: at byte"),
        ("{root}/tars/edge.tar", {}, "edge.tar: can't be read as a tar: at byte"),
        ("{root}/tars/zeros.tar", {}, "zeros.tar: can't be read as a tar: there is data after its end"),
        ("pipe:cat {root}/tars/edge.tar", {"limit": 16}, "source.urls: pipe:cat …: can't be read as a tar: at byte"),
        ("pipe:cat {root}/tars/zeros.tar", {"limit": 16}, "can't be read as a tar: there is data after its end"),
        ("{root}/tars/twice.tar", {}, "two members are called x.png"),
        ("{root}/tars/d-0.tar.gz", {}, "is it compressed? pipe:gzip -dc"),
        (
            "http://me:SECRET@127.0.0.1:9/x.tar?token=SECRET",
            {"limit": 5},
            "source.urls: http://127.0.0.1:9/x.tar: can't",
        ),
        ("nowhere://x.tar", {"limit": 5}, "can't read nowhere:// here"),
        ("{root}/tars/d-3.tar", {"classes": ["a"]}, "outside the 1 classes"),
        ("{root}/tars/d-0.tar", {"classes": None}, "source.classes: the source has no class names, list them here"),
        ("{root}/tars/d-0.tar", {"image": []}, "source.image: must be a list of at least 1, it has 0"),
        ("{root}/tars/d-0.tar", {"tar_size": 0}, "source.tar_size"),
    ],
)
def test_mistakes_with_tars_are_one_line(digits, served, urls, options, message):
    (digits / "tars/text.tar").write_text("no tar\n" * 200)
    good = (digits / "tars/d-0.tar").read_bytes()
    third = good.index(b"0002.", 512) if b"0002." in good else 3 * 1536
    third -= third % 512
    (digits / "tars/cut.tar").write_bytes(good[:5000])
    (digits / "tars/corrupt.tar").write_bytes(good[:third] + b"x" * 512 + good[third + 512 :])
    (digits / "tars/zeros.tar").write_bytes(good[:third] + bytes(1024) + good[third + 1024 :])
    (digits / "tars/edge.tar").write_bytes(good[:third])
    (digits / "tars/d-0.tar.gz").write_bytes(gzip.compress(good))
    with tarfile.open(digits / "tars/twice.tar", "w") as tar:
        for name in ("x.png", "x.cls", "x.png"):
            add(tar, name, b"1")
    names = {"root": digits, "served": served}
    with pytest.raises(UserError) as error:
        examples(tars(urls.format(**names), **options))
    assert message.format(**names) in str(error.value)
    assert "\n" not in str(error.value)
    assert "SECRET" not in str(error.value)
