"""Studies: parts that are ordinary jobs, claims with their verdicts, and the shipped ones."""

import json
import os
import random
import re
import signal
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import warm
from commands import fmrgen, run
from fakes import ranked
from places import ROOT
from safetensors.torch import load_file

from fmrgen.apps.studies.claims import Claim, ClaimFound, _unpaired, find_claim
from fmrgen.apps.studies.parts import ComparePart, Cost, Work
from fmrgen.apps.studies.shipped import describe_studies
from fmrgen.apps.studies.study import Study, load_study, run_study, study_lines
from fmrgen.apps.studies.study_report import _claims_table, _part_sections
from fmrgen.errors import UserError
from fmrgen.metrics.intervals import Estimate
from fmrgen.metrics.summary import summarise
from fmrgen.recipe.job import describe_recipes
from fmrgen.results.evaluation import SCHEMA, EvaluatedClassifier, Evaluation, Result
from fmrgen.results.own_splits import OwnComparison, OwnRank

OWN = """\
title: two LeNets
paper: as it says
by_class: true
small:
  notes: [takes a minute]
  parts:
    - train: train/mnist-lenet
      name: brief
      change: [schedule.threads=1, schedule.steps=60, schedule.batch_size=32, test.limit=20, source.limit=400]
    - {sparsify: mnist-lenet, name: mask, change: [source.limit=40, perturb.budget=4, perturb.step_size=0.1, perturb.min_probability=0], regularization: 1.0}
    - compare: mnist-lenet
      name: splits
      change: [source.limit=40, perturb.budget=4, perturb.step_size=0.1, perturb.min_probability=0]
      models: ["shipped=asset:mnist/lenet", brief]
      attack: fgsm@0.1
    - {attack_oracle: mnist-lenet, name: attack, change: [source.limit=8], models: [brief], steps: 2, epsilon: 8/255}
    - train: train/mnist-lenet
      name: copied
      trainings: 2
      change: [schedule.threads=1, schedule.steps=2, source.split=test, source.limit=40, test.limit=20, "copies={output}/splits:mnist/shipped"]
  claims:
    - {says: the shipped one stands its own images better, higher: splits/shipped, lower: splits/brief}
    - {says: on one split, higher: splits/brief on shipped, lower: splits/shipped}
    - {says: attacked, higher: splits/shipped, lower: splits/brief, metric: attacked_accuracy}
    - {says: more are valid, higher: splits/shipped, lower: splits/brief, metric: validation_rate}
    - {says: the oracle itself, higher: attack/oracle, lower: attack/brief, metric: attacked_accuracy}
"""


@pytest.mark.nightly  # each part of a study is killed in tests of its own
def test_killed_again_and_again(tmp_path, capsys, pytestconfig):
    """A study of your own; and SIGKILL at random places of it: weights, mask, splits and tables are the same."""
    kills, dice = pytestconfig.getoption("--kills"), random.Random(pytestconfig.getoption("--kill-seed"))
    (tmp_path / "own.yaml").write_text(OWN)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run("study", tmp_path / "own.yaml", "-o", whole, "--tables") == 0
    check_what_was_found(whole, capsys.readouterr().out)

    def files():
        return sum(path.is_file() for path in out.rglob("*"))

    command = ["study", str(tmp_path / "own.yaml"), "-q", "-o", str(out)]
    for place in sorted(dice.sample(range(1, 40), kills)):
        process = warm.Process(["-m", "fmrgen", *command], {**os.environ})
        while files() < place and process.poll() is None:
            time.sleep(0.05)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert fmrgen(*command).returncode == 0
    assert (out / "study.json").read_text() == (whole / "study.json").read_text()
    made = [path.relative_to(whole) for path in whole.rglob("*.safetensors")]
    assert len(made) == 4
    for path in made:  # what they tell of themselves comes in any order
        one, other = (load_file(folder / path) for folder in (whole, out))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    splits = [path.relative_to(whole) for path in (whole / "splits/mnist").glob("*.parquet")]
    assert len(splits) == 4
    for path in splits:
        assert pq.read_table(whole / path).equals(pq.read_table(out / path))


