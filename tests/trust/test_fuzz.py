"""Whatever others hand in, fmrgen answers with a result or with one line: files, rows, addresses and answers at random.

For longer than in CI: `for i in $(seq 20); do pytest tests/trust/test_fuzz.py --hypothesis-profile thorough --hypothesis-seed $i; done`.
"""

import io
import json
import os
import shutil
import tarfile
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from notes import noted
from photos import encoded
from PIL import Image
from safetensors.torch import save
from served import Handler, Server
from torch import nn
from watched import no_trespass

from fmrgen import evaluate, verify
from fmrgen.errors import UserError
from fmrgen.files import is_inside
from fmrgen.generators.networks.vqgan_files import _read_flax, _read_weights
from fmrgen.image_files import MOST_PIXELS, open_rgb, path_inside
from fmrgen.jobs.show import show
from fmrgen.jobs.verify_files import verify_files
from fmrgen.publish.card import data_named, write_card
from fmrgen.recipe.sections import source_config_of
from fmrgen.sources.base import LoadedExample, SkippedExample
from fmrgen.trust.cards import places_named
from fmrgen.weights.checkpoint import load_checkpoint

LENET = "asset:mnist/lenet"
_SLOWEST = 5.0  # seconds that anything of some kilobytes may take


def fuzz(share=1.0):
    """Settings of a test whose examples cost 1 / `share` of the cheapest ones."""
    examples = max(10, int(settings.default.max_examples * share))
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


# Bytes that were altered somewhere, cut, doubled or joined with others.
edits = st.lists(
    st.one_of(
        st.tuples(st.just("byte"), st.integers(0, 2**20), st.integers(0, 255)),
        st.tuples(st.just("word"), st.integers(0, 2**20), st.sampled_from([0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1])),
        st.tuples(st.just("cut"), st.integers(0, 2**20), st.integers(0, 4096)),
        st.tuples(st.just("insert"), st.integers(0, 2**20), st.binary(max_size=32)),
        st.tuples(st.just("end"), st.integers(0, 2**20), st.none()),
    ),
    min_size=1,
    max_size=6,
)  # fmt: skip


def altered(content, changes):
    content = bytearray(content)
    for what, place, value in changes:
        place %= len(content) + 1
        if what == "byte" and place < len(content):
            content[place] = value
        elif what == "word":
            content[place : place + 4] = value.to_bytes(4, "big")
        elif what == "cut":
            del content[place : place + value]
        elif what == "insert":
            content[place:place] = value
        elif what == "end":
            del content[place:]
    return bytes(content)


