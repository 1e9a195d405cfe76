"""A classifier behind an address: a real server, with faults."""

import base64
import io
import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image

from fmrgen import evaluate
from fmrgen.classifiers.endpoint import Config
from fmrgen.classifiers.networks import endpoint_client as client
from fmrgen.config import ComponentConfig
from fmrgen.errors import UserError
from fmrgen.recipe.job import parse_classifier

LENET = "asset:mnist/lenet"


@pytest.fixture
def server(monkeypatch, tmp_path):
    """LeNet behind an address; `faults` is the share of requests that fail, `form` what an answer is made of."""
    monkeypatch.setenv("FMRGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(client.time, "sleep", lambda seconds: None)
    network = parse_classifier(LENET)[1].build()
    lock, chance = threading.Lock(), random.Random(0)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                server.requests.append(dict(self.headers))
                fault = (
                    chance.choice(["500", "429", "cut", "text", "drop"]) if chance.random() < server.faults else None
                )
            if fault in ("500", "429"):
                self.send_response(int(fault))
                self.send_header("Retry-After", chance.choice(["1", "²"]))
                self.end_headers()
                return
            if fault == "drop":
                self.close_connection = True
                return
            image = np.asarray(Image.open(io.BytesIO(base64.b64decode(told["inputs"]))).convert("RGB"))
            with lock, torch.no_grad():
                logits = network(torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255)[0]
            scores = logits.softmax(0).tolist()
            best = sorted(enumerate(scores), key=lambda pair: -pair[1])[: told["parameters"]["top_k"]]
            answer = server.form([{"label": server.names[label], "score": score} for label, score in best])
            body = b"busy, try later" if fault == "text" else server.raw or json.dumps(answer).encode()
            self.send_response(server.status)
            self.send_header("Content-Length", str(len(body)))
            if server.location:
                self.send_header("Location", server.location)
            self.end_headers()
            body = body[: len(body) // 2] if fault == "cut" else body
            for place in range(len(body)) if server.drips else []:
                self.wfile.write(body[place : place + 1])
                threading.Event().wait(0.01)
            self.wfile.write(b"" if server.drips else body)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.requests, server.faults, server.status, server.location = [], 0.0, 200, None
    server.raw, server.drips = None, False
    server.names, server.form = [str(digit) for digit in range(10)], lambda answer: answer
    server.address = f"http://127.0.0.1:{server.server_port}/classify"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def predictions(found):
    table = found.predictions.to_pandas().sort_values("id")
    return table[["id", "prediction", "original_prediction"]].to_numpy()


def test_with_faults_no_row_is_lost_and_none_is_asked_about_twice(server, finished_split):
    server.faults = 0.05
    expected = evaluate([str(finished_split)], [LENET], progress=False)
    found = evaluate([str(finished_split)], [server.address], progress=False)
    assert (predictions(found) == predictions(expected)).all()
    assert found.classifiers[0].name == server.address.removeprefix("http://")
    asked = len(server.requests)
    again = evaluate([str(finished_split)], [server.address], progress=False)
    assert (predictions(again) == predictions(found)).all()
    assert len(server.requests) == asked  # what was answered is kept


def test_interrupted_it_goes_on(server, finished_split):
    server.faults = 1.0
    with pytest.raises(UserError, match="8 times; run the same command again later, its answers so far are kept"):
        evaluate([str(finished_split)], [server.address], progress=False)
    server.faults = 0.0
    assert len(evaluate([str(finished_split)], [server.address], progress=False).predictions) == 120


def test_other_forms_of_answers(server):
    image = torch.zeros(1, 3, 32, 32)
    expected = Config(url=server.address).build()(image)
    assert Config(url=server.address).build().class_names == [str(digit) for digit in range(10)]
    server.form = lambda answer: [answer]
    nested = Config(url=server.address, kept_hours=0).build()
    assert torch.equal(nested(image), expected)
    server.names = [f"LABEL_{digit}" for digit in range(10)]
    counted = Config(url=server.address, kept_hours=0).build()
    assert torch.equal(counted(image), expected)
    assert counted.class_names is None
    few = Config(url=server.address, kept_hours=0, top_k=3, class_names=server.names).build()
    assert few(image).isfinite().sum() == 3
    assert few(image).argmax() == expected.argmax()


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (
            lambda answer: {"error": "loading"},
            "answered {'error': 'loading'}, 8 times; run the same command again later",
        ),
        (
            lambda answer: {"logits": [1, 2]},
            "not a list of labels with scores from 0 to 1; it must answer as the Hub's",
        ),
        (
            lambda answer: [{"label": "crane", "score": 0.5}] * 2,
            "calls several classes 'crane'; give each its own name",
        ),
        (lambda answer: [{"label": "x"}], "not a list of labels with scores"),
        (lambda answer: [{"label": "0", "score": 7}], "not a list of labels with scores"),
        (lambda answer: [], "not a list of labels with scores"),
    ],
)
def test_answers_that_are_none(server, form, message):
    server.form = form
    with pytest.raises(UserError, match=message):
        Config(url=server.address, kept_hours=0).build()(torch.zeros(1, 3, 8, 8))
    assert len(server.requests) == (8 if "8 times" in message else 1)


