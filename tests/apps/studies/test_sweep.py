"""All combinations of values, each a split that goes on, in one table and one plot."""

import json

import pytest
from commands import run

from fmrgen.apps.studies.sweep import parse_grid
from fmrgen.errors import UserError


def test_a_grid_is_all_with_all():
    points = parse_grid("mnist-lenet", ["perturb.step_size=.01,.1", "source.limit=3", "perturb.update=sign,l2"])
    assert [point.name for point in points] == [
        "step_size=0.01,update=sign",
        "step_size=0.01,update=l2",
        "step_size=0.1,update=sign",
        "step_size=0.1,update=l2",
    ]
    assert [(p.recipe.perturb.step_size, p.recipe.perturb.update) for p in points[1:3]] == [(0.01, "l2"), (0.1, "sign")]
    assert {point.recipe.source.limit for point in points} == {3}
    sections = parse_grid("mnist-lenet", ["oracle.model='asset:mnist/clip',x/y"])
    assert [point.name for point in sections] == ["model=asset_mnist_clip", "model=x_y"]
    assert sections[1].recipe.oracle.model == "x/y"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["perturb.step_size=.01"], "a sweep needs a key with several values, for example"),
        (["perturb.stepsize=.01,.02"], "did you mean step_size"),
        (["perturb.step_size=.01,0.01"], "two combinations have the same values"),
        (
            ["perturb.budget=" + ",".join(map(str, range(1, 40))), "perturb.seed=" + ",".join(map(str, range(40)))],
            "1560",
        ),
    ],
)
def test_what_is_no_grid_is_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        parse_grid("mnist-lenet", overrides)


@pytest.mark.slow
def test_a_sweep_leaves_splits_a_table_and_a_plot(tmp_path, capsys):
    command = ["sweep", "mnist-lenet", "perturb.step_size=.03,.3", "perturb.budget=2", "--limit", 6, "-o", tmp_path]
    assert run(*command) == 0
    told = capsys.readouterr().out
    assert "step_size" in told
    found = json.loads((tmp_path / "sweep.json").read_text())
    assert [point["values"] for point in found] == [{"perturb.step_size": 0.03}, {"perturb.step_size": 0.3}]
    assert found[0]["summary"]["rows"] == 6
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("step_size=*/mnist/*.parquet")}
    assert len(made) == 2
    run(*command, "-q")
    assert {path: path.stat().st_mtime_ns for path in made} == made
