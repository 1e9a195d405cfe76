"""The tables of a paper."""

import pytest

from fmrgen import UserError, evaluate

LENET = "asset:mnist/lenet"


@pytest.fixture(scope="module")
def evaluation(finished_split):
    return evaluate({"mnist_{a}": str(finished_split)}, {"le_net&50%": LENET, "[ours] @you": "{kind: lenet}"})


def test_a_table_for_latex(evaluation):
    total = evaluation.result("mnist_{a}", "le_net&50%").total
    lines = evaluation.to_latex().splitlines()
    assert lines[1:5] == [r"\begin{tabular}{lrrr}", r"\toprule", r"classifier & SA & PA & FMR \\", r"\midrule"]
    row = next(line for line in lines if line.startswith(r"le\_net\&50\% & "))
    fmr = total.fmr
    assert row.endswith(rf"& {fmr.value:.1f} {{\footnotesize [{fmr.low:.1f}, {fmr.high:.1f}]}} \\")
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    assert all(line.count("{") == line.count("}") for line in lines)


def test_a_table_in_markdown_of_chosen_figures(evaluation):
    header, rule, *rows = evaluation.to_markdown(["validation_rate", "fmr"]).splitlines()
    assert header == "| classifier | VR | FMR |"
    assert rule == "| --- | ---: | ---: |"
    assert len(rows) == 2
    assert any(row.startswith(r"| le\_net\&50% | ") for row in rows)
    with pytest.raises(UserError, match="unknown figure fmrr, did you mean fmr"):
        evaluation.to_latex(["fmrr"])


def test_a_name_does_not_become_the_length_of_a_line_break_or_ping_anybody(evaluation):
    assert "\n{}[ours] @you & " in evaluation.to_latex()
    assert r"\[ours\] @&#8203;you" in evaluation.to_markdown()
