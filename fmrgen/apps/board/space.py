"""A site as a static Space on the Hub."""

from collections.abc import Callable, Sequence
from pathlib import Path

from huggingface_hub import CommitOperationAdd, RepoCard, SpaceCardData, constants

from fmrgen.hub.client import HubClient


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
    hub.create(public, space_sdk="static")

    def operations_on(remote_files: set[str]) -> list[CommitOperationAdd]:
        operations = []
        for path in files:
            operations.append(CommitOperationAdd(path.relative_to(folder).as_posix(), path.read_bytes()))
        if constants.REPOCARD_NAME not in remote_files:
            data = SpaceCardData(title=title, sdk="static", app_file="index.html", pinned=False)
            operations.append(
                CommitOperationAdd(constants.REPOCARD_NAME, str(RepoCard(f"---\n{data.to_yaml()}\n---\n")).encode())
            )
        return operations

    return hub.commit("Leaderboard", operations_on)
