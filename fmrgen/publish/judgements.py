"""Judgements on the Hub: a judge's table and the small file about it, in the repo of their split."""

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
    """Commit a judge's table to the repo of its split, and return the commit's address, or else the commit.

    Args:
        repo: of the split.
        split: that was judged.
        about: the small file about the table.
        content: the bytes of the table.
        on_wait: called with a line when the Hub makes one wait.

    Raises:
        UserError: the repo has another split by now, or another judge of that name.
    """

    def change(folder: Path, state: RepoState) -> Change:
        paths = split.paths.at(folder)
        if read_provenance(paths).files_digest != split.provenance.files_digest:
            raise UserError(f"{repo}: {paths.name} was remade since it was judged; judge it again")
        check_same_judge(paths, about, repo)
        write_about(paths, about)
        table = CommitOperationAdd(_in_repo(paths, about.judge), content)
        return Change(f"Judgements of {about.judge} on {paths.name}", [table])

    commit, url = HubRepo(repo, None, on_wait).update(change)
    return url or commit


def add_judgements(local: SplitPaths, provenance: Provenance, small: Path, repo: str) -> list[CommitOperationAdd]:
    """Return operations that add the tables of all judges of a split; write the files about them into `small`.

    Judgements of earlier files of the split are left out.

    Args:
        local: the paths of the split in its folder.
        provenance: of the split.
        small: the folder of the repo's small files.
        repo: its name.

    Raises:
        UserError: the repo has another judge of the same name, or a table is not the one that its file describes.
    """
    remote = local.at(small)
    operations = []
    for judge, about in judges_of(local).items():
        if about.files != provenance.files_digest:
            continue
        table = table_path(local, judge)
        check_inside(table, local.root)
        if sha256_of(table) != about.sha256:
            raise UserError(f"{table}: is not the table that {judge}.json describes; judge again")
        remote_about = about_path(remote, judge)
        if remote_about.exists() and read_json(remote_about) == read_json(about_path(local, judge)):
            continue
        check_same_judge(remote, about, repo)
        write_about(remote, about)
        operations.append(CommitOperationAdd(_in_repo(local, judge), table.absolute()))
    return operations


def check_same_judge(remote: SplitPaths, about: JudgeFile, repo: str) -> None:
    """Raise UserError if the repo has judgements of another judge of that name, which would be lost.

    Args:
        remote: the paths of the split among the repo's small files.
        about: the judge.
        repo: its name.
    """
    path = about_path(remote, about.judge)
    if not path.exists():
        return
    earlier = parse_about(read_json(path), f"{repo}: {remote.in_repo(path)}")
    if (earlier.kind, earlier.weights_sha256) != (about.kind, about.weights_sha256):
        raise UserError(
            f"{repo}: already holds judgements of another {about.judge} on {remote.name}; give yours another name, "
            "NAME=…"
        )


def _in_repo(split: SplitPaths, judge: str) -> str:
    root = split.at(Path())
    return root.in_repo(table_path(root, judge))
