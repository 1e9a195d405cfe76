"""Some files of a dataset repo on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from fmrgen.hub.client import HubClient
from fmrgen.hub.repo import no_bars
from fmrgen.hub_timeouts import checked_commit


def fetched(repo: str, revision: str, patterns: Sequence[str]) -> tuple[Path, str]:
    """The folder with the files of a dataset repo that match, and the commit that they are of. Raises UserError."""
    hub = HubClient(repo, "dataset", revision, lambda line: None)
    info: Any = hub.ask(lambda: hub.api.dataset_info(repo, revision=revision))
    commit = checked_commit(info.sha, repo)
    with no_bars():
        folder = hub.ask(
            lambda: snapshot_download(repo, repo_type="dataset", revision=commit, allow_patterns=list(patterns)), False
        )
    return Path(folder), commit
