"""Fetches some files of a dataset repo to this machine."""

import re
from collections.abc import Sequence
from functools import partial
from math import inf
from operator import attrgetter
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.utils import filter_repo_objects

from fmrgen.errors import UserError
from fmrgen.hub.client import HubClient
from fmrgen.hub.timeouts import checked_commit, no_bars


def check_repo_name(repo: str) -> None:
    """Raise UserError unless `repo`, which is not a folder, can be the name of a repo."""
    if repo.startswith(("./", "../")) or not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise UserError(f"{repo}: no such folder, and a repo is called OWNER/NAME")


def fetched(repo: str, revision: str, patterns: Sequence[str], largest: float = inf) -> tuple[Path, str]:
    """Return a local folder with some files of a dataset repo, and the commit that they belong to.

    `repo` is `OWNER/NAME`, and `revision` a branch, tag or commit. The patterns are as in a shell. Raises UserError if
    the name is not a repo's, a file has more than `largest` bytes, or the Hub refuses or cannot be reached.
    """
    check_repo_name(repo)
    hub = HubClient(repo, "dataset", revision)
    info: Any = hub.ask(lambda: hub.api.dataset_info(repo, revision=revision, files_metadata=True))
    commit = checked_commit(info.sha, repo)
    wanted = list(patterns)
    for file in filter_repo_objects(info.siblings or [], allow_patterns=wanted, key=attrgetter("rfilename")):
        if (file.size or 0) > largest:
            limit = f"no more than {largest:,} are fetched"
            raise UserError(f"{repo}: {file.rfilename} has {file.size:,} bytes, and {limit}")
    download = partial(snapshot_download, repo, repo_type="dataset", revision=commit, allow_patterns=wanted)
    with no_bars():
        folder = hub.ask(download, all_of_the_hub=False)
    return Path(folder), commit
