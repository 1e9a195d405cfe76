"""The dossier of a release: what is there is shown, what is not is said to be missing, and every file has a digest."""

import hashlib
import json
import re

import pyarrow.parquet as pq
import pytest
from commands import fmrgen, run
from installed import needs_app

from fmrgen import UserError
from fmrgen.apps.interchange.dossier import signature, write_dossier

LENET = "asset:mnist/lenet"


def predictions(path, wrong):
    rows = [f"{row},{row % 3},{(row + (row < wrong)) % 3}" for row in range(300)]
    path.write_text("\n".join(["id,label,prediction", *rows]))
    return path


@pytest.fixture(scope="module")
def results(finished_split, tmp_path_factory):
    """What evaluate and diff wrote."""
    root = tmp_path_factory.mktemp("results")
    assert run("evaluate", finished_split, "-c", LENET, "-o", root / "evaluation", "-q") == 0
    old, new = predictions(root / "old.csv", 1), predictions(root / "new.csv", 40)
    assert run("diff", "--old", old, "--new", new, "-o", root / "diff", "-q") == 1
    return root


@needs_app("release")
def test_it_has_what_splits_and_results_hold(finished_split, results, tmp_path, capsys):
    folder = tmp_path / "dossier"
    reports = ["--report", results / "evaluation", "--report", results / "diff"]
    assert run("export", f"{finished_split}:mnist/lenet", folder, "-f", "dossier", *reports) == 0
    printed = capsys.readouterr().out
    assert "1 split with 120 images; all files are those on record; not done: judges and audits" in printed
    tree = json.loads((folder / "dossier.json").read_text())
    assert tree["schema"] == "fmrgen-dossier/1"
    assert tree["sections"] == {
        "tested": "done",
        "images": "done",
        "protocol": "done",
        "figures": "done",
        "judges": "not done",
        "failures": "partly",
        "changes": "done",
        "limits": "done",
    }
    text = (folder / "dossier.md").read_text()
    (split,) = tree["splits"]
    for shown in (split["files"], split["fingerprint"], split["classifier_sha256"], "NEW broke more", "15(5)"):
        assert shown in text
    assert "not done: no failure is confirmed by changing images; fmrgen explain" in text
    assert f"PA, perturbed accuracy over valid rows | {split['summary']['perturbed_accuracy']['value']:.2f} %" in text


def test_every_file_has_its_digest(finished_split, results, tmp_path):
    folder = tmp_path / "dossier"
    write_dossier([f"{finished_split}:mnist/lenet"], folder, [results / "evaluation"])
    sums = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files - sums.keys() == {"SHA256SUMS", "index.html"}
    for name, digest in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert signature(folder) == hashlib.sha256((folder / "SHA256SUMS").read_bytes()).hexdigest()
    listed = json.loads((folder / "dossier.json").read_text())["files"]
    assert {name: sums[name] for name in listed} == listed
    assert {"evidence/split-1-mnist-lenet/provenance.json", "evidence/result-1-evaluation/report.html"} <= listed.keys()


def test_a_split_alone_says_what_is_not_done(finished_split, tmp_path):
    report = write_dossier([f"{finished_split}:mnist/lenet"], tmp_path / "dossier")
    assert report.data["sections"]["figures"] == "partly"
    assert report.data["sections"]["changes"] == "not done"
    text = (tmp_path / "dossier/dossier.md").read_text()
    assert len(re.findall("not done: ", text)) >= 4
    assert re.search(r"15\(1\): .* \| 4, 7 \| partly; no cybersecurity", text)
    assert "Robustness assessment during the life cycle | 7 | not done" in text


def test_files_that_changed_are_named(split, tmp_path):
    shard = max(split.rglob("*.parquet"))
    pq.write_table(pq.read_table(shard), shard, compression="gzip")  # the same rows in another file
    report = write_dossier([f"{split}:mnist/lenet"], tmp_path / "dossier")
    assert len(report.warnings) == 1
    assert report.warnings[0].startswith("mnist/lenet: ")
    assert "files differ from those on record" in report.conclusions[0]


def test_a_result_of_other_files_is_named(finished_split, results, tmp_path):
    tree = json.loads((results / "evaluation/evaluation.json").read_text())
    tree["splits"][0]["files"] = "0" * 16
    (tmp_path / "other").mkdir()
    (tmp_path / "other/evaluation.json").write_text(json.dumps(tree))
    report = write_dossier([f"{finished_split}:mnist/lenet"], tmp_path / "dossier", [tmp_path / "other"])
    assert report.warnings == ["evidence/result-1-evaluation is about other files than the splits of this dossier"]


@needs_app("release")
@needs_app("explain")
def test_a_result_that_is_none_is_one_line(finished_split, results, tmp_path):
    split = f"{finished_split}:mnist/lenet"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: contains no result of fmrgen evaluate, diff, gate or explain"):
        write_dossier([split], tmp_path / "a", [tmp_path / "empty"])
    (tmp_path / "diff.json").write_text('{"schema": "fmrgen-diff/2", "verdict": 3}')
    with pytest.raises(UserError, match=r"diff\.json: "):
        write_dossier([split], tmp_path / "b", [tmp_path / "diff.json"])
    assert not (tmp_path / "b").exists()
    for hostile in ('"findings": 3', '"findings": [3]', '"files": [1]'):
        (tmp_path / "explain.json").write_text(f'{{"schema": "fmrgen-explain/2", {hostile}}}')
        with pytest.raises(UserError, match=r"explain\.json: "):
            write_dossier([split], str(tmp_path / "b"), [str(tmp_path / "explain.json")])
    (tmp_path / "diff.json").write_text('{"schema": "fmrgen-diff/99"}')
    with pytest.raises(UserError, match="has schema 'fmrgen-diff/99', this fmrgen reads fmrgen-diff/2"):
        write_dossier([split], tmp_path / "b", [tmp_path / "diff.json"])
    link = tmp_path / "linked"
    link.mkdir()
    (link / "diff.json").symlink_to(next(results.rglob("diff.json")))
    with pytest.raises(UserError, match="link"):
        write_dossier([split], tmp_path / "c", [link])


@pytest.mark.slow
def test_mistakes_are_one_line(finished_split, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    split = f"{finished_split}:mnist/lenet"
    cases = {
        ("-f", "dossier", split): "name a split, and then the folder to write to",
        ("-f", "dossier", split, "full"): "full: is not empty; choose another folder",
        (
            "-f",
            "webdataset",
            split,
            split,
            "new",
        ): "--format webdataset takes one split and no --report; only dossier takes more",
        ("-f", "dossier", "nowhere", "new"): "nowhere: neither a folder nor a dataset repo",
    }
    for arguments, line in cases.items():
        done = fmrgen("export", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert line in done.stderr
