"""Tars of webdataset: files, patterns and addresses, labels, and what is missing or broken."""

import functools
import io
import json
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from fmrgen.errors import UserError
from fmrgen.recipe.job import load_recipe
from fmrgen.sources.base import LoadedExample, SkippedExample


def write_tar(path, samples):
    with tarfile.open(path, "w") as tar:
        for name, content in (
            (f"{key}.{ending}", held) for key, held_by in samples for ending, held in held_by.items()
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def png(grey):
    buffer = io.BytesIO()
    Image.new("L", (8, 8), grey).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def tars(tmp_path, monkeypatch):
    """Three tars of four grey images: sample i has the grey i, the label i % 2 and its class's name."""
    for number in range(3):
        samples = []
        for i in range(4 * number, 4 * number + 4):
            about = json.dumps({"name": ["cat", "dog"][i % 2]}).encode()
            samples.append((f"photo{i:03}", {"PNG": png(i), "cls": str(i % 2).encode(), "json": about}))
        write_tar(tmp_path / f"val-{number}.tar", samples)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def source(urls, **keys):
    section = {"kind": "webdataset", "urls": urls, "classes": ["cat", "dog"], **keys}
    return load_recipe("mnist-lenet", [f"source={json.dumps(section)}", "output.config=c"]).source.build()


def found(urls, start=0, stop=None, **keys):
    built = source(urls, **keys)
    examples = list(built.load(start, len(built) if stop is None else stop, 8))
    return [(example.id, int(example.image[0, 0, 0]), example.label) for example in examples]


ALL = [(i, i, i % 2) for i in range(12)]


@pytest.mark.parametrize("urls", ["val-{0..2}.tar", "val-*.tar", ["val-0.tar", "val-{1..2}.tar"]])
def test_braces_patterns_and_lists_are_the_same_samples(tars, urls):
    assert found(urls) == ALL
    assert found(urls, 5, 9) == ALL[5:9]
    assert found(urls, limit=3) == ALL[:3]


def test_as_many_samples_are_counted_as_are_read(tars):
    meta = ("__index__/about", {"json": b"{}"})  # which the library passes over
    write_tar(
        tars / "meta.tar",
        [meta, ("a.b/c", {"png": png(7), "cls": b"1", "CLS2": b"0"}), ("d", {"png": png(8), "cls": b"0"})],
    )
    assert len(source("meta.tar")) == 2
    assert found("meta.tar") == [(0, 7, 1), (1, 8, 0)]
    cut = (tars / "val-0.tar").read_bytes()[:5000]
    (tars / "cut.tar").write_bytes(cut)
    with pytest.raises(UserError, match=r"source.urls: cut.tar: can't be read as a tar"):
        found("cut.tar")


def test_labels_by_name_from_a_key_of_a_json_member(tars):
    assert found("val-{0..2}.tar", label="json.name") == ALL
    with pytest.raises(UserError, match=r"source.label: sample 0 has no colour in its json"):
        found("val-0.tar", label="json.colour")


def test_tars_on_the_web_need_a_limit(tars):
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(SimpleHTTPRequestHandler, directory=tars))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        urls = f"http://127.0.0.1:{server.server_port}/val-{{0..2}}.tar"
        assert found(urls, limit=6) == ALL[:6]
        with pytest.raises(UserError, match=r"source.limit: how many samples the tars contain is only known for files"):
            source(urls)
        with pytest.raises(UserError, match=r"the tars end after 12 samples; start again with that limit"):
            found(urls, limit=13)
    finally:
        server.shutdown()
        server.server_close()


def test_a_sample_without_an_image_is_an_error_or_left_out(tars):
    write_tar(tars / "gap.tar", [("a", {"png": png(7), "cls": b"1"}), ("b", {"cls": b"0"})])
    with pytest.raises(UserError, match=r"source.image: sample 1 has no member jpg, .*, only cls"):
        found("gap.tar")
    built = source("gap.tar", on_error="skip")
    built.on_error = "skip"
    kept, left_out = built.load(0, 2, 8)
    assert isinstance(kept, LoadedExample)
    assert np.all(kept.image == 7)
    assert isinstance(left_out, SkippedExample)


def test_what_is_no_tar_and_what_runs_a_command_is_refused(tars):
    (tars / "text.tar").write_text("no tar")
    for urls, error in (
        ("text.tar", "source.urls: text.tar: can't be read as a tar"),
        ("gone-{0..3}.tar", "source.urls: gone-0.tar does not exist"),
        ("val-{0..2.tar", "source.urls: a brace in it is not closed"),
        ("pipe:touch ran", "source.urls: pipe:touch ran does not exist"),
    ):
        with pytest.raises(UserError, match=error):
            found(urls)
    assert not (tars / "ran").exists()
