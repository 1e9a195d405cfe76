"""Whether the files of a split are whole, and those that were checked when it was finished; no image is judged."""

import logging
from dataclasses import dataclass
from pathlib import Path

from fmrgen.errors import UserError
from fmrgen.files import parse_json
from fmrgen.publish.croissant import differences
from fmrgen.publish.repo import HubRepo
from fmrgen.split.open import check_no_delta, choose_split, deltas_of
from fmrgen.split.reference import parse_reference
from fmrgen.storage.paths import SplitPaths, splits_among, splits_in
from fmrgen.storage.provenance import parse_provenance, read_provenance
from fmrgen.storage.shards import SplitFolder

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FilesVerification:
    """How many files of `shards` are right, and what is wrong, a line each; without all of them it is not finished."""

    intact: int
    shards: int
    finished: bool
    wrong: list[str]


def verify_files(split: str) -> FilesVerification:
    """Compares every file of a split with its digest on record; no model is needed.

    On the Hub the digests are those that it tells. Of a split that is not finished yet, the shards that are there are
    checked by the checksums in them.

    Args:
        split: a reference, `PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]`.

    Returns:
        How many files are right, and what is wrong.

    Raises:
        UserError: there is no such split.
    """
    reference = parse_reference(split)
    root = Path(reference.repo)
    if root.is_dir():
        there = sorted((paths.config, paths.split) for paths in splits_in(root))
        if not there:
            check_no_delta(split, reference.repo, deltas_of(root))
        return _in_folder(SplitPaths(root, *choose_split(split, reference, there)))
    if root.exists():
        raise UserError(f"{split}: is a file; verify the folder of a generate command, or a repo on the Hub")
    hub = HubRepo(reference.repo, reference.revision, _log.warning)
    state = hub.fetch_state()
    if state is None:
        raise UserError(f"{reference.repo}: neither a folder nor a dataset repo that can be read")
    if not (known := splits_among(state.files)):
        check_no_delta(split, reference.repo, state.files)
    paths = SplitPaths(Path(), *choose_split(split, reference, known))
    path = paths.provenance.as_posix()
    provenance = parse_provenance(parse_json(hub.read(path, state), f"{reference.repo}: {path}"))
    if provenance is None or not provenance.is_finished:
        raise UserError(f"{split}: its provenance is not that of a finished split; push it again")
    wrong = [
        f"{file}: {'is missing' if file not in state.files else 'is not the file whose sha256 is on record'}"
        for file, digest in provenance.files.items()
        if file not in state.files or state.files[file] not in (None, digest)  # None: too small for a digest there
    ]
    return FilesVerification(len(provenance.files) - len(wrong), len(provenance.files), True, wrong)


def _in_folder(paths: SplitPaths) -> FilesVerification:
    provenance = read_provenance(paths)
    folder = SplitFolder.of(paths, provenance)
    intact, errors = folder.intact_shards(provenance)
    wrong = [f"{error.path}: {error.reason}" for error in errors]
    if provenance.is_finished:
        there = (folder.shard_path(shard) for shard in range(folder.shards))
        wrong += [f"{path}: is missing" for path in there if not path.exists()]
        wrong += differences(paths.root, paths, provenance)
    return FilesVerification(len(intact), folder.shards, provenance.is_finished, wrong)
