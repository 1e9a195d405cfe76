"""Where a split's own classifier provably fails, on the card of the split."""

import logging
from pathlib import Path

from fmrgen.errors import UserError
from fmrgen.publish.card import renew_card
from fmrgen.publish.repo import Change, HubRepo, RepoState
from fmrgen.split.open import open_own_split
from fmrgen.storage.explanations import write_explained_lines
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import read_provenance

_log = logging.getLogger(__name__)


def record_explanation(split: str, files: str, lines: list[str]) -> str:
    """Put lines on a split's card, in its folder or on the Hub, and return where.

    Args:
        split: a reference to a split of fmrgen.
        files: the digest of the files that the lines are about.
        lines: the sentences.

    Raises:
        UserError: the split was remade meanwhile, or can't be written to.
    """
    opened, _ = open_own_split(split)

    def write(root: Path) -> SplitPaths:
        paths = opened.paths.at(root)
        if read_provenance(paths).files_digest != files:
            raise UserError(f"{split}: was remade since it was explained; explain it again")
        write_explained_lines(paths, files, lines)
        return paths

    if opened.revision is None:
        paths = write(opened.paths.root)
        renew_card(paths.root)
        return str(paths.explanation)

    def change(folder: Path, state: RepoState) -> Change:
        return Change(f"Where the classifier of {write(folder).name} fails", [])

    commit, url = HubRepo(str(opened.repo), None, _log.warning).update(change)
    return url or commit
