"""What models' own repos say of their results on a benchmark: the board that the Hub keeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.errors import HfHubHTTPError

from fmrgen.hub.client import HubClient


@dataclass(frozen=True)
class SubmittedResult:
    """An entry of a model's repo, or of an open pull request on it (`pull_request`, else None)."""

    model: str
    value: float
    notes: str
    source: str | None
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
        return [
            SubmittedResult(
                str(entry.model_id),
                float(entry.value),
                str(entry.notes or ""),
                (entry.source or {}).get("url"),
                entry.pull_request,
            )
            for entry in entries
        ]

    return hub.ask(ask)
