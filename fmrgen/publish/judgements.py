"""Judgements that travel: a judge's table and the small file about it, in the repo of their split."""

from collections.abc import Callable
from pathlib import Path

from huggingface_hub import CommitOperationAdd

from fmrgen.errors import UserError
from fmrgen.files import check_inside, read_json, sha256_of
from fmrgen.publish.repo import Change, HubRepo, RepoState
from fmrgen.split.judgements import JudgeFile, Subject, about_path, judges_of, parse_about, table_path, write_about
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import Provenance, read_provenance


def commit_judgements(
    repo: str,
    split: Subject,
    about: JudgeFile,
    content: bytes,
    on_wait: Callable[[str], None],
) -> str:
    """Commits a judge's table to the repo of its split; returns the commit's address, or the commit.

    Raises UserError where the repo holds another split by now, or another judge of that name.
    """

    def change(folder: Path, state: RepoState) -> Change:
        there = split.paths.at(folder)
        if read_provenance(there).files_digest != split.provenance.files_digest:
            raise UserError(f"{repo}: {there.name} was remade since it was judged; judge it again")
        check_same_judge(there, about, repo)
        write_about(there, about)
        table = CommitOperationAdd(_in_repo(there, about.judge), content)
        return Change(f"Judgements of {about.judge} on {there.name}", [table])

    commit, url = HubRepo(repo, None, on_wait).update(change)
    return url or commit


def add_judgements(local: SplitPaths, provenance: Provenance, small: Path, repo: str) -> list[CommitOperationAdd]:
    """Operations that add the tables of all judges of a split in a folder; the files about them go into `small`.

    What was said of other files than the split has now stays where it is. Raises UserError for a judge whose name
    another has in the repo.
    """
    operations = []
    for judge, about in judges_of(local).items():
        if about.files != provenance.files_digest:
            continue
        table = table_path(local, judge)
        check_inside(table, local.root)
        if sha256_of(table) != about.sha256:
            raise UserError(f"{table}: is not the table that {judge}.json describes; judge again")
        there = about_path(local.at(small), judge)
        if there.exists() and read_json(there) == read_json(about_path(local, judge)):
            continue
        check_same_judge(local.at(small), about, repo)
        write_about(local.at(small), about)
        operations.append(CommitOperationAdd(_in_repo(local, judge), table.absolute()))
    return operations


def check_same_judge(there: SplitPaths, about: JudgeFile, repo: str) -> None:
    """Raises UserError where the repo has judgements of another judge of that name, which would be lost."""
    path = about_path(there, about.judge)
    if not path.exists():
        return
    earlier = parse_about(read_json(path), f"{repo}: {there.in_repo(path)}")
    if (earlier.kind, earlier.weights_sha256) != (about.kind, about.weights_sha256):
        raise UserError(
            f"{repo}: already holds judgements of another {about.judge} on {there.name}; give yours another name, "
            "NAME=…"
        )


def _in_repo(split: SplitPaths, judge: str) -> str:
    root = split.at(Path())
    return root.in_repo(table_path(root, judge))
