"""An audit in a real browser: by keys and by touch, killed and gone on, two at once, and on a page sent around."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import warm
from commands import run, wait_for
from stored import rows

from fmrgen import UserError
from fmrgen.apps.judging.audit import Audit
from fmrgen.apps.judging.server import audit_page
from fmrgen.split.judgements import UNSURE, JudgementsFolder
from fmrgen.storage.paths import SplitPaths

NONE = -1


def answers(folder, rater):
    paths = SplitPaths(Path(folder), "mnist", "lenet")
    return JudgementsFolder(paths).read(JudgementsFolder(paths).judges()[rater]).table.to_pylist()


@contextlib.contextmanager
def serving(folder, *arguments, end=signal.SIGINT):
    """`fmrgen audit` at work; gives its process and the address of its page."""
    job = warm.Process(["-m", "fmrgen", "audit", folder, *arguments], {**os.environ, "COLUMNS": "200"})
    wait_for(lambda: "\n" in job.said()[0] or job.poll() is not None)
    address = re.search(r"open (http\S+)", job.said()[0])
    assert address, job.said()[1]
    try:
        yield job, address[1]
    finally:
        if job.poll() is None:
            job.send_signal(end)
        job.communicate(timeout=30)


@pytest.fixture
def chromium():
    """Pages of a real headless Chromium, which may ask nobody but the program."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on this machine")
    complaints = []
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=path, args=["--no-sandbox"])

        def page(address, **options):
            made = opened.new_context(**options).new_page()
            made.on("pageerror", lambda error: complaints.append(str(error)))
            made.on(
                "request",
                lambda request: (
                    complaints.append(request.url)
                    if "127.0.0.1" not in request.url and not request.url.startswith(("data:", "blob:", "file:"))
                    else None
                ),
            )
            made.goto(address)
            return made

        yield page
        opened.close()
    assert complaints == []


def until(page, condition):
    """Waits for a condition in JavaScript, which the page itself forbids to be made of text."""
    wait_for(lambda: page.evaluate(condition), 30)


def label_shown(audit, rater, number):
    """What a person who sees well would say."""
    task = audit.raters[rater].tasks[number]
    return next(row["label"] for i, row in audit.rows.items() if i == task.id)


@pytest.fixture
def audit(split):
    found = Audit(str(split), ["ann", "ben"], count=52, output=split)
    found.rows = rows(split)
    return found


@pytest.mark.slow
@pytest.mark.browser
def test_sixty_images_by_keys_with_a_killed_server_between(split, audit, chromium):
    labels = [label_shown(audit, "ann", number) for number in range(len(audit.raters["ann"].tasks))]
    assert len(labels) >= 60
    told = ("--raters", "ann,ben", "--n", "52", "--port", "18431")
    with serving(split, *told, end=signal.SIGKILL) as (job, address):
        page = chromium(address)
        page.get_by_role("button", name="ann").click()
        page.get_by_text("Image 1 of").wait_for()
        for number in range(20):
            assert page.locator("#count").inner_text() == f"Image {number + 1} of {len(labels)}."
            page.keyboard.press(str(labels[number]))
        until(page, "unsent.length == 0")
        job.send_signal(signal.SIGKILL)
        job.wait()
        for number in range(20, 25):  # nobody answers: they wait in the window
            page.keyboard.press(str(labels[number]))
        page.get_by_text("Not saved yet").wait_for()
    assert [entry["label"] for entry in answers(split, "ann")] == labels[:20]
    with serving(split, *told) as (_, address):
        page.goto(address)
        page.get_by_role("button", name="ann").click()
        page.get_by_text("Image 26 of").wait_for()
        page.keyboard.press("x")
        page.keyboard.press("Backspace")
        for number in range(25, len(labels)):
            page.keyboard.press("?" if number == 30 else "x" if number == 31 else str(labels[number]))
        page.get_by_text("That was all. Thank you!").wait_for()
        until(page, "unsent.length == 0")
    labels[30], labels[31] = UNSURE, NONE
    said = answers(split, "ann")
    assert [entry["label"] for entry in said] == labels
    assert all(0 <= entry["seconds"] < 60 for entry in said)
    assert [(entry["id"], entry["which"]) for entry in said] == [(t.id, t.which) for t in audit.raters["ann"].tasks]
    assert {entry["which"] for entry in said} == {"image", "original", "reconstruction"}
    assert "| ann | person |" in (split / "README.md").read_text()


