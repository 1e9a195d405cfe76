"""A classifier behind an address: a real server, with faults."""

import base64
import gzip
import io
import json
import math
import random
import re
import threading
import time
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from commands import run
from datasets import load_dataset
from PIL import Image

from fmrgen import evaluate, verify
from fmrgen.classifiers.endpoint import Config
from fmrgen.classifiers.networks import endpoint_client as client
from fmrgen.config import ComponentConfig
from fmrgen.engine.perturb import perturb
from fmrgen.errors import UserError
from fmrgen.recipe.job import load_recipe, parse_classifier

LENET = "asset:mnist/lenet"
CHECKS = 3  # kept answers that are asked for again


@pytest.fixture
def server(monkeypatch, tmp_path):
    """LeNet behind an address; `faults` is the share of requests that fail, `form` what an answer is made of."""
    monkeypatch.setenv("FMRGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(client, "_wait", lambda stop, seconds: None)
    network = parse_classifier(LENET)[1].build()
    lock, chance = threading.Lock(), random.Random(0)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections stay open

        def setup(self):
            super().setup()
            server.connections += 1

        def do_POST(self):
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                server.requests.append(dict(self.headers))
                server.paths.append(self.path)
                fault = (
                    chance.choice(["500", "429", "cut", "text", "drop"]) if chance.random() < server.faults else None
                )
            if fault in ("500", "429"):
                self.send_response(int(fault))
                self.send_header("Retry-After", chance.choice(["1", "²"]))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault == "drop":
                self.close_connection = True
                return
            inputs = told["inputs"] if isinstance(told["inputs"], list) else [told["inputs"]]
            server.asked += inputs
            files = [io.BytesIO(base64.b64decode(one)) for one in inputs]
            images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
            with lock, torch.no_grad():
                logits = server.factor * network(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
            answers = []
            for scores in logits.softmax(1).tolist():
                best = sorted(enumerate(scores), key=lambda pair: -pair[1])[: told["parameters"]["top_k"]]
                answers.append([{"label": server.names[label], "score": score} for label, score in best])
            answer = server.form(answers if isinstance(told["inputs"], list) else answers[0])
            body = b"busy, try later" if fault == "text" else server.raw or json.dumps(answer).encode()
            self.send_response(server.status)
            self.send_header("Content-Length", str(len(body)))
            if server.encoding:
                self.send_header("Content-Encoding", server.encoding)
            if server.location:
                self.send_header("Location", server.location)
            self.end_headers()
            if fault == "cut":
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
                return
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.requests, server.faults, server.status, server.location = [], 0.0, 200, None
    server.encoding = None
    server.paths, server.factor = [], 1.0  # of its logits: another model
    server.raw, server.connections, server.asked = None, 0, []
    server.names, server.form = [str(digit) for digit in range(10)], lambda answer: answer
    server.address = f"http://127.0.0.1:{server.server_port}/classify"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def predictions(found):
    table = found.predictions.to_pandas().sort_values("id")
    return table[["id", "prediction", "original_prediction"]].to_numpy()


@pytest.mark.slow
def test_with_faults_no_row_is_lost_and_none_is_asked_about_twice(server, finished_split):
    server.faults = 0.05
    expected = evaluate([str(finished_split)], [LENET], progress=False)
    found = evaluate([str(finished_split)], [server.address], progress=False)
    assert (predictions(found) == predictions(expected)).all()
    assert found.classifiers[0].name == server.address.removeprefix("http://")
    server.faults = 0.0
    asked, images = len(server.requests), len(set(server.asked))
    again = evaluate([str(finished_split)], [server.address], progress=False)
    assert (predictions(again) == predictions(found)).all()
    assert len(set(server.asked)) == images  # what was answered is kept
    assert len(server.requests) <= asked + CHECKS


def noise(count):
    return torch.rand((count, 3, 32, 32), generator=torch.Generator().manual_seed(0))


def test_connections_are_kept_and_an_image_is_sent_once(server):
    network = Config(url=server.address, requests=4, kept_hours=0, class_names=server.names).build()
    images = noise(12)
    found = network(images[[*range(12), *range(12), 0, 0]])
    assert torch.equal(found[:12], found[12:24])
    assert len(server.requests) == len(set(server.asked)) == 12
    network(noise(6))
    assert server.connections <= 4


def test_several_images_in_a_request(server):
    one = Config(url=server.address, kept_hours=0).build()
    expected = one(noise(10))
    server.requests.clear()
    several = Config(url=server.address, kept_hours=0, batch=4, class_names=server.names).build()
    assert torch.allclose(several(noise(10)), expected, atol=1e-5)
    assert len(server.requests) == 3
    server.form = lambda answers: answers[0]
    with pytest.raises(UserError, match=r"answered .* to 4 images; set classifier\.batch=1"):
        several(noise(4))


def test_it_holds_to_a_rate_which_processes_share(server, monkeypatch):
    pauses = []
    monkeypatch.setattr(client, "_wait", lambda stop, seconds: pauses.append(seconds))
    monkeypatch.setattr(client.time, "monotonic", lambda: 1000.0)  # no time goes by
    Config(url=server.address, kept_hours=0, rate=50, class_names=server.names).build()(noise(11))
    assert sorted(pauses) == pytest.approx([place / 50 for place in range(11)])
    pauses.clear()
    monkeypatch.setenv("WORLD_SIZE", "2")
    Config(url=server.address, kept_hours=0, rate=50, class_names=server.names).build()(noise(11))
    assert max(pauses) == pytest.approx(10 / 25)


def test_it_stops_at_so_many_queries_and_goes_on_with_as_many_again(server):
    found, said = None, []
    for _ in range(4):
        network = Config(url=server.address, max_queries=5, requests=2, class_names=server.names).build()
        try:
            found = network(noise(12))
            break
        except UserError as error:
            said.append(str(error))
    assert found is not None
    assert (
        said
        == [
            f"{server.address}: {said[0].split()[1]} images asked about, and classifier.max_queries is 5; "
            "run the same command again to go on, with as many again"
        ]
        * 2
    )
    assert len(set(server.asked)) == 12
    assert len(server.asked) <= 12 + 2 * CHECKS


@pytest.mark.slow
def test_a_model_that_changes_leaves_no_mixture(server, finished_split, caplog):
    """An evaluation that stops twice, in between another model: all answers are the new one's."""
    section = f"{{kind: endpoint, url: '{server.address}', max_queries: 50}}"

    with pytest.raises(UserError):
        evaluate([str(finished_split)], {"net": section}, progress=False)
    assert not caplog.messages
    server.factor = -1.0  # each of its answers is another one
    for _ in range(2):
        with pytest.raises(UserError, match="run the same command again to go on"):
            evaluate([str(finished_split)], {"net": section}, progress=False)
    new = None
    for _ in range(9):
        with suppress(UserError):
            new = (
                new
                if new is not None
                else predictions(evaluate([str(finished_split)], {"net": section}, progress=False))
            )
    assert re.search(r"\d+ kept answers were deleted: the model behind", caplog.messages[0])
    assert "are the same" in caplog.messages[1]
    expected = predictions(evaluate([str(finished_split)], {"net": Opposite()}, progress=False))
    assert (new == expected).all()


class Opposite(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.network = parse_classifier(LENET)[1].build()

    def forward(self, images):
        return -self.network(images)


@pytest.mark.slow
def test_a_model_that_changes_while_it_is_asked(server, finished_split, monkeypatch):
    form = server.form

    def change(answer):
        server.factor = 0.5 if len(server.asked) > 60 else 1.0
        return form(answer)

    server.form = change
    with pytest.raises(UserError, match=r"the model behind it was changed while it was asked \(\d of \d images"):
        evaluate([str(finished_split)], [server.address], progress=False)
    monkeypatch.setattr(client, "_CHECK_EVERY", 0.0)
    server.factor, server.form = 1.0, form
    network = Config(url=server.address, class_names=server.names).build()
    network(noise(4))
    server.factor = 0.5
    with pytest.raises(UserError, match="run the same command again"):
        network(noise(8))


def test_rounding_is_no_change():
    assert client._is_same({"a": 0.8712, "b": 0.1288}, {"a": 0.87, "b": 0.13})
    assert client._is_same({"a": 0.9999, "b": 0.0001}, {"a": 1.0})
    assert not client._is_same({"a": 0.87, "b": 0.13}, {"a": 0.80, "b": 0.20})


@pytest.mark.slow
@pytest.mark.parametrize("kept_hours", [24, 0])
def test_a_split_is_not_made_against_two_models(server, tmp_path, capsys, kept_hours):
    """It is seen by the rows that are there, also where no answer is kept: on another machine, or a day later."""
    section = f"{{kind: endpoint, url: '{server.address}', max_queries: 100, kept_hours: {kept_hours}}}"
    recipe = ["perturb.budget=2", "perturb.queries=4", "perturb.step_size=0.1", "perturb.update=nes"]
    command = ["generate", "mnist-lenet", *recipe, "output.shard_size=4", "perturb.slots=4", "--limit", "12"]
    command += [f"classifier={section}", "-o", str(tmp_path / "out"), "-q"]
    assert run(*command) == 2
    shards = sorted((tmp_path / "out/mnist").glob("*.parquet"))
    assert 0 < len(shards) < 3
    before = [shard.read_bytes() for shard in shards]
    server.factor = 0.5
    capsys.readouterr()
    assert run(*command) == 2
    assert re.search(r"answers otherwise than it did for the rows that are there \(of id \d", capsys.readouterr().err)
    assert sorted((tmp_path / "out/mnist").glob("*.parquet")) == shards
    assert [shard.read_bytes() for shard in shards] == before
    server.factor = 1.0
    while run(*command):
        pass
    assert verify(str(tmp_path / "out"), trust=True).disagreements == []


def test_too_few_queries_for_every_process_are_refused(server, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    for rank in "0123":
        monkeypatch.setenv("RANK", rank)
        Config(url=server.address, max_queries=4).build()
    with pytest.raises(UserError, match=r"classifier\.max_queries: 3 is not enough .*; set 4 or more"):
        Config(url=server.address, max_queries=3).build()


def test_a_password_in_the_address_is_refused():
    with pytest.raises(UserError, match="an address with a password would be stored with every split"):
        parse_classifier("{kind: endpoint, url: 'https://user:pw@host/x'}")


@pytest.mark.parametrize(
    "query",
    [
        "api_key=SECRET",
        "a=1&Subscription-Key=SECRET",
        "code=SECRET",
        "x_SIG=SECRET",
        "SECRET",
        "k=SECRET",
        "version=a%20SECRET",
    ],
)
def test_a_key_in_the_address_is_refused_and_not_repeated(query):
    section = f"{{kind: endpoint, url: 'https://host/x?{query}'}}"
    for text in (f"https://host/x?{query}", section, section[:-1]):
        with pytest.raises(UserError, match="stored with every split; set FMRGEN_ENDPOINT_QUERY|not YAML") as raised:
            parse_classifier(text)
        assert "SECRET" not in str(raised.value)
    assert parse_classifier("https://host/x?api-version=2024-02-15-preview&deployment=resnet")[0] == "host/x"


@pytest.mark.slow
def test_a_key_of_the_environment_is_sent_and_stands_nowhere(server, monkeypatch, tmp_path, finished_split, caplog):
    monkeypatch.setenv("FMRGEN_ENDPOINT_QUERY", "?api_key=SECRET/123")
    server.names[3] = "SECRET/123"
    assert run("evaluate", str(finished_split), "-c", f"{server.address}?v=0", "-o", str(tmp_path / "e"), "-q") == 2
    assert {*server.paths} == {"/classify?v=0&api_key=SECRET/123"}
    server.names[3] = "3"
    assert run("evaluate", str(finished_split), "-c", f"{server.address}?v=1", "-o", str(tmp_path / "e"), "-q") == 0
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 5
    assert not [path for path in written if b"SECRET" in path.read_bytes()]
    assert "SECRET" not in caplog.text


def test_an_echo_of_a_secret_is_masked_however_it_is_spelled(server, monkeypatch):
    monkeypatch.setenv("FMRGEN_ENDPOINT_TOKEN", "SECRET+1/23")
    monkeypatch.setenv("FMRGEN_ENDPOINT_QUERY", "api_key=OTHERKEY")
    address = f"{server.address}?api_key=OTHERKEY"
    for echo in (
        "SECRET+1/23",
        "SECRET%2B1%2F23",
        "SECRET%2B1/23",
        base64.b64encode(b"Bearer SECRET+1/23").decode(),
        base64.b64encode(b"Authorization: Bearer SECRET+1/23\r\n").decode(),
        base64.urlsafe_b64encode(b"SECRET+1/23").decode(),
        address,
    ):
        for form in ({"error": f"no {echo}"}, [{"label": f"no {echo}", "score": 9}], [{"label": echo, "score": 1}]):
            server.form = lambda answer, form=form: form
            network = Config(url=server.address, kept_hours=0).build()
            try:
                shown = str(network.class_names)
            except UserError as error:
                shown = str(error)
            assert "…" in shown
            assert not re.search("SECRET|U0VDUkVUKz|NFQ1JFVC|TRUNSRVQrM|OTHERKEY", shown)


def test_a_query_is_for_safe_addresses_alone(server, monkeypatch):
    monkeypatch.setenv("FMRGEN_ENDPOINT_QUERY", "api_key=SECRET123")
    with pytest.raises(UserError, match="FMRGEN_ENDPOINT_QUERY would be sent there unencrypted"):
        Config(url="http://example.com/y").build()(noise(1))
    gone = f"http://127.0.0.1:{server.server_port}1/" if server.server_port < 6000 else "http://127.0.0.1:9/"
    with pytest.raises(UserError, match="can't be reached") as raised:
        Config(url=gone + "long" * 20, kept_hours=0).build()(noise(1))
    assert "SECRET" not in str(raised.value)
    monkeypatch.setenv("FMRGEN_ENDPOINT_QUERY", "api_key=SECRET 123")
    with pytest.raises(
        UserError,
        match=r"^FMRGEN_ENDPOINT_QUERY contains a character that can't be sent; copy it again, or write it as %XX",
    ):
        Config(url=server.address, kept_hours=0).build()(noise(1))


def test_one_failure_ends_the_others(server, monkeypatch):
    monkeypatch.undo()  # it waits
    server.status, server.faults = 401, 0.5
    started = time.monotonic()
    with pytest.raises(UserError, match="answered 401"):
        Config(url=server.address, kept_hours=0, requests=4, class_names=server.names).build()(noise(40))
    assert len(server.requests) < 40
    assert time.monotonic() - started < 60


def test_how_it_is_asked_is_no_part_of_a_split(server):
    def fingerprint(*change):
        changes = [f"classifier={{kind: endpoint, url: '{server.address}', {', '.join(change)}}}", "perturb.update=nes"]
        return load_recipe("mnist-lenet", changes).fingerprint

    plain = fingerprint()
    assert fingerprint("rate: 5", "max_queries: 7", "requests: 3", "timeout: 5", "kept_hours: 1") == plain
    assert fingerprint("top_k: 7") != plain


class Scored(torch.nn.Module):
    """What the server answers, without a server."""

    def __init__(self):
        super().__init__()
        self.network = parse_classifier(LENET)[1].build()

    def forward(self, images):
        with torch.no_grad():
            scores = torch.cat([self.network(image[None]) for image in images]).softmax(1)
        return torch.tensor([[math.log(max(score, 1e-38)) for score in row] for row in scores.tolist()])


@pytest.mark.nightly
def test_a_split_of_its_own(server, tmp_path, capsys):
    """A job that stops twice, against a server that fails: the rows of the same network at hand, no question twice."""
    server.faults = 0.05
    recipe = [
        "perturb.budget=3",
        "perturb.queries=8",
        "perturb.step_size=0.1",
        "output.shard_size=4",
        "perturb.slots=24",
    ]
    wanted = [
        *recipe,
        f"classifier={{kind: endpoint, url: '{server.address}', max_queries: 200}}",
        "perturb.update=nes",
    ]
    assert run("generate", "mnist-lenet", *wanted, "--limit", "12", "-o", str(tmp_path / "out"), "--dry-run") == 0
    assert "image-steps" in capsys.readouterr().out
    ends = []
    while not ends or (ends[-1] and len(ends) < 6):
        ends.append(run("generate", "mnist-lenet", *wanted, "--limit", "12", "-o", str(tmp_path / "out"), "-q"))
    assert ends[-1] == 0
    assert ends[0] == 2
    answered = len(set(server.asked))
    assert len(server.asked) <= 1.2 * answered  # again after a fault alone
    found = load_dataset(str(tmp_path / "out"), "mnist", split="lenet")
    local = load_recipe("mnist-lenet", [*recipe, "source.limit=12"])
    components = local.build()
    options = replace(local.perturb, update="nes", control=0)
    examples = [loaded.for_engine() for loaded in components.source.load(0, 12, 32)]
    rows = {row.id: row for row in perturb(examples, Scored().eval(), components.generator, components.oracle, options)}
    assert len(found) == len(rows) == 12
    for row in found:
        expected = rows[row["id"]]
        assert np.array_equal(np.asarray(row["image"]), expected.image.permute(1, 2, 0).numpy())
        assert (row["iterations"], row["queries"]) == (expected.iterations, expected.queries)
    assert max(found["queries"]) == 1 + 1 + 3 * 9
    asked = len(set(server.asked))
    (result,) = evaluate([str(tmp_path / "out")], [server.address], progress=False).results
    assert result.conditioned
    assert verify(str(tmp_path / "out"), trust=True).disagreements == []
    assert len(set(server.asked)) == asked  # all images of a split have been answered


@pytest.mark.slow
def test_interrupted_it_goes_on(server, finished_split):
    server.faults = 1.0
    with pytest.raises(UserError, match="8 times; run the same command again later"):
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
    assert (few(image) > math.log(2e-38)).sum() == 3
    assert few(image).argmax() == expected.argmax()


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (
            lambda answer: {"error": "loading"},
            'answered {"error": "loading"}, 8 times; run the same command again later',
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
        (lambda answer: [{"label": "0", "score": 10**400}], "not a list of labels with scores"),
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
    with pytest.raises(UserError, match="recursion limit exceeded.*, 8 times; run the same command again later"):
        Config(url=server.address, kept_hours=0).build()(torch.zeros(1, 3, 8, 8))


def test_an_answer_without_end(server):
    server.raw = b" " * (200 << 20)
    network = Config(url=server.address, kept_hours=0).build()
    tracemalloc.start()
    with pytest.raises(UserError, match="an answer has more than 16 MB; set a smaller"):
        network(torch.zeros(1, 3, 8, 8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 << 20
    assert len(server.requests) == 1


def test_packed_answers_are_refused(server):
    server.raw, server.encoding = gzip.compress(b" " * (200 << 20)), "gzip"
    with pytest.raises(UserError, match="answers in the encoding 'gzip', which was not asked for"):
        Config(url=server.address, kept_hours=0).build()(torch.zeros(1, 3, 8, 8))
    assert server.requests[0]["Accept-Encoding"] == "identity"
    assert len(server.requests) == 1


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
    with pytest.raises(UserError, match="answered 401 Unauthorized; check the address, and FMRGEN_ENDPOINT_TOKEN or"):
        Config(url=server.address).build()(torch.zeros(1, 3, 8, 8))
    server.status = 200
    with pytest.raises(UserError, match="that is not in class_names"):
        Config(url=server.address, class_names=["a", "b"]).build()(torch.zeros(1, 3, 8, 8))


def token_for(url):
    return Config(url=url).build()._answers._session.headers.get("Authorization")


def test_the_hubs_token_is_for_the_hub_alone(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    Config(url=server.address, kept_hours=0).build()(torch.zeros(1, 3, 8, 8))
    assert not any("Authorization" in request for request in server.requests)
    assert token_for("https://router.huggingface.co/y") == "Bearer hf_secret"
    for other in (
        "https://someone-space.hf.space/y",
        "https://x.endpoints.huggingface.cloud/y",
        "https://evilhuggingface.co/y",
        "http://huggingface.co/y",
    ):
        assert token_for(other) is None
    monkeypatch.setenv("FMRGEN_ENDPOINT_TOKEN", "own")
    assert token_for(server.address) == "Bearer own"
    with pytest.raises(
        UserError, match="FMRGEN_ENDPOINT_TOKEN would be sent there unencrypted; use https, or unset it"
    ):
        token_for("http://example.com/y")


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
    with pytest.raises(UserError, match=r"^FMRGEN_ENDPOINT_TOKEN contains a character that can't be sent"):
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
