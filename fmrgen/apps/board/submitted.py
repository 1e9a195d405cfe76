"""Results on a benchmark that models' own repos report: the board of the Hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import DatasetLeaderboardEntry

from fmrgen.hub.client import HubClient

_MAX_FMR = 10_000.0  # percent: more is an error


@dataclass(frozen=True)
class SubmittedResult:
    """An entry of a model's repo, or of an open pull request on it.

    Attributes:
        model: the repo.
        value: FMR, in percent.
        notes: in the model's own words.
        pull_request: its number, else None.
    """

    model: str
    value: float
    notes: str
    pull_request: int | None


def submitted_results(places: Sequence[str]) -> dict[str, list[SubmittedResult]]:
    """Return the Hub's board of each dataset repo among `places`, by its name; repos without one are left out."""
    boards = {}
    for place in places:
        if Path(place).is_dir():
            continue
        repo = place.partition("@")[0]
        results = _board(repo)
        if results:
            boards[repo] = results
    return boards


def _board(repo: str) -> list[SubmittedResult]:
    """Return the results on the Hub's board of a repo; none if it has no board."""
    hub = HubClient(repo, "dataset", "main", lambda line: None)

    def ask() -> list[SubmittedResult]:
        try:
            entries = hub.api.get_dataset_leaderboard(repo)
        except HfHubHTTPError as error:
            if error.response.status_code in (400, 404):  # no benchmark, or not on the Hub's list of those
                return []
            raise
        results = [_result(entry) for entry in entries]
        return [result for result in results if result is not None]

    return hub.ask(ask)


def _result(entry: DatasetLeaderboardEntry) -> SubmittedResult | None:
    """Return a result; None if its value can't be FMR. Entries come from anyone."""
    if type(entry.value) not in (int, float) or not 0 <= entry.value <= _MAX_FMR:
        return None
    return SubmittedResult(str(entry.model_id), float(entry.value), str(entry.notes or ""), entry.pull_request)
