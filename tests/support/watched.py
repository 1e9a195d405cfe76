"""What code or a page may do, watched: files, processes, addresses."""

import json
import os
import re
import shutil
import sys
from contextlib import contextmanager

import pytest


@contextmanager
def no_trespass(place, reads=True):
    """Fails where a process is started, a host is asked, a module of the folder is imported, or a secret is opened;
    without `reads` also where any file of the folder is."""
    seen = []
    watched = {"on": True}

    def hook(event, arguments):
        if not watched["on"]:
            return
        if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"):
            seen.append((event, arguments[:1]))
        elif event in ("socket.connect", "socket.getaddrinfo") and "AF_UNIX" not in str(arguments[0]):
            seen.append((event, str(arguments)))
        elif (
            event == "open"
            and isinstance(arguments[0], str)
            and ("secret" in arguments[0] or (not reads and str(place) in os.path.abspath(arguments[0])))
        ):
            seen.append((event, arguments[0]))
        elif event == "exec" and str(place) in str(getattr(arguments[0], "co_filename", "")):
            seen.append((event, arguments[0].co_filename))
        elif event == "import" and arguments[0].partition(".")[0] in ("evil_code", "evil", "somebody"):
            seen.append((event, arguments[0]))

    sys.addaudithook(hook)
    try:
        yield
    finally:
        watched["on"] = False
    assert seen == []


def columns_of(page):
    """The rows of the first gallery in the file of a page, a list for each column."""
    return json.loads(re.search(r'id="galleries">(.*?)</script>', page.read_text())[1])[0]["columns"]


@contextmanager
def browser(width=1200, height=900, *, scripts=True, may_complain=False):
    """A page of a real headless Chromium, without `scripts` one that runs none; leaving it fails where the page
    complained, unless it may, or asked the network."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    complaints, asked = [], []
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = opened.new_page(viewport={"width": width, "height": height}, java_script_enabled=scripts)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        yield page
        opened.close()
    assert may_complain or complaints == []
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []


def show_all(page):
    """Shows every card of a gallery."""
    while page.locator("#more").is_visible():
        page.locator("#more").click()