def test_an_answer_nested_too_deeply(server):
    server.raw = b"[" * 100_000
    with pytest.raises(UserError, match=r"answered \[{80}, not a list of labels with scores"):
        Config(url=server.address, kept_hours=0).build()(torch.zeros(1, 3, 8, 8))
    assert len(server.requests) == 1


def test_an_answer_that_drips(server):
    server.drips = True
    with pytest.raises(UserError, match=r"its answer is not complete after 0\.2 s, 8 times"):
        Config(url=server.address, kept_hours=0, timeout=0.2).build()(torch.zeros(1, 3, 8, 8))


def test_kept_answers_that_are_broken(server, tmp_path):
    network = Config(url=server.address).build()
    network(torch.zeros(1, 3, 8, 8))
    (file,) = (tmp_path / "cache/endpoints").iterdir()
    file.write_bytes(file.read_bytes()[:4096] + b"x" * 8192)
    with pytest.raises(UserError, match=rf"^{file}: broken or not writable \(.+\); delete it$"):
        network(torch.zeros(1, 3, 8, 8))
    file.write_text("no database")
    with pytest.raises(UserError, match=rf"^{file}: broken or not writable \(file is not a database\); delete it$"):
        Config(url=server.address).build()


def test_refusals_and_classes_that_nobody_named(server):
    server.status = 401
    with pytest.raises(UserError, match="answered 401 Unauthorized; check the address, and FMRGEN_ENDPOINT_TOKEN"):
        Config(url=server.address).build()(torch.zeros(1, 3, 8, 8))
    server.status = 200
    with pytest.raises(UserError, match="that is not in class_names"):
        Config(url=server.address, class_names=["a", "b"]).build()(torch.zeros(1, 3, 8, 8))


def test_the_hubs_token_is_for_the_hub_alone(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    Config(url=server.address, kept_hours=0).build()(torch.zeros(1, 3, 8, 8))
    assert not any("Authorization" in request for request in server.requests)
    assert client._token("https://router.huggingface.co/y") == "hf_secret"
    for other in (
        "https://someone-space.hf.space/y",
        "https://x.endpoints.huggingface.cloud/y",
        "https://evilhuggingface.co/y",
        "http://huggingface.co/y",
    ):
        assert client._token(other) is None
    monkeypatch.setenv("FMRGEN_ENDPOINT_TOKEN", "own")
    assert client._token(server.address) == "own"
    with pytest.raises(
        UserError, match="FMRGEN_ENDPOINT_TOKEN would be sent there unencrypted; use https, or unset it"
    ):
        client._token("http://example.com/y")


@pytest.mark.parametrize("token", ["SECRET123\n", " SECRET123\r\n", "SECRET123"])
def test_a_token_is_sent_without_the_space_around_it_and_never_printed(server, monkeypatch, token):
    monkeypatch.setenv("FMRGEN_ENDPOINT_TOKEN", token)
    Config(url=server.address, kept_hours=0).build()(torch.zeros(1, 3, 8, 8))
    assert server.requests[-1]["Authorization"] == "Bearer SECRET123"
    server.form = lambda answer: {"error": "no model for Bearer SECRET123"}
    with pytest.raises(UserError, match="no model for Bearer …") as raised:
        Config(url=server.address, kept_hours=0).build()(torch.zeros(1, 3, 8, 8))
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize("token", ["SECRET\n123", "SECRET€", "SECRETé", "SECRET\x7f"])
def test_a_token_that_is_none_is_not_sent(server, monkeypatch, token):
    monkeypatch.setenv("FMRGEN_ENDPOINT_TOKEN", token)
    with pytest.raises(
        UserError, match=r"^FMRGEN_ENDPOINT_TOKEN contains a character that no token has; copy it again$"
    ):
        Config(url=server.address).build()(torch.zeros(1, 3, 8, 8))
    assert server.requests == []


def test_who_sends_one_elsewhere_is_not_followed(server, listener, monkeypatch):
    monkeypatch.setenv("FMRGEN_ENDPOINT_TOKEN", "own")
    server.status, server.location = 302, f"http://127.0.0.1:{listener.port}/x"
    with pytest.raises(UserError, match="answered 302 Found; check the address"):
        Config(url=server.address).build()(torch.zeros(1, 3, 8, 8))
    assert listener.requests == []


def test_a_strangers_endpoint_is_a_place(server):
    config = Config(url=server.address)
    assert config.places_it_reads() == [server.address]
    assert isinstance(config, ComponentConfig)
    with pytest.raises(UserError, match="must begin with http"):
        parse_classifier("{kind: endpoint, url: 'ftp://x'}")
