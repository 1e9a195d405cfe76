"""Where a split lies: what its reference says of that, and what can be known without opening it, and without torch."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path
from typing import NamedTuple

from fmrgen.errors import UserError, chain, one_line, unknown_message
from fmrgen.files import check_inside, no_such_folder, read_json
from fmrgen.storage.bucket import is_bucket
from fmrgen.storage.paths import DELTAS, SplitPaths, deltas_among, splits_among, splits_in
from fmrgen.storage.provenance import Provenance, parse_provenance
from fmrgen.trust.admit import Kind


class Reference(NamedTuple):
    """`PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]`; None where it is not said."""

    repo: str
    revision: str | None
    config: str | None
    split: str | None


@dataclass(frozen=True)
class Location:
    """Where a split lies, before it is opened."""

    text: str  # its reference, as it was typed
    kind: Kind  # how it is to be read
    reference: Reference  # what the text names, with the config and split that were chosen
    commit: str | None = None  # on the Hub; None for what is on this machine
    own_splits: Sequence[tuple[str, str]] = ()  # config and split of each that fmrgen made in the folder or the repo
    files: Sequence[str] = ()  # the parquet files by their paths or addresses; none where `datasets` finds them
    provenance: Provenance | None = None  # of a finished split; None if fmrgen did not make it


def locate(text: str) -> Location:
    """Return where the split lies that `text` names.

    Which splits a dataset by others has is left to `with_chosen_split`: nobody looks into it before it is admitted.

    Raises UserError if there is none, if it is not finished, or if fmrgen made several and `text` does not say which.
    """
    matching = _matching_files(text)
    if matching is not None:
        return Location(text, "files", Reference(text, None, None, None), files=matching)
    reference = parse_reference(text)
    folder, commit = Path(reference.repo), None
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        raise UserError(
            f"{text}: is a folder of save_to_disk, no split; write its rows with to_parquet and name that file, or "
            "pass what load_from_disk returns to fmrgen.evaluate"
        )
    if folder.is_dir():
        own = [(paths.config, paths.split) for paths in splits_in(folder)]
        files = deltas_of(folder)
    else:
        files, commit = files_on_the_hub(reference)
        own = splits_among(files)
    if not own:
        check_no_delta(text, reference.repo, files)
    named = (reference.config, reference.split)
    if not own or named not in (*own, (None, None)):
        return Location(text, "dataset", reference, commit, own)
    config, split = choose_split(text, reference, own)
    provenance = _finished_provenance(text, reference.repo, commit, config, split)
    base = f"hf://datasets/{reference.repo}@{commit}" if commit else str(folder.absolute())
    shards = [f"{base}/{file}" for file in provenance.files]
    return Location(text, "split", reference._replace(config=config, split=split), commit, own, shards, provenance)


def with_chosen_split(location: Location) -> Location:
    """Return an admitted location with its config and split, which are chosen here for a dataset by others.

    Raises UserError if there is none, or if there are several and the reference does not say which.
    """
    if location.kind != "dataset":
        return location
    available = sorted({*location.own_splits, *_splits_by_card(location.reference.repo, location.commit)})
    config, split = choose_split(location.text, location.reference, available)
    return replace(location, reference=location.reference._replace(config=config, split=split))


def _splits_by_card(repo: str, commit: str | None) -> list[tuple[str, str]]:
    """Return the configs and splits of a dataset as `datasets` finds them."""
    import datasets

    splits = []
    try:
        for config in datasets.get_dataset_config_names(repo, revision=commit):
            splits += [(config, split) for split in datasets.get_dataset_split_names(repo, config, revision=commit)]
    except (datasets.exceptions.DatasetsError, FileNotFoundError):
        return []  # a folder without data files
    return splits


def _matching_files(pattern: str) -> list[str] | None:
    """Return the files of a pattern, of an address none; None for what names no files. Raises UserError if there is no
    such file."""
    if not pattern.endswith(".parquet") or Path(pattern).is_dir():
        return None
    if "://" in pattern:
        return []
    files = glob(pattern, recursive=True)
    if not files:
        raise UserError(f"{pattern}: no such file")
    return files


def _finished_provenance(text: str, repo: str, commit: str | None, config: str, split: str) -> Provenance:
    """Return what a folder, or a repo on the Hub, says of a split. Raises UserError where it is not that of a finished
    one."""
    unfinished = UserError(f"{text}: not finished; run the same generate command again")
    if commit is None:
        paths = SplitPaths(Path(repo), config, split)
        check_inside(paths.provenance, paths.root)
        path = paths.provenance
        if paths.begun.is_file() and not path.is_file():
            raise unfinished
    else:
        from huggingface_hub import hf_hub_download

        from fmrgen.hub.timeouts import no_bars

        name = SplitPaths(Path(), config, split).provenance.as_posix()
        with no_bars():
            path = Path(hf_hub_download(repo, name, repo_type="dataset", revision=commit))
    provenance = parse_provenance(read_json(path), text)
    if provenance is None or (provenance.finished and not provenance.is_finished):
        raise UserError(f"{text}: its provenance is not that of a finished split; generate it again")
    if not provenance.is_finished:
        raise unfinished
    return provenance


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
            raise UserError(f"{text}: is not a split; {cure}")
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
            splits = [f"{config}/{split}" for config, split in available]
            raise UserError(f"{text}: {unknown_message('split', '/'.join(place), splits)}")
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


def check_there(text: str) -> None:
    """Raise UserError where a split is not there, as far as that is known at once; who opens it waits for outages."""
    if _matching_files(text) is not None:
        return
    reference = parse_reference(text)
    folder = Path(reference.repo)
    if folder.is_dir():
        is_report = any((folder / name).is_file() for name in ("evaluation.json", "diff.json", "explain.json"))
        if is_report and not any(path.is_dir() for path in folder.iterdir()):  # a dataset may hold one, too
            raise UserError(f"{text}: holds a report; name the split that it is about, as OUT:CONFIG/SPLIT")
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
