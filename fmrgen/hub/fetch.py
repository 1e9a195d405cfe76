"""Fetches some files of a dataset repo to this machine."""

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
    """Raise UserError unless `repo`, which is not a folder, can be the name of a repo."""
    if repo.startswith(("./", "../")) or not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise UserError(f"{repo}: no such folder, and a repo is called OWNER/NAME")


def fetched(repo: str, revision: str, patterns: Sequence[str], largest: float = inf) -> tuple[Path, str]:
    """Return a local folder with some files of a dataset repo, and the commit that they belong to.

    `repo` is `OWNER/NAME`, and `revision` a branch, tag or commit. The patterns are as in a shell; files of more than
    `largest` bytes are left out. Raises UserError if the name is not a repo's, or the Hub refuses or cannot be reached.
    """
    check_repo_name(repo)
    hub = HubClient(repo, "dataset", revision)
    info: Any = hub.ask(lambda: hub.api.dataset_info(repo, revision=revision, files_metadata=True))
    commit = checked_commit(info.sha, repo)
    too_large = [escape(file.rfilename) for file in info.siblings or [] if (file.size or 0) > largest]
    download = partial(
        snapshot_download,
        repo,
        repo_type="dataset",
        revision=commit,
        allow_patterns=list(patterns),
        ignore_patterns=too_large,
    )
    with no_bars():
        folder = hub.ask(download, all_of_the_hub=False)
    return Path(folder), commit
