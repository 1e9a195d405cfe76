"""What models' own repos say of their results on a benchmark: the board that the Hub keeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import DatasetLeaderboardEntry

from fmrgen.hub.client import HubClient

_LARGEST = 10_000.0  # FMR, in percent


@dataclass(frozen=True)
class SubmittedResult:
    """An entry of a model's repo, or of an open pull request on it (`pull_request`, else None)."""

    model: str
    value: float
    notes: str
    pull_request: int | None


def submitted_results(places: Sequence[str]) -> dict[str, list[SubmittedResult]]:
    """The Hub's board of each dataset repo among `places`, by its name; repos that have none are left out."""
    found = {}
    for place in places:
        repo = place.partition("@")[0]
        if not Path(place).is_dir() and (rows := _board(repo)):
            found[repo] = rows
    return found


def _board(repo: str) -> list[SubmittedResult]:
    hub = HubClient(repo, "dataset", "main", lambda line: None)

    def ask() -> list[SubmittedResult]:
        try:
            entries = hub.api.get_dataset_leaderboard(repo)
        except HfHubHTTPError as error:
            if error.response.status_code in (400, 404):  # no benchmark, or not on the Hub's list of those
                return []
            raise
        return [found for entry in entries if (found := _result(entry)) is not None]

    return hub.ask(ask)


def _result(entry: DatasetLeaderboardEntry) -> SubmittedResult | None:
    """What a model's repo says; None where that can't be FMR. Anyone may have written it."""
    if type(entry.value) not in (int, float) or not 0 <= entry.value <= _LARGEST:
        return None
    return SubmittedResult(str(entry.model_id), float(entry.value), str(entry.notes or ""), entry.pull_request)
