"""An evaluation and its report, which several files of tests look at."""

import pytest

from fmrgen import evaluate
from fmrgen.report.write import write_report


@pytest.fixture(scope="session")
def evaluation(finished_split):
    return evaluate(
        {"first": str(finished_split), "again": str(finished_split)},
        {"lenet": "asset:mnist/lenet", "none": "{kind: lenet}"},
    )


@pytest.fixture(scope="session")
def report(evaluation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_report(evaluation, folder, ["pdf"])
    return folder
