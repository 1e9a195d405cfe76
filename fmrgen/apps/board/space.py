"""A site as a static Space on the Hub."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from huggingface_hub import CommitOperationAdd, RepoCard, SpaceCardData

from fmrgen.hub.client import HubClient, Operation, check_publication
from fmrgen.storage.paths import CARD


def push_site(
    folder: Path,
    files: Sequence[Path],
    space: str,
    title: str,
    *,
    public: bool = False,
    on_wait: Callable[[str], None] = lambda line: None,
) -> str:
    """Push the pages of a site to a Space in one commit; other files there stay.

    Args:
        folder: of the site.
        files: in it.
        space: `OWNER/NAME`, or a name in the caller's account; made if needed, private unless `public`.
        title: of the Space, if it has no card yet.
        public: whether everyone may see it.
        on_wait: called with a line when the Hub asks to wait.

    Returns:
        The address of the commit.

    Raises:
        UserError: the Hub refuses, or everyone sees the Space and `public` does not allow it.
    """
    hub = HubClient(space, "space", "main", on_wait)
    hub.log_in()
    check_publication(hub.name, hub.is_private(), public)
    make = partial(hub.api.create_repo, hub.name, repo_type="space", space_sdk="static", private=not public)
    hub.ask(partial(make, exist_ok=True))

    def operations_on(remote_files: set[str]) -> list[Operation]:
        operations: list[Operation] = []
        for path in files:
            operations.append(CommitOperationAdd(path.relative_to(folder).as_posix(), path.read_bytes()))
        if CARD not in remote_files:
            data = SpaceCardData(title=title, sdk="static", app_file="index.html", pinned=False)
            operations.append(CommitOperationAdd(CARD, str(RepoCard(f"---\n{data.to_yaml()}\n---\n")).encode()))
        return operations

    return hub.commit("Leaderboard", operations_on)
