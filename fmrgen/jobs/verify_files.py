"""Verify the files of a split: that they are whole, and the same as when the split was finished. No model is run."""

from dataclasses import dataclass
from pathlib import Path

from fmrgen.errors import UserError
from fmrgen.files import parse_json
from fmrgen.publish.repo import HubRepo
from fmrgen.split.reference import check_no_delta, choose_split, deltas_of, parse_reference
from fmrgen.storage.paths import SplitPaths, splits_among, splits_in
from fmrgen.storage.provenance import parse_provenance, read_provenance
from fmrgen.storage.shards import SplitFolder


@dataclass(frozen=True)
class FilesVerification:
    """The outcome: how many of `shards` files are intact, whether the split is finished, and a line for each fault."""

    intact: int
    shards: int
    finished: bool
    wrong: list[str]


def verify_files(split: str) -> FilesVerification:
    """Compare every file of a split, given by its reference, with its digest on record; no model is needed.

    On the Hub the digests are those that the Hub reports. If a split is not finished yet, the shards that exist are
    checked by the checksums in them. Raises UserError if there is no such split.
    """
    reference = parse_reference(split)
    root = Path(reference.repo)
    if root.is_dir():
        names = sorted((paths.config, paths.split) for paths in splits_in(root))
        if not names:
            check_no_delta(split, reference.repo, deltas_of(root))
        return _in_folder(SplitPaths(root, *choose_split(split, reference, names)))
    if root.exists():
        raise UserError(f"{split}: is a file; verify the folder of a generate command, or a repo on the Hub")
    hub = HubRepo(reference.repo, reference.revision)
    state = hub.fetch_state()
    if state is None:
        raise UserError(f"{reference.repo}: neither a folder nor a dataset repo that can be read")
    names = splits_among(state.files)
    if not names:
        check_no_delta(split, reference.repo, state.files)
    paths = SplitPaths(Path(), *choose_split(split, reference, names))
    path = paths.provenance.as_posix()
    where = f"{reference.repo}: {path}"
    provenance = parse_provenance(parse_json(hub.content(path, state), where), split)
    if provenance is None or not provenance.is_finished:
        raise UserError(f"{split}: its provenance is not that of a finished split; push it again")
    wrong = []
    for file, digest in provenance.files.items():
        if file not in state.files:
            wrong.append(f"{file}: is missing")
        elif state.files[file] not in (None, digest):  # None: too small for a digest on the Hub
            wrong.append(f"{file}: is not the file whose sha256 is on record")
    return FilesVerification(len(provenance.files) - len(wrong), len(provenance.files), True, wrong)


def _in_folder(paths: SplitPaths) -> FilesVerification:
    provenance = read_provenance(paths)
    folder = SplitFolder.of(paths, provenance)
    intact, errors = folder.intact_shards(provenance)
    wrong = [f"{error.path}: {error.reason}" for error in errors]
    if provenance.is_finished:
        paths_of_shards = map(folder.shard_path, range(folder.shards))
        wrong += [f"{path}: is missing" for path in paths_of_shards if not path.exists()]
    return FilesVerification(len(intact), folder.shards, provenance.is_finished, wrong)