def check_what_was_found(folder, told):
    assert "study.html" in told
    assert "Which claims hold at small scale" in told
    assert re.search(r"of \d claims (holds|does not hold|not decided|not tested): \d", told)
    found = json.loads((folder / "study.json").read_text())
    assert found["parts"] == ["splits"]
    metrics = ["fmr", "fmr", "attacked_accuracy", "validation_rate", "attacked_accuracy"]
    assert [claim["metric"] for claim in found["claims"]] == metrics
    for claim in found["claims"]:
        one, other = claim["values"]
        assert claim["apart"]["value"] == pytest.approx(one["value"] - other["value"])
    markdown = (folder / "study.md").read_text()
    assert markdown.startswith("# two LeNets\n\nOf 5 claims ")
    assert "## The paper\n\nas it says" in markdown
    assert "| on one split |" in markdown
    for title in (
        "splits, brief on its own split by class",
        "mask, a mask of the latent",
        "attack, attacked towards another class",
    ):
        assert f"## {title}\n" in markdown
        assert title in told
    assert found["tables"]["mask, a mask of the latent"]["rows"][0][4] == "1"
    one, other = (load_file(folder / f"models/copied-{number}/model.safetensors") for number in (1, 2))
    assert any(not torch.equal(one[name], other[name]) for name in one)  # seeds
    assert (folder / "splits/comparison/report.html").exists()


def evaluation(values):
    """Own figures by model, each on its own split, without rows."""
    results = {
        (f"s:{split}", model): SimpleNamespace(
            split=f"s:{split}", classifier=model, conditioned=split == model, total=SimpleNamespace(fmr=value)
        )
        for (split, model), value in values.items()
    }
    ranking = [SimpleNamespace(classifier=model, split=f"s:{model}") for model in dict.fromkeys(m for _, m in values)]
    return SimpleNamespace(
        classifiers=[],
        own=SimpleNamespace(ranking=ranking),
        predictions=None,
        result=lambda split, model: results[split, model],
    )


def test_differences_without_rows_are_made_of_two_intervals():
    one = evaluation({("a", "a"): Estimate(80, 75, 85), ("b", "b"): Estimate(60, 55, 65)})
    found = find_claim(Claim(says="x", higher="p/a", lower="p/b"), {"p": one}, {})
    assert found.apart.low == pytest.approx(20 - 2**0.5 * 5)
    assert found.verdict == "holds"
    other = evaluation({("a", "a"): Estimate(77, 74, 81)})
    found = find_claim(Claim(says="x", higher="p/a", lower="q/a"), {"p": one, "q": other}, {})
    assert found.apart.value == 3
    assert found.apart.low == pytest.approx(3 - (5**2 + 4**2) ** 0.5)
    assert found.verdict == "not decided"
    found = find_claim(Claim(says="x", higher="q/a", lower="p/a"), {"p": one, "q": other}, {})
    assert found.verdict == "not decided"
    assert _unpaired(Estimate(3, None, None), Estimate(1, 0, 2)) == Estimate(2, None, None)
    estimates = (Estimate(1, 0, 2), Estimate(1, 0, 2))
    for apart, verdict in (
        (Estimate(0, -1, 1), "not decided"),
        (Estimate(0, 0, 0), "not decided"),
        (Estimate(2, None, None), "not decided"),
        (Estimate(-2, -3, -1), "does not hold"),
    ):
        assert ClaimFound("x", "a", "b", "fmr", estimates, apart).verdict == verdict
    nobody = evaluation({("a", "a"): Estimate(80, 75, 85), ("b", "b"): None})
    found = find_claim(Claim(says="x", higher="p/a", lower="p/b"), {"p": nobody}, {})
    assert found.verdict == "not tested"
    assert _claims_table([found]).rows == [["x", "FMR", "80.00 [75.0, 85.0]", "n/a", "n/a", "n/a", "not tested"]]


@pytest.mark.parametrize(
    ("apart", "verdict"),
    [
        ((2, -3, 7), "holds"),
        ((12, 9, 15), "does not hold"),
        ((-12, -15, -9), "does not hold"),
        ((6, 2, 10), "not decided"),
    ],
)
def test_a_claim_that_figures_are_alike_is_judged_as_that(apart, verdict):
    estimates = (Estimate(1, 0, 2), Estimate(1, 0, 2))
    found = ClaimFound("barely affects", "a", "b", "fmr", estimates, Estimate(*apart), 8)
    assert found.verdict == verdict
    assert found.least == (apart[2] - apart[1]) / 2
    (row,) = _claims_table([found]).rows
    assert (row[0], row[-1]) == ("barely affects (within 8 points)", verdict)


def test_parts_of_the_same_images_are_paired():
    """Two parts that differ on three of 200 images: an interval of a few points, and not of two times six."""
    right = np.random.default_rng(0).random(200) < 0.7
    changed = right.copy()
    changed[np.flatnonzero(right)[:3]] = False

    def part(answers):
        columns = {"id": np.arange(200), "label": np.zeros(200, int), "valid": np.ones(200, bool)}
        columns |= {"original_prediction": np.zeros(200, int), "prediction": (~answers).astype(int)}
        names = pa.table({"split": ["x:a"] * 200, "classifier": ["a"] * 200, **columns})
        result = Result("x:a", "a", True, summarise(columns), [], [])
        own = OwnComparison(200, [OwnRank("x:a", "a", 1, 1)], [])
        told = {"schema": SCHEMA, "splits": [], "classifiers": [], "results": [result], "comparisons": [], "own": own}
        return Evaluation(**told, predictions=names, samples={})

    parts = {"p": part(right), "q": part(changed)}
    found = find_claim(Claim(says="x", higher="p/a", lower="q/a"), parts, {})
    assert found.apart.value == pytest.approx(1.5)
    assert found.least < 2.5
    assert found.verdict == "holds"