values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8),
        st.sampled_from(["../../secret", "/etc/passwd", "pipe:touch ran", "evil_code:Net", "\x1b[2J", "1e999", "mnist"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)  # fmt: skip


def with_value(tree, path, value):
    """A JSON tree with another value somewhere: `path` chooses among the keys on the way down."""
    if not path or not isinstance(tree, dict | list) or not tree:
        return value
    keys = sorted(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key, copy = keys[path[0] % len(keys)], tree.copy()
    if value is None and len(path) == 1:
        del copy[key]
    else:
        copy[key] = with_value(tree[key], path[1:], value)
    return copy


def outcome(call):
    """What `call` returns; None where it ends by its one line."""
    try:
        return call()
    except UserError as error:
        told = str(error)
    assert "\n" not in told
    return None


class Timed:
    """Fails where what is done takes long."""

    def __enter__(self):
        self.started = time.process_time()

    def __exit__(self, *error):
        assert error[0] is not None or time.process_time() - self.started < _SLOWEST


# Images


def noise(kind, mode="RGB", **options):
    return encoded(Image.effect_noise((24, 16), 80).convert("RGB").convert(mode), kind, **options)


def corpus():
    exif = Image.Exif()
    exif[0x0112] = 6
    found = [
        noise("PNG"), noise("PNG", "RGBA"), noise("PNG", "P"), noise("JPEG", exif=exif), noise("JPEG", "CMYK"),
        noise("WEBP"), noise("GIF", "P"), noise("BMP"), noise("TIFF"), noise("TIFF", compression="tiff_lzw"),
        noise("TIFF", "F"), noise("PPM"), noise("TGA"), noise("ICO"), noise("PCX"), noise("SGI"), noise("DDS"),
        noise("JPEG2000"), noise("IM"), noise("MSP", "1"), noise("XBM", "1"), noise("BLP", "P"), noise("QOI"),
        noise("EPS"), noise("AVIF"), noise("SPIDER", "F"), noise("PDF"),
    ]  # fmt: skip
    return [*found, encoded(np.arange(384, dtype=np.uint16).reshape(16, 24)), b"", b"\0" * 64]


def pillow_writes(make):
    with suppress(KeyError, OSError, ValueError):
        return make()
    return []


IMAGES = pillow_writes(corpus)


@fuzz(3)
@given(st.sampled_from(range(len(IMAGES))), edits)
def test_images(number, changes):
    content = altered(IMAGES[number], changes)
    with Timed():
        image = outcome(lambda: open_rgb(content))
    if image is not None:
        assert image.mode == "RGB"
        assert image.width * image.height <= MOST_PIXELS


# Paths and addresses

parts = st.sampled_from(
    ["a.png", "in", "out", "..", ".", "", "link", "~", "C:", "x.zip", "::", "://", "zip://", "zip:/", "file://", "http://h",
     "hf://datasets/a/b@", "hf://datasets/a/b@1/", "%2e%2e", "\\", "\0", "\n", "*", "?", "#", "/", "//", "secret.png"]
)  # fmt: skip


@fuzz(10)
@given(st.lists(parts, max_size=9), st.sampled_from(["", "/"]), st.booleans())
@example(["secret.png", "::", "in", "/", "a.png"], "", True)
def test_paths(tmp_path_factory, pieces, between, absolute):
    root = tmp_path_factory.getbasetemp() / "paths"
    inside = root / "in"
    if not root.exists():
        inside.mkdir(parents=True)
        (root / "secret.png").touch()
        (inside / "a.png").touch()
        (inside / "link").symlink_to(root)
    text = between.join(pieces)
    text = f"{inside}/{text}" if absolute else text

    def held(file):
        return "://" not in file and "\0" not in file and is_inside(Path(file), inside)

    place = path_inside(text, held)
    if place is not None:
        assert place.rpartition("::")[2].startswith(f"{inside.resolve()}/")
        assert ".." not in place.rpartition("::")[2].split("/")
        assert all(member.startswith("zip://") for member in place.split("::")[:-1])


# Splits


@pytest.fixture(scope="module")
def theirs(finished_split, tmp_path_factory):
    root = tmp_path_factory.mktemp("theirs")
    shutil.copytree(finished_split, root / "out")
    return root / "out"


def readers(folder, out):
    """Everything that reads a folder of splits."""
    reference = f"{folder}:mnist/lenet"
    yield lambda: verify_files(reference)
    yield lambda: show(reference, out / "shown", gallery=4)
    yield lambda: evaluate([reference], [LENET], batch_size=64)
    yield lambda: verify(reference)
    yield lambda: write_card(folder)


def read_all_ways(folder, which=range(5)):
    out = folder.parent / "read"
    for number, reader in enumerate(readers(folder, out)):
        if number not in which:
            continue
        outcome(reader)
        shutil.rmtree(out, ignore_errors=True)


@fuzz(0.2)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), values, st.integers(0, 4))
def test_provenance(theirs, path, value, which):
    file = theirs / "provenance/mnist/lenet.json"
    told = file.read_text()
    try:
        file.write_text(json.dumps(with_value(json.loads(told), path, value)))
        with no_trespass(theirs):
            read_all_ways(theirs, [which])
    finally:
        file.write_text(told)


@fuzz(0.2)
@given(
    edits,
    st.sampled_from(["provenance/mnist/lenet.json", "README.md", "mnist/lenet-00001-of-00003.parquet"]),
    st.integers(0, 4),
)
def test_files_of_a_split(theirs, changes, name, which):
    before = {path: path.read_bytes() for path in (theirs / name, theirs / "README.md")}
    try:
        (theirs / name).write_bytes(altered((theirs / name).read_bytes(), changes))
        with no_trespass(theirs):
            read_all_ways(theirs, [which])
    finally:
        for path, content in before.items():
            path.write_bytes(content)


cells = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(), st.text(max_size=6), st.binary(max_size=20),
    st.sampled_from(["/etc/passwd", "zip://a::/etc/passwd", "http://127.0.0.1:9/x"]).map(lambda path: {"bytes": None, "path": path}),
    st.sampled_from(IMAGES or [b""]).map(lambda content: {"bytes": content, "path": None}),
)  # fmt: skip


@fuzz(0.2)
@given(
    st.dictionaries(
        st.sampled_from(["image", "original", "label", "id", "valid", "iterations", "stop_reason", "clip_score", "x"]),
        st.lists(cells, min_size=3, max_size=3),
        min_size=1,
    )
)
def test_rows_of_anybody(tmp_path_factory, columns):
    path = tmp_path_factory.getbasetemp() / "rows.parquet"
    arrays = {}
    for name, column in columns.items():
        with suppress(pa.ArrowException, OverflowError):
            arrays[name] = pa.array(column)
    if not arrays:
        return
    with suppress(pa.ArrowException):  # what parquet can't hold
        pq.write_table(pa.table(arrays), path)
        row_readers = [lambda: evaluate([str(path)], [LENET]), lambda: show(str(path), path.parent / "shown")]
        for reader in row_readers:
            with suppress(UserError), no_trespass(path.parent / "nowhere"):
                reader()


@fuzz()
@given(st.one_of(st.text(), st.binary().map(lambda content: content.decode(errors="replace"))), values, st.booleans())
def test_cards(tmp_path_factory, text, value, wrapped):
    import yaml

    root = tmp_path_factory.getbasetemp() / "cards"
    root.mkdir(exist_ok=True)
    content = f"---\n{yaml.safe_dump({'configs': value, 'license': value})}---\n{text}" if wrapped else text
    (root / "README.md").write_text(content)
    for reader in (
        lambda: data_named(root / "README.md", "x"),
        lambda: places_named(content, True, "x"),
        lambda: places_named(content, False, "x"),
        lambda: write_card(root),
    ):
        outcome(reader)