@pytest.mark.browser
def test_two_raters_at_once_one_of_them_on_a_phone(split, audit, chromium):
    with serving(split, "--raters", "ann,ben", "--n", "52") as (_, address):
        desk = chromium(address)
        phone = chromium(address, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
        desk.get_by_role("button", name="ann").click()
        phone.get_by_role("button", name="ben").tap()
        for number in range(12):
            desk.keyboard.press(str(label_shown(audit, "ann", number)))
            phone.get_by_role("group", name="answers", exact=True).get_by_role(
                "button", name=str(label_shown(audit, "ben", number))
            ).tap()
        phone.get_by_role("button", name="None of these").tap()
        phone.get_by_role("button", name="Take back").tap()
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390
        buttons = phone.locator("#choices button, #others button")
        assert all(buttons.nth(place).bounding_box()["height"] >= 40 for place in range(buttons.count()))
        last = buttons.last.bounding_box()
        assert last["y"] + last["height"] <= 844  # all of it on the screen
        for page in (desk, phone):
            until(page, "unsent.length == 0")
    for rater in ("ann", "ben"):
        assert [entry["label"] for entry in answers(split, rater)] == [label_shown(audit, rater, n) for n in range(12)]


@pytest.mark.browser
def test_a_page_that_is_sent_around_comes_back_as_a_file(split, audit, chromium, tmp_path):
    page_file = tmp_path / "page.html"
    assert run("audit", split, "--raters", "ann,ben", "--n", "52", "--export", page_file) == 0
    assert not (split / "judgements").exists()
    page = chromium(f"file://{page_file}")
    page.get_by_role("button", name="ben").click()
    total = len(audit.raters["ben"].tasks)
    for number in range(total):
        page.keyboard.press(str(label_shown(audit, "ben", number)))
        if number == 9:  # closed and opened again
            page.goto(f"file://{page_file}")
            page.get_by_role("button", name="ben").click()
            assert page.locator("#count").inner_text() == f"Image 11 of {total}."
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save my answers").click()
    saved.value.save_as(tmp_path / "answers.json")
    told = ("--raters", "ann,ben", "--n", "52", "--import", tmp_path / "answers.json")
    assert run("audit", split, *told) == 0
    assert [entry["label"] for entry in answers(split, "ben")] == [label_shown(audit, "ben", n) for n in range(total)]


def test_data_in_a_page_turns_no_direction():
    page = audit_page({"raters": ["ann"], "names": ["a\u202eb", "a\nb"], "total": 0, "images": {"ann": []}})
    assert json.loads(re.search(r'id="audit">(.*?)</script>', page)[1])["names"] == [r"a\u202eb", "a\nb"]


@pytest.mark.browser
def test_a_thousand_classes_are_searched(chromium, tmp_path):
    from timm.data import ImageNetInfo

    names = ImageNetInfo().label_descriptions()
    pixel = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
    told = {"raters": ["<b>ann</b>"], "names": names, "total": 3, "images": {"<b>ann</b>": [pixel] * 3}, "key": "k"}
    (tmp_path / "page.html").write_text(audit_page(told))
    page = chromium(f"file://{tmp_path / 'page.html'}")
    search = page.get_by_label("Type what you see, then choose")
    search.fill("tench")
    assert page.locator("#choices button").first.inner_text().endswith("tench, Tinca tinca")
    search.press("Enter")
    search.fill("sky nothing like it")
    search.press("Enter")
    assert page.locator("#count").inner_text() == "Image 2 of 3."
    search.fill("gold fi")
    page.get_by_role("button", name="goldfish, Carassius").click()
    page.keyboard.press("Backspace")
    search.fill("great white")
    search.press("Enter")
    page.get_by_role("button", name="tell").click()
    stored = page.evaluate("JSON.parse(localStorage.getItem(placeOf(rater)))")
    assert [entry["label"] for entry in stored] == [0, 2, UNSURE]


def ask(address, method, path, body=None, **headers):
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=10)
    connection.request(method, path if path.startswith("/") else place.path + path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read(), dict(answer.getheaders())


def test_who_does_not_know_the_address_gets_nothing_and_nobody_sees_more_than_the_image(split, audit):
    post = {"Content-Type": "application/json"}
    with serving(split, "--raters", "ann", "--n", "52") as (job, address):
        assert urlsplit(address).hostname == "127.0.0.1"
        assert len(urlsplit(address).path) > 20
        for path in ("/", "/wrong/", "/wrong/image?rater=ann&number=0", f"/{'a' * 22}/"):
            assert ask(address, "GET", path)[0] == 404
        assert ask(address, "GET", "", Host="evil.example:80")[0] == 404
        status, page, headers = ask(address, "GET", "")
        assert status == 200
        assert headers["Cache-Control"] == "no-store"
        told = json.loads(re.search(rb'id="audit">(.*?)</script>', page)[1])
        total = len(audit.raters["ann"].tasks)
        assert told == {"raters": ["ann"], "names": [str(digit) for digit in range(10)], "total": total}
        assert f"You will see {total} images" in page.decode()
        assert (
            f"each rater is shown {total} images: 52 perturbed, and as controls 30 originals, 3 plain" in job.said()[0]
        )
        assert json.loads(ask(address, "GET", "state?rater=ann")[1]) == {
            "done": 0,
            "total": len(audit.raters["ann"].tasks),
        }
        task = audit.raters["ann"].tasks[3]
        status, image, headers = ask(address, "GET", "image?rater=ann&number=3")
        assert image == audit.audited.images[task.id, task.which]
        assert not {"ETag", "Last-Modified"} & set(headers)
        for wrong in (
            "image?rater=ann&number=999",
            "image?rater=ann&number=-1",
            "image?rater=zoe&number=0",
            "nothing?rater=ann",
        ):
            assert ask(address, "GET", wrong)[0] == 404
        for body, headers, status in (
            ('{"rater": "ann", "number": 5, "label": 1}', post, 409),
            ('{"rater": "ann", "number": 0, "label": 10}', post, 400),
            ('{"rater": "ann", "number": 0, "label": 1.9}', post, 400),
            ('{"rater": "ann", "number": 0, "label": true}', post, 400),
            ('{"rater": "ann", "number": 0, "label": 1, "seconds": 1e400}', post, 400),
            ('{"rater": "ann", "number": Infinity, "label": 1}', post, 400),
            ('{"rater": ["ann"], "number": 0, "label": 1}', post, 400),
            ("[" * 4000, post, 400),
            ('{"rater": "ann", "number": 0, "label": "<b>"}', post, 400),
            ('{"rater": "zoe", "number": 0, "label": 1}', post, 400),
            ("[]", post, 400),
            ("{" * 3000, post, 400),
            (" " * 5000, post, 400),
            ('{"rater": "ann", "number": 0, "label": 1}', {"Content-Type": "text/plain"}, 400),
            ('{"rater": "ann", "number": 0, "label": 1}', post, 200),
            ('{"rater": "ann", "number": 0, "label": 2}', post, 200),  # the same again: its answer was lost on the way
        ):
            assert ask(address, "POST", "answer", body, **headers)[0] == status, body
        place = urlsplit(address)
        for request in (
            "GET http://[::1 HTTP/1.1\r\n\r\n",
            "GET / x HTTP/1.1\r\n\r\n",
            f"POST {place.path}answer HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
            'Content-Length: 40\r\n\r\n{"rater": "ann", "num',
        ):
            with socket.create_connection((place.hostname, place.port), timeout=10) as raw:
                raw.sendall(request.encode())
                raw.shutdown(socket.SHUT_WR)  # the rest never comes
                assert b" 400 " in raw.makefile("rb").read(100), request
        assert job.said()[1] == ""  # no traceback among what the rater sees
    (said,) = answers(split, "ann")
    assert said["label"] == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--raters", "ann,ann"], "--raters: needs each name once, for example --raters ann,ben"),
        (["--raters", ""], "--raters: needs each name once"),
        (["--raters", "people"], "judge people: that name means all people together; choose another"),
        (["--raters", "../ann"], "judge '../ann': it names a file"),
        (["--raters", "a" * 300], f"judge '{'a' * 100}': it names a file"),
        (["--raters", "ann", "--port", "99999"], "--host 127.0.0.1 --port 99999: can't listen there"),
        (["--raters", "ann", "--import", "gone.json"], "gone.json: is not a file of answers"),
    ],
)
def test_mistakes_are_told_in_a_line(split, capsys, arguments, error):
    assert run("audit", split, *arguments) == 2
    told = capsys.readouterr().err
    assert error in told
    assert told.count("\n") == 1


