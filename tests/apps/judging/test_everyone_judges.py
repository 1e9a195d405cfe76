"""Every kind of judge on one split, from the folder to the Hub and back into an evaluation."""

import json

import pytest
from commands import fmrgen, python, run
from sheets import fill
from stored import rows
from tiny_models import save_llava

from fmrgen.apps.judging.sheet import read_sheet, write_sheet

pytestmark = pytest.mark.slow
PANEL = {
    "kind": "ensemble",
    "rule": "majority",
    "names": ["clip", "lenet", "like"],
    "oracles": [
        {"kind": "clip", "model": "asset:mnist/clip"},
        {"kind": "classifier", "classifier": "asset:mnist/lenet"},
        {"kind": "clip", "model": "asset:mnist/clip", "prompts": ["{class}"]},
    ],
}
READ = (
    "import json; from datasets import load_dataset;"
    "found = load_dataset('someone/digits', 'mnist.judgements', split='lenet');"
    "print(json.dumps([list(found['judge']), list(found['label'])]))"
)


@pytest.mark.nightly
def test_pushed_loaded_and_evaluated_from_the_repo(split, hub, tmp_path):
    chat = {"kind": "vlm", "model": str(save_llava(tmp_path / "llava")), "candidates": PANEL["oracles"][0], "top": 3}
    named = {"panel": PANEL, "like": PANEL["oracles"][2], "chat": chat, "clip": PANEL["oracles"][0]}
    told = [part for name, section in named.items() for part in ("--oracle", f"{name}={json.dumps(section)}")]
    assert run("judge", split, *told, "--quiet") == 0
    stored = rows(split)
    number = write_sheet(str(split), tmp_path / "sheet", count=40)
    fill(split, tmp_path / "sheet", tmp_path / "ann.csv", lambda shown: str(stored[shown.id]["label"]))
    read_sheet(str(split), "ann", tmp_path / "ann.csv", output=split)
    pushed = fmrgen("push", split, "someone/digits", **hub.environment)
    assert pushed.returncode == 0, pushed.stderr
    again = fmrgen("push", split, "someone/digits", **hub.environment)
    assert "already up to date" in again.stdout
    judges, labels = json.loads(python(hub, READ))
    assert {name: judges.count(name) for name in (*named, "ann")} == {
        **dict.fromkeys(named, 240),
        "ann": number,
    }
    assert all(-2 <= label < 10 for label in labels)
    done = fmrgen(
        *("evaluate", "someone/digits", "-c", "asset:mnist/lenet", "--output", tmp_path / "report"), **hub.environment
    )
    assert done.returncode == 0, done.stderr
    assert "FMR under each judge" in done.stdout
    (found,) = json.loads((tmp_path / "report/evaluation.json").read_text())["splits"]
    assert [(judge["judge"], judge["kind"]) for judge in found["judges"]] == [
        ("ann", "person"),
        *((name, "vlm" if name == "chat" else "oracle") for name in sorted(named)),
    ]
