"""What a split is called, and whether it is there: what can be known without opening it, and without torch."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from fmrgen.errors import UserError, chain, one_line, unknown_message
from fmrgen.files import check_inside, no_such_folder
from fmrgen.storage.paths import DELTAS, SplitPaths, deltas_among, splits_in
from fmrgen.storage.provenance import read_provenance
from fmrgen.storage.shared_bucket import is_bucket
from fmrgen.trust.parquet import check_parquet_files


class Reference(NamedTuple):
    """`PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]`; None where it is not said."""

    repo: str
    revision: str | None
    config: str | None
    split: str | None


def parse_reference(text: str) -> Reference:
    """Return what `text` names; a folder that is there goes before a repository. Raises UserError where it names no
    split."""
    if is_bucket(text):
        raise UserError(f"{text}: is in a bucket; copy it to this machine, or read its parquet files by load_dataset")
    if text.strip() and Path(text).is_dir():
        return Reference(text, None, None, None)
    folder, _, place = text.rpartition(":")
    if folder and Path(folder).is_dir():
        named = re.fullmatch(r"([\w.-]+)/([\w.]+)", place)
        if named is not None:
            return Reference(folder, None, named[1], named[2])
        if "/" not in place:
            splits = [paths.name for paths in splits_in(Path(folder)) if place in ("", paths.config)]
            names = ", ".join(f"{folder}:{name}" for name in splits)
            cure = f"found {names}" if names else "say FOLDER:CONFIG/SPLIT"
            raise UserError(f"{text}: names no split; {cure}")
    match = re.fullmatch(r"(?P<repo>.+?)(@(?P<revision>[^:@]+))?(:(?P<config>[\w.-]+)/(?P<split>[\w.]+))?", text)
    if match is None or not text.strip():
        raise UserError(f"{text!r}: a split is PATH_OR_REPO[@REVISION][:CONFIG/SPLIT], for example out:mnist/lenet")
    return Reference(match["repo"], match["revision"], match["config"], match["split"])


def choose_split(text: str, reference: Reference, available: list[tuple[str, str]]) -> tuple[str, str]:
    """Return the config and split that `text` says, or the only ones. Raises UserError where that is ambiguous."""
    names = ", ".join(f"{reference.repo}:{config}/{split}" for config, split in available)
    if reference.config is not None and reference.split is not None:
        place = (reference.config, reference.split)
        if place not in available:
            raise UserError(f"{text}: no split {place[0]}/{place[1]}" + (f"; found {names}" if names else " in it"))
        return place
    if len(available) != 1:
        raise UserError(f"{text}: " + (f"choose one: {names}" if available else "contains no perturbed split"))
    return available[0]


def deltas_of(folder: Path) -> list[str]:
    """Return the files of deltas in a folder, as a repo would call them."""
    return [path.relative_to(folder).as_posix() for path in folder.glob(f"{DELTAS}/*/*")]


def check_no_delta(text: str, place: str, files: Iterable[str]) -> None:
    """Raise UserError for a folder or repo with splits without their images; it has none with them."""
    if deltas_among(files):
        raise UserError(
            f"{text}: is a delta, which has no images; restore these with `fmrgen rebuild {place} --source RECIPE`, "
            "and use the folder that it writes"
        )


def check_folder(place: str) -> None:
    """Raise UserError for a dataset folder that is not there, as far as `place` can only be a folder."""
    if place.startswith((".", "/", "~")) and not Path(place).exists():  # no name of a repo does
        raise UserError(no_such_folder(place))


def check_rows(text: str, ids: Sequence[int], classes: Sequence[str]) -> None:
    """Raise UserError for an id or a class that a split in a folder does not have; who opens it says all else."""
    if not ids and not classes:
        return
    reference = parse_reference(text)
    root = Path(reference.repo)
    splits = [paths for paths in splits_in(root) if paths.split == (reference.split or paths.split)]
    splits = [paths for paths in splits if paths.config == (reference.config or paths.config)]
    if len(splits) != 1:
        return
    (paths,) = splits
    check_inside(paths.provenance, root)
    provenance = read_provenance(paths)
    for name in classes:
        if name not in provenance.labels:
            raise UserError(f"{root}:{paths.name}: {unknown_message(f'class {name}', name, provenance.labels)}")
    if not ids or not provenance.is_finished:
        return
    stored: set[int] = set()
    files = [root / file for file in provenance.files]
    for file in files:
        check_inside(file, root)
    check_parquet_files(map(str, files))
    for file in files:
        with suppress(pa.ArrowException, OSError):
            stored.update(pq.read_table(file, columns=["id"])["id"].to_pylist())
    for wanted in ids:
        if wanted not in stored:
            raise UserError(f"{text}: has no row of id {wanted}")


def check_there(text: str) -> None:
    """Raise UserError where a split is not there, as far as that is known at once; who opens it waits for outages."""
    if text.endswith(".parquet") and not Path(text).is_dir():
        if "://" not in text and not glob(text):
            raise UserError(f"{text}: no such file")
        return
    reference = parse_reference(text)
    if Path(reference.repo).is_dir():
        return
    check_folder(reference.repo)
    _check_repo_name(reference.repo)
    from huggingface_hub import errors

    sure = (
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
        errors.HFValidationError,
        errors.OfflineModeIsEnabled,
    )
    try:
        files_on_the_hub(reference)
    except UserError as error:
        if any(isinstance(link, sure) for link in chain(error)):
            raise


def files_on_the_hub(reference: Reference) -> tuple[list[str], str]:
    """Return the files of a repo on the Hub, and the commit that is looked at. Raises UserError where there is none."""
    from huggingface_hub import HfApi

    from fmrgen.hub.timeouts import bound_requests, checked_commit

    _check_repo_name(reference.repo)
    bound_requests()
    try:
        info = HfApi().dataset_info(reference.repo, revision=reference.revision)
    except Exception as error:  # the Hub's client and the network under it fail in many ways
        raise UserError(
            f"{reference.repo}: neither a folder nor a dataset repo that can be read: {one_line(error)}"
        ) from None
    return [file.rfilename for file in info.siblings or []], checked_commit(info.sha, reference.repo)


def _check_repo_name(name: str) -> None:
    """Raise UserError for what is no folder and can't be a repo, before the Hub is asked."""
    if name.count("/") < 2:
        return
    folder, config, split = name.rsplit("/", 2)
    is_split = SplitPaths(Path(folder), config, split).provenance.exists()
    cure = f"; the split of that name in {folder} is {folder}:{config}/{split}" if is_split else ""
    raise UserError(f"{name}: neither a folder nor a dataset repo{cure}")