@contextlib.contextmanager
def served(audit, host="127.0.0.1", port=0):
    """The server of an audit, in this process; gives the address of its page."""
    with audit.server(host, port) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.address
        server.shutdown()


def test_browsers_come_in_by_the_port_of_the_web_and_by_ipv6(audit):
    with served(audit) as address:
        assert ask(address, "GET", "", Host="127.0.0.1")[0] == 200  # at port 80 a browser says no port
        assert ask(address, "GET", "", Host="LOCALHOST:80")[0] == 200
        assert ask(address, "GET", "", Host="evil.example")[0] == 404
        assert ask(address, "GET", "", Host="[::1")[0] == 400
    if not socket.has_ipv6:
        pytest.skip("no IPv6 on this machine")
    with served(audit, "::1") as address:
        assert address.startswith("http://[::1]:")
        assert ask(address, "GET", "")[0] == 200


def test_an_answer_that_could_not_be_kept_may_be_sent_again(split, audit, monkeypatch):
    def full(*arguments):
        raise UserError("ann.parquet: can't be written: No space left on device")

    body, post = '{"rater": "ann", "number": 0, "label": 1}', {"Content-Type": "application/json"}
    with served(audit) as address:
        with monkeypatch.context() as patched:
            patched.setattr("fmrgen.split.judgements.JudgementsFolder.write", full)
            status, said, _ = ask(address, "POST", "answer", body, **post)
            assert (status, json.loads(said)) == (
                503,
                {"error": "ann.parquet: can't be written: No space left on device"},
            )
            assert json.loads(ask(address, "GET", "state?rater=ann")[1])["done"] == 0
        assert ask(address, "POST", "answer", body, **post)[0] == 200
    assert [entry["label"] for entry in answers(split, "ann")] == [1]