# Weights and tars

NETWORK = nn.Linear(3, 2)


def checkpoints():
    state = NETWORK.state_dict()
    files = {"x.safetensors": save(state)}
    for name, legacy in (("zip.pth", False), ("old.pth", True)):
        buffer = io.BytesIO()
        torch.save({"state_dict": state, "epoch": 3}, buffer, _use_new_zipfile_serialization=not legacy)
        files[name] = buffer.getvalue()
    return files


CHECKPOINTS = checkpoints()
opcodes = st.lists(
    st.sampled_from(
        [b"c__builtin__\neval\n", b"cos\nsystem\n", b"ctorch\nload\n", b"ctorch.storage\n_load_from_bytes\n", b"(", b"t", b"R",
         b"b", b"o", b"V__import__('os').system('touch ran')\n", b"X\x05\x00\x00\x00state", b"}", b"]", b"s", b"u", b"e", b"0",
         b"2", b"q\x00", b"h\x00", b"N", b"K\x01", b"\x81", b"\x93", b"i__builtin__\neval\n", b"P1\n", b"Q"]
    ),
    max_size=12,
).map(lambda codes: b"\x80\x02" + b"".join(codes) + b".")  # fmt: skip


@fuzz(0.3)
@given(st.sampled_from(sorted(CHECKPOINTS)), st.one_of(edits, opcodes))
def test_checkpoints(tmp_path_factory, name, change):
    root = tmp_path_factory.getbasetemp() / "weights"
    root.mkdir(exist_ok=True)
    path = root / name
    content = CHECKPOINTS[name]
    if isinstance(change, bytes) and name == "zip.pth":
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
            for member in old.namelist():
                new.writestr(member, change if member.endswith("data.pkl") else old.read(member))
        content = buffer.getvalue()
    else:
        content = change if isinstance(change, bytes) else altered(content, change)
    path.write_bytes(content)
    with no_trespass(root), Timed():
        readers = (lambda: _read_weights(path, "w"), lambda: _read_flax(path, "w"))
        for reader in (lambda: load_checkpoint(nn.Linear(3, 2), str(path)), *readers):
            outcome(reader)
    assert not os.path.exists("ran")


def a_tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(4):
            for ending, content in (("png", IMAGES[0] if IMAGES else b"x"), ("cls", b"1"), ("json", b'{"a": 1}')):
                member = tarfile.TarInfo(f"{number}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@fuzz()
@given(edits)
def test_tars(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / "x.tar"
    path.write_bytes(altered(a_tar(), changes))
    section = {"kind": "webdataset", "urls": str(path), "classes": ["a", "b"], "on_error": "skip"}
    with no_trespass(path.parent / "nowhere"), Timed(), suppress(UserError):
        source = source_config_of(section, "x").build()
        source.on_error = "skip"
        for loaded in source.load(0, len(source), 16):
            assert isinstance(loaded, LoadedExample | SkippedExample)


# The Hub's answers


@pytest.fixture(scope="module")
def nonsense():
    """A Hub whose answers are `nonsense.body`, and the environment for it."""

    class Nonsense(Handler):
        def respond(self):
            self.content()
            self.reply(server.status, server.body, server.headers)

    with Server(Nonsense) as server:
        yield server


INFO = {
    "_id": "1", "id": "someone/x", "author": "someone", "sha": "0" * 40, "private": False, "gated": False, "disabled": False,
    "lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z", "tags": [], "downloads": 0, "likes": 0,
    "siblings": [{"rfilename": "README.md", "blobId": "a", "size": 3}, {"rfilename": "c/s.parquet", "lfs": {"sha256": "b", "size": 1, "pointerSize": 1}}],
}  # fmt: skip


@fuzz(0.3)
@given(
    st.sampled_from([200, 200, 200, 404, 401, 403, 429, 500]),
    st.one_of(st.binary(max_size=40), st.tuples(st.lists(st.integers(0, 20), min_size=1, max_size=4), values)),
    st.dictionaries(st.sampled_from(["Retry-After", "RateLimit", "X-Error-Code", "X-Error-Message", "Location", "Link"]),
                    st.sampled_from(["0", "-1", "1e9", "9" * 30, "EntryNotFound", "RepoNotFound", '"api";r=0;t=99', "x"]), max_size=3),
)  # fmt: skip
def test_answers_of_a_hub(nonsense, monkeypatch, status, answer, headers):
    from huggingface_hub import constants

    from fmrgen.hub import client as hub_module
    from fmrgen.publish.repo import HubRepo

    body = answer if isinstance(answer, bytes) else json.dumps(with_value(INFO, *answer)).encode()
    nonsense.status, nonsense.body, nonsense.headers = status, body, headers
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_module.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(hub_module, "_ATTEMPTS", 2)
    repo = HubRepo("someone/x")
    repo.api.endpoint = nonsense.address
    with noted() as notes:
        for ask in (repo.fetch_state, repo.is_private, repo.tags, repo.log_in):
            outcome(ask)
    assert all("\n" not in line for line in notes)
