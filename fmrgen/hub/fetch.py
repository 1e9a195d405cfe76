"""Some files of a dataset repo on this machine."""

import re
from collections.abc import Sequence
from functools import partial
from glob import escape
from math import inf
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from fmrgen.errors import UserError
from fmrgen.hub.client import HubClient
from fmrgen.hub.timeouts import checked_commit, no_bars


def check_repo_name(repo: str) -> None:
    """Raises UserError for what is no folder and can't be a repo."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise UserError(f"{repo}: no such folder, and a repo is called OWNER/NAME")


def fetched(repo: str, revision: str, patterns: Sequence[str], largest: float = inf) -> tuple[Path, str]:
    """The folder with the files of a dataset repo that match and are of `largest` bytes at most, and the commit that
    they are of. Raises UserError."""
    check_repo_name(repo)
    hub = HubClient(repo, "dataset", revision, lambda line: None)
    info: Any = hub.ask(lambda: hub.api.dataset_info(repo, revision=revision, files_metadata=True))
    commit = checked_commit(info.sha, repo)
    too_large = [escape(file.rfilename) for file in info.siblings or [] if (file.size or 0) > largest]
    fetch = partial(snapshot_download, repo, repo_type="dataset", revision=commit)
    with no_bars():
        folder = hub.ask(partial(fetch, allow_patterns=list(patterns), ignore_patterns=too_large), False)
    return Path(folder), commit


def models_of_collection(slug: str) -> list[str]:
    """The model repos in a collection on the Hub, `OWNER/TITLE-NUMBER`, in its order. Raises UserError."""
    hub = HubClient(slug, "model", "main", lambda line: None)
    collection = hub.ask(lambda: hub.api.get_collection(slug))
    return [str(item.item_id) for item in collection.items if item.item_type == "model"]