def trained_several_times(answers):
    """A part in which each of `answers`, [N] of right or wrong by (split's model, model), is of one training."""
    names = sorted({model for pair in answers for model in pair})
    rows = [
        {"split": f"x:{split}", "classifier": model, "id": f"{row}", "label": 0, "valid": True, "original_prediction": 0, "prediction": int(not right)}
        for (split, model), given in answers.items()
        for row, right in enumerate(given)
    ]  # fmt: skip
    results = [
        Result(
            f"x:{split}", model, split == model, SimpleNamespace(fmr=Estimate(100 * given.mean(), None, None)), [], []
        )
        for (split, model), given in answers.items()
    ]
    return Evaluation(
        schema=SCHEMA,
        splits=[],
        classifiers=[EvaluatedClassifier(name, None, None, name.partition("-")[0]) for name in names],
        results=results,
        comparisons=[],
        own=OwnComparison(1, [OwnRank(f"x:{name}", name, 1, 1) for name in names], []),
        predictions=pa.Table.from_pylist(rows),
        samples={},
    )


def test_of_several_trainings_a_claim_is_of_their_means_and_trainings_are_a_sample():
    """The same four networks per kind and image: by the two-level model trainings count, and by number they cancel."""
    random = np.random.default_rng(0)
    accuracy = {"a-1": 0.9, "a-2": 0.7, "a-3": 0.8, "b-1": 0.8, "b-2": 0.6, "b-3": 0.7}
    answers = {(name, name): random.random(4000) < of for name, of in accuracy.items()}
    for number in "123":  # on the other's images five points more
        wrong = 1 - accuracy[f"a-{number}"]
        more = random.random(4000) < 0.05 / wrong
        answers[f"a-{number}", f"b-{number}"] = answers[f"a-{number}", f"a-{number}"] | more
    part = trained_several_times(answers)

    def found(higher, lower, metric="fmr"):
        return find_claim(Claim(says="x", higher=f"p/{higher}", lower=f"p/{lower}", metric=metric), {"p": part}, {})

    own = found("a", "b")
    assert (own.trainings, own.verdict) == (3, "not decided")  # ten points, and trainings differ by ten
    assert own.apart.value == pytest.approx(own.values[0].value - own.values[1].value) == pytest.approx(10, abs=1)
    deviation = np.std([100 * answers[name, name].mean() for name in accuracy if name[0] == "a"], ddof=1)
    assert own.least == pytest.approx(2.776 * deviation * (2 / 3) ** 0.5, rel=0.1)
    assert found("b", "a").apart.low == pytest.approx(-own.apart.high)
    others = trained_several_times({pair: given[:10] for pair, given in answers.items()})
    others = replace(
        others, predictions=others.predictions.set_column(3, "label", pa.array([1] * len(others.predictions)))
    )
    claim = Claim(says="x", higher="p/a", lower="q/a")
    assert find_claim(claim, {"p": part, "q": others}, {}).verdict == "not tested"  # the same ids, other images
    shared = found("b on a", "a")
    assert (shared.trainings, shared.verdict) == (3, "holds")
    assert shared.apart.value == pytest.approx(5, abs=0.5)
    assert shared.least < 2
    assert found("a", "b", "standard_accuracy").apart == Estimate(0, None, None)
    (row,) = _claims_table([own]).rows
    assert row[1] == "FMR, mean of 3 trainings"


def test_rankings_under_several_generators_are_compared(monkeypatch):
    told = []
    study = Study.model_validate({"title": "x", "small": {"agreement": ["one", "two"], "parts": [
        {"compare": "mnist-lenet", "name": name, "models": ["a=x", "b=x", "c=x", "d=x"]} for name in ("one", "two")
    ]}})  # fmt: skip
    random = np.random.default_rng(0)
    monkeypatch.setattr(ComparePart, "run", lambda part, work: ranked(random, {"a": 0.8, "b": 0.6, "c": 0.4, "d": 0.2}))
    found = run_study(study, "small", work(["source.limit=7"]))
    assert found.how == "small scale, changed: source.limit=7"
    ranks = next(section for section in _part_sections(found) if section.kind == "agreement")
    assert [row[0] for row in ranks.tables[0].rows] == ["a", "b", "c", "d"]
    assert "all have one order: holds" in ranks.lines
    monkeypatch.setattr(ComparePart, "run", lambda part, work: ranked(random, {"a": 0.8, "b": 0.6}))
    found = run_study(study, "small", replace(work(), on_note=told.append))
    assert found.agreement is None
    assert "rankings of 2 can't be compared" in told[0]


