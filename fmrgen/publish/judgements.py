"""Judgements on the Hub: a judge's table and the small file about it, in the repo of their split."""

from pathlib import Path

from huggingface_hub import CommitOperationAdd

from fmrgen.errors import UserError
from fmrgen.files import check_inside, read_json, sha256_of
from fmrgen.split.judgements import JudgementsFolder
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import Provenance


def add_judgements(local: SplitPaths, provenance: Provenance, small: Path, repo: str) -> list[CommitOperationAdd]:
    """Return operations that add the tables of all judges of a split; write the files about them into `small`.

    Judgements of earlier files of the split are left out. `local` are the split's paths in its folder, `small` is the
    folder of the repo's small files. Raises UserError if the repo has another judge of the same name, or a table is not
    the one that its file describes.
    """
    folder, remote = JudgementsFolder(local), JudgementsFolder(local.at(small))
    operations = []
    for judge, about in folder.judges().items():
        if about.files != provenance.files_digest:
            continue
        table = folder.table_path(judge)
        check_inside(table, local.root)
        if sha256_of(table) != about.sha256:
            raise UserError(f"{table}: is not the table that {judge}.json describes; judge again")
        remote_about = remote.about_path(judge)
        if remote_about.exists() and read_json(remote_about) == read_json(folder.about_path(judge)):
            continue
        remote.check_same_judge(about, repo)
        remote.write_about(about)
        operations.append(CommitOperationAdd(local.in_repo(table), table.absolute()))
    return operations