@pytest.mark.browser
def test_the_page_keeps_what_could_not_be_saved_and_sends_it_again(split, audit, chromium, monkeypatch):
    def full(*arguments):
        raise UserError("No space left on device")

    with served(audit) as address:
        page = chromium(address)
        page.get_by_role("button", name="ann").click()
        page.get_by_text("Image 1 of").wait_for()
        with monkeypatch.context() as patched:
            patched.setattr("fmrgen.split.judgements.JudgementsFolder.write", full)
            page.keyboard.press("1")
            page.keyboard.press("2")
            page.get_by_text("Not saved yet: No space left on device").wait_for()
        until(page, "unsent.length == 0")
    assert [entry["label"] for entry in answers(split, "ann")] == [1, 2]


def test_answers_that_do_not_belong_here_are_refused(split, audit, tmp_path):
    rater = audit.raters["ann"]
    for number in range(3):
        rater.answer(number, 1, 0.5)
    paths = audit.audited.paths
    again = Audit(str(split), ["ann"], count=52, output=split).raters["ann"]
    assert again.done == 3
    with pytest.raises(UserError, match=r"was begun on other images \(--n, --seed or the split itself differed\)"):
        Audit(str(split), ["ann"], count=40, output=split)
    table = JudgementsFolder(paths).table_path("ann").read_bytes()
    rater.answer(3, 4, 0.5)
    small = JudgementsFolder(paths).table_path("ann").with_suffix(".json").read_bytes()
    JudgementsFolder(paths).table_path("ann").write_bytes(table)  # a kill between the two files
    assert Audit(str(split), ["ann"], count=52, output=split).raters["ann"].done == 3
    JudgementsFolder(paths).table_path("ann").unlink()
    with pytest.raises(UserError, match="is incomplete; delete what is left of it"):
        Audit(str(split), ["ann"], count=52, output=split)
    JudgementsFolder(paths).table_path("ann").write_bytes(table[: len(table) // 2])
    JudgementsFolder(paths).table_path("ann").with_suffix(".json").write_bytes(small)
    with pytest.raises(UserError, match="can't be read"):
        Audit(str(split), ["ann"], count=52, output=split)
    (tmp_path / "a.json").write_text(json.dumps({"key": "another", "rater": "ben", "answers": []}))
    with pytest.raises(UserError, match="has answers to other images"):
        audit.take(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(json.dumps({"key": audit.key, "rater": "zoe", "answers": []}))
    with pytest.raises(UserError, match="has answers by 'zoe'; add that name to --raters"):
        audit.take(tmp_path / "a.json")


def test_who_guesses_is_told(split, audit, tmp_path, capsys):
    """ann always says 0, ben what the label is; zoe was not asked for an original yet."""
    stored = rows(split)
    for rater, answer in (("ann", lambda task: 0), ("ben", lambda task: stored[task.id]["label"])):
        given = [{"label": answer(task)} for task in audit.raters[rater].tasks]
        (tmp_path / f"{rater}.json").write_text(json.dumps({"key": audit.key, "rater": rater, "answers": given}))
    files = ("--import", tmp_path / "ann.json", "--import", tmp_path / "ben.json")
    assert run("audit", split, "--raters", "ann,ben,zoe", "--n", "52", *files) == 0
    told = capsys.readouterr().err
    zeros = sum(stored[task.id]["label"] == 0 for task in audit.raters["ann"].tasks if task.which == "original")
    assert told.startswith(f"note: ann sees the label in {100 * zeros / 30:.2f} [")
    assert told.endswith(
        "] % of the originals, no better than chance (10 %): its verdicts on the images mean nothing\n"
    )
    assert told.count("\n") == 1


def test_a_file_of_answers_is_taken_whole_or_not_at_all(split, audit, tmp_path):
    path, total = tmp_path / "a.json", len(audit.raters["ben"].tasks)

    def take(*given):
        path.write_text(json.dumps({"key": audit.key, "rater": "ben", "answers": given}))
        return audit.take(path)

    assert take(*[{"label": 3, "seconds": 1.5}] * 10) == ("ben", 10)
    before = answers(split, "ben")
    good = {"label": 1, "seconds": 2}
    for bad, error in (
        ({"label": 77}, "label 77 is not one of the classes"),
        ({"label": True}, "label True is not one of the classes"),
        ({"label": 1.9}, "label 1.9 is not one of the classes"),
        ({"label": 1, "seconds": 10**400}, "10* is not a number of seconds"),
        ({"label": 1, "seconds": -1}, "-1 is not a number of seconds"),
        ([], "label None is not one of the classes"),
    ):
        with pytest.raises(UserError, match=f"a.json: answer 10: {error}; no answers were imported"):
            take(*[good] * 9, bad, *[good] * 5)
    with pytest.raises(UserError, match=rf"a.json: {total + 1} answers to {total} images"):
        take(*[good] * (total + 1))
    with pytest.raises(
        UserError, match=r"a.json: 9 answers, but 10 by ben are already kept; delete .*ben.parquet and the .jso"
    ):
        take(*[good] * 9)
    assert answers(split, "ben") == before
    assert take(*[good] * total) == ("ben", total)
    assert {entry["label"] for entry in answers(split, "ben")} == {1}
