"""Files from web addresses, from a stand-in for their hosts."""

import hashlib
import os
import threading
import zipfile
from pathlib import Path

import pytest
from hosts import Fault, Hosts

from fmrgen.errors import UserError
from fmrgen.weights.download import cached_path, downloaded, size_of_download
from fmrgen.weights.pretrained import local_file
from fmrgen.weights.remote import Remote, check_room

LARGE = 25_000_000  # more than the client writes at once, so that there is something to go on from


@pytest.fixture
def hosts(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("FMRGEN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "web").mkdir()
    hosts = Hosts(tmp_path / "web").start()
    yield hosts
    hosts.stop()


def put(hosts, name, content):
    path = hosts.root / name
    path.write_bytes(content)
    address = f"{hosts.address}/models/{name}"
    hosts.files[address] = path
    return address


def test_a_file_is_downloaded_once_and_stays_what_it_was(hosts):
    address = put(hosts, "w.pth", b"weights")
    assert size_of_download(address, "classifier.checkpoint") == 7
    path = local_file(address, "classifier.checkpoint")
    assert (path.name, path.read_bytes()) == ("w.pth", b"weights")
    assert path.with_name("w.pth.sha256").read_text().strip() == hashlib.sha256(b"weights").hexdigest()
    hosts.files.clear()
    assert downloaded(address, "classifier.checkpoint") == path
    path.write_bytes(b"other weights")
    with pytest.raises(UserError, match=r"has changed since it was downloaded from .* \(sha256 .* delete it"):
        downloaded(address, "classifier.checkpoint")


def test_a_download_that_was_cut_goes_on_where_it_stopped(hosts, monkeypatch):
    content = os.urandom(LARGE)
    address = put(hosts, "w.pth", content)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hosts.faults[address] = Fault(cut=0.6)
    assert downloaded(address, "k").read_bytes() == content
    assert [request.rpartition(" ")[2] for request in hosts.requests][-1] == "bytes=10485760-"


def test_a_killed_download_goes_on_in_another_process(hosts):
    """What a process has left behind is what another one begins with; of another version of the file it is not."""
    content = os.urandom(LARGE)
    address = put(hosts, "w.pth", content)
    hosts.faults[address] = Fault(status=503, times=9)
    with pytest.raises(UserError, match="its host returned 503"):
        downloaded(address, "k")
    (partial,) = cached_path(address).parent.glob(".*.part")
    partial.write_bytes(content[:7_000_000])
    hosts.faults.clear()
    assert downloaded(address, "k").read_bytes() == content
    assert hosts.requests[-1].endswith("bytes=7000000-")


def test_processes_that_want_one_file_download_it_once(hosts):
    address = put(hosts, "w.pth", b"w" * 1000)
    hosts.seconds = 0.3
    threads = [threading.Thread(target=downloaded, args=(address, "k")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(request.startswith("GET") for request in hosts.requests) == 1


def test_of_a_zip_archive_the_largest_file_is_kept(hosts):
    with zipfile.ZipFile(hosts.root / "w.zip", "w") as archive:
        archive.writestr("run/../../hparams.cfg", "x = 1")
        archive.writestr("run/checkpoints-run", b"w" * 100)
    address = f"{hosts.address}/w.zip"
    hosts.files[address] = hosts.root / "w.zip"
    path = downloaded(address, "k")
    assert (path.name, path.read_bytes()) == ("w", b"w" * 100)
    broken = put(hosts, "broken.zip", b"no archive")
    with pytest.raises(UserError, match="is not a readable zip archive"):
        downloaded(broken, "k")


def test_what_can_not_be_downloaded_is_one_line(hosts, tmp_path, monkeypatch):
    page = put(hosts, "page.pth", b"\n<!DOCTYPE html><p>Virus scan warning</p>")
    for address, message in (
        (
            f"{hosts.address}/none.pth",
            "its host returned 404: there is no such file any more; if it has moved, set k to",
        ),
        (page, "returns a web page, not a file; download the file yourself and set k to its path"),
        ("http://127.0.0.1:9/x", "[Errno 111] Connection refused"),
    ):
        with pytest.raises(UserError) as caught:
            downloaded(address, "k")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    for reference in ("hf:owner", "hf:owner/repo"):
        with pytest.raises(UserError, match="must be hf:OWNER/REPO/FILE or hf:OWNER/REPO/FILE@REVISION"):
            local_file(reference, "k")


def test_what_does_not_fit_on_the_disk_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setenv("FMRGEN_CACHE", str(tmp_path / "cache"))
    address = "https://example.org/w.pth"
    check_room([Remote("k", address, 10, is_here=False), Remote("k", "a/b", 10**18, is_here=True)])
    with pytest.raises(UserError, match=r"/cache: 1000000\.0 GB are to be downloaded and .* are free; .* FMRGEN_CACHE"):
        check_room([Remote("k", address, 10**15, is_here=False)])
    with pytest.raises(UserError, match=r": 2000000\.0 GB are to be downloaded and .* or set HF_HOME to a folder"):
        check_room([Remote("source.path", "a/b", 10**15, is_here=False, is_dataset=True)])


def test_the_cache_names_files_as_their_addresses_do():
    assert cached_path("https://a.org/d/256x256_diffusion_uncond.pt").name == "256x256_diffusion_uncond.pt"
    assert cached_path("https://a.org/f/867b/?dl=1").name == "file"
    assert cached_path("https://a.org/x.zip").name == "x"
    assert cached_path("https://a.org/a%2F..%2Fb") == Path(cached_path("https://a.org/a%2F..%2Fb").parent / "b")