def work(change=()):
    return Work(Path("out"), list(change), lambda name: nullcontext(lambda done, total: None))


@pytest.mark.parametrize("name", describe_studies())
def test_shipped_studies_say_what_they_would_do(name):
    study = load_study(name)
    assert name not in describe_recipes()
    for scale in ("small", "full"):
        if (chosen := getattr(study, scale)) is not None:
            lines = study_lines(study, scale, work(["source.limit=7"]))
            assert len(lines) >= len(chosen.parts)
            assert ("EFLOP" in "".join(lines)) == (scale == "full" and name != "paper/table-15")


def test_every_table_of_the_paper_has_a_study():
    told = " ".join(study.title for study in describe_studies().values())
    for table in range(1, 16):
        assert re.search(rf"Tables? (\d+ and )?{table}\b", told)


def test_the_estimate_is_the_arithmetic_of_the_docs():
    *_, estimate = study_lines(load_study("paper/table-1"), "full", work())
    exa = 7 * 50_000 * (51 * 443 + 106) / 1e9
    assert f"7 splits × (51 passes × 443 + 106)) GFLOP = {exa:.3g} EFLOP" in estimate
    assert f"{exa * 1e6 / 100 / 3600:.1f} h at 100 TFLOP/s" in estimate
    assert Cost(images=10, one_pass=2, encode=1, kept_encode=7).line(3, 4).startswith("  at most 10 images × (3 splits × (5 passes × 2 + 1) + 7) GFLOP = 4e-07 EFLOP")  # fmt: skip


def test_the_study_of_the_docs_can_be_written_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs/guides/training.md"
    text = page.read_text().rpartition("```yaml\n")[2].partition("```")[0]
    Path("mine.yaml").write_text("extends: mnist-lenet")
    Path("mine-flux.yaml").write_text("extends: imagenet-flux")
    Path("study.yaml").write_text(text)
    lines = study_lines(load_study("study.yaml"), "small", work())
    assert [line.partition(":")[0] for line in lines if not line.startswith(" ")] == ["compare vqgan", "compare flux"]
    assert "  generator: vae of black-forest-labs/FLUX.1-schnell" in lines


def test_mistakes_are_one_line(tmp_path, capsys):
    for text, message in (
        (OWN.replace("higher: splits/shipped, lower: splits/brief}", "higher: x/shipped, lower: splits/brief}", 1), "no part compares as x"),
        (OWN.replace("splits/brief on shipped", "splits/nobody on shipped"), "splits has no model nobody"),
        (OWN.replace("name: brief", "name: brief\n      of: 3"), "of"),
        (OWN.replace("attack: fgsm@0.1", "attack: fgsm"), "not an attack"),
        (OWN.replace("      attack: fgsm@0.1\n", ""), "splits has no attacked_accuracy"),
        (OWN.replace("epsilon: 8/255", "epsilon: 0/255"), "not the largest change of a pixel"),
        (OWN.replace("  claims:", "  agreement: [mask, splits]\n  claims:"), "no part compares as mask"),
        (OWN.replace("  claims:", "  agreement: [splits, splits]\n  claims:"), "three models; splits has 2"),
        (OWN.replace("name: mask", "name: splits"), "two have one name"),
        (OWN.replace("small:", "medium:"), "medium"),
        (OWN.replace("name: brief", "name: brief\n      trainings: 2"), "brief: figures under attack are not compared over trainings"),
        (OWN.replace("name: brief", "name: brief\n      trainings: 2").replace("metric: attacked_accuracy", "metric: standard_accuracy"), "brief: figures under attack are not compared over trainings; name one training, NAME={output}/models/brief-1"),
        ("title: x\nsmall: {parts: [{compare: mnist-lenet, name: one, models: [a=x]}]}", "one: compares two models or more"),
        ("title: nothing", "has neither small nor full"),
        ("title: x\nsmall: {parts: [a word]}", "small.parts.0.compare: must be a mapping of keys"),
    ):  # fmt: skip
        (tmp_path / "own.yaml").write_text(text)
        assert run("study", tmp_path / "own.yaml", "--dry-run") == 2
        told = capsys.readouterr().err
        assert message in told
        assert told.count("\n") == 1
    with pytest.raises(UserError, match="has parts at --scale small only"):
        load_study("paper/table-5").at("full")
