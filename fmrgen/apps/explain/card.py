"""Where a split's own classifier provably fails, on the card of the split."""

from functools import partial

from fmrgen.publish.repo import add_to_split
from fmrgen.split.open import open_own_split
from fmrgen.storage.explanations import write_explained_lines


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
    repo = None if opened.revision is None else opened.repo
    message = f"Where the classifier of {opened.paths.name} fails"
    write = partial(write_explained_lines, files=files, lines=lines)
    commit, url = add_to_split(opened.paths, repo, files, message, write)
    return url or commit or str(opened.paths.explanation)
