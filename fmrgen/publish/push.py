"""Perturbed splits on the Hub: pushed as they are, into a repo that may hold others already."""

import json
import re
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from fmrgen.errors import UserError, option
from fmrgen.files import check_inside, read_json, read_plain, sha256_of, write_atomically
from fmrgen.hub.client import Operation, RejectedError, check_publication
from fmrgen.publish.benchmark import BenchmarkError, write_benchmark
from fmrgen.publish.card import FinishedSplit, data_named
from fmrgen.publish.repo import Change, HubRepo, RepoState
from fmrgen.recipe.job import Recipe
from fmrgen.split.judgements import JudgementsFolder
from fmrgen.split.reference import parse_reference
from fmrgen.storage.paths import BENCHMARK, CARD, OWN_FOLDERS, SplitPaths, deltas_among, splits_in
from fmrgen.storage.provenance import Provenance, check_config, parse_provenance, read_provenance

# Files that `load_dataset` takes for data if no card says what is.
_DATA = re.compile(r"\.(csv|tsv|jsonl?|parquet|arrow|txt|xml|tar|zip|gz|png|jpe?g|webp|bmp|tiff?)$", re.IGNORECASE)
# Licences that allow everyone to share the images.
_FREE = re.compile(r"(cc-by|cc0|mit|apache|bsd|pddl|odc|odbl|cdla|unlicense|openrail|gpl|lgpl)", re.IGNORECASE)


@dataclass(frozen=True)
class Pushed:
    """The state of the repo after a push.

    Attributes:
        repo: `OWNER/NAME`.
        private: whether the repo is private.
        commit: the commit that holds the splits.
        url: address of the commit; None if there was nothing to commit.
        new: splits that the repo did not have before.
        tags: tags of all splits, in their order.
        notes: what the owner should know.
    """

    repo: str
    private: bool
    commit: str
    url: str | None
    new: list[str]
    tags: list[str]
    notes: list[str]


def push(
    folder: str | Path,
    repo: str,
    *,
    public: bool = False,
    replace: bool = False,
    revision: str | None = None,
) -> Pushed:
    """Upload finished splits to a dataset repo on the Hub.

    All files go in one commit, with the card of all splits in the repo. Files that the Hub already has are not sent
    again, and an interrupted push resumes. Each split gets a tag, for citations.

    Args:
        folder: a dataset folder, or one split of it, `FOLDER:CONFIG/SPLIT`.
        repo: `OWNER/NAME`, or a name in the caller's own namespace; created if needed, private unless `public`.
        public: make the images visible to everyone.
        replace: replace a split that has the same name and other files.
        revision: a branch, created if needed, or a pull request (`refs/pr/3`).

    Returns:
        Where the splits are now.

    Raises:
        UserError: nothing is finished, the Hub refuses, or something would be lost.
    """
    splits, notes = _finished_splits(str(folder))
    hub = HubRepo(repo, revision)
    hub.log_in()
    check_publication(hub.name, hub.is_private(), public)
    # Reads all files, so that a wrong one stops the push before anything is made on the Hub.
    additions = [_additions(split) for split in splits]
    if hub.fetch_state() is None:
        hub.make(private=not public)
    new: dict[str, None] = {}

    def change(small: Path, state: RepoState, with_benchmark: bool = True) -> Change:
        check_publication(hub.name, state.private, public)
        _check_may_hold_splits(small, state)
        _add_hand_written(splits[0].paths.root, small, state, with_benchmark)
        operations: list[Operation] = []
        for split, files in zip(splits, additions, strict=True):
            remote = _remote_provenance(split.paths.at(small))
            if not _is_there(split, remote, state):
                if not replace:
                    _check_replaces_nothing(split, remote, small, state)
                check_config(split.paths.at(small), split.provenance, hub.name)
                new[split.paths.name] = None
                # Copies for each attempt: the client keeps in them what it found on the Hub at that one.
                operations += map(copy, files)
                operations += _old_shards(split, state)
            _add_small_files(split, small)
            operations += _judgements(split, small, hub.name)
        if with_benchmark:
            write_benchmark(small, hub.name)
        listed = ", ".join(f"{split.paths.name} (recipe {split.provenance.fingerprint})" for split in splits)
        verb = "Add" if new else "Update the card of"
        return f"{verb} {listed}", operations

    try:
        commit, url = hub.update(change)
    except (BenchmarkError, RejectedError) as error:
        # The splits matter more, and the benchmark file may be all that is wrong.
        commit, url = hub.update(partial(change, with_benchmark=False))
        notes.append(f"pushed without {BENCHMARK}, so it has no board of the Hub's: {error}")
    state = hub.fetch_state()
    if state is None:
        raise UserError(f"{hub.name}: no longer exists on the Hub")
    _check_all_sent(splits, state, commit)
    tags = [] if hub.is_pull_request else _add_tags(hub, splits, commit)
    if public and state.private:
        notes.append(
            f"{hub.name} stays private: {option('public', 'public=True')} allows a public repo, and changes none"
        )
    return Pushed(hub.name, state.private, commit, url, list(new), tags, notes + _warn(splits, state))


def check_push(repo: str, recipe: Recipe, *, public: bool = False, replace: bool = False) -> None:
    """Raise UserError, before a long job, if its split may not be pushed to a dataset repo.

    The Hub must know the caller, a public repo needs `public`, and another split of the same name, with another recipe,
    needs `replace`. `repo` is `OWNER/NAME`, or a name in the caller's own namespace.
    """
    hub = HubRepo(repo)
    hub.log_in()
    state = hub.fetch_state()
    if state is None:
        return
    check_publication(hub.name, state.private, public)
    paths = SplitPaths(Path(), recipe.output.config, recipe.output.split)
    path = paths.provenance.as_posix()
    if path in state.files and not replace:
        with suppress(ValueError, AttributeError):
            fingerprint = json.loads(hub.content(path, state)).get("fingerprint")
            if fingerprint != recipe.fingerprint:
                raise _another_split(hub.name, paths.name, fingerprint, recipe.fingerprint)


def _finished_splits(text: str) -> tuple[list[FinishedSplit], list[str]]:
    """Return the splits to push, and a note for each that is left out. Raises UserError if there are none to push."""
    reference = parse_reference(text)
    root = Path(reference.repo)
    if not root.is_dir():
        raise UserError(f"{text}: no such folder; push the {option('output')} of a generate command")
    wanted = (reference.config, reference.split)
    splits, notes = [], []
    for paths in splits_in(root):
        if wanted not in ((None, None), (paths.config, paths.split)):
            continue
        check_inside(paths.provenance, root)
        provenance = parse_provenance(read_json(paths.provenance), f"{root}:{paths.name}")
        if provenance is not None and provenance.is_finished:
            splits.append(FinishedSplit(paths, provenance))
        else:
            notes.append(f"{paths.name} is not finished and stays here; run the same generate command again")
    if splits:
        return splits, notes
    if notes:
        raise UserError(f"{text}: {notes[0]}")
    raise UserError(f"{text}: contains no perturbed split; push the {option('output')} of a generate command")


def _additions(split: FinishedSplit) -> list[CommitOperationAdd]:
    """Return operations that add a split's files. Raises UserError if these are not the ones that were checked."""
    again = "run the same generate command again"
    operations = []
    for path, digest in split.provenance.files.items():
        file = split.paths.root / path
        if not file.is_file():
            raise UserError(f"{file}: is gone; {again}")
        operation = CommitOperationAdd(path, file.absolute())  # it would expand a `~`
        if operation.upload_info.sha256.hex() != digest:
            raise UserError(f"{file}: is not the file that was checked; delete it, and {again}")
        operations.append(operation)
    picture = split.paths.picture
    if not picture.is_file():
        raise UserError(f"{picture}: is gone; {again}")
    check_inside(picture, split.paths.root)
    return [*operations, CommitOperationAdd(str(split.repo_paths.picture), picture.absolute())]


def _judgements(split: FinishedSplit, small: Path, repo: str) -> list[CommitOperationAdd]:
    """Return operations that add the tables of all judges of a split; write the files about them into `small`.

    Judgements of earlier files of the split are left out. `small` is the folder of the repo's small files. Raises
    UserError if the repo has another judge of the same name, or a table is not the one that its file describes.
    """
    folder, remote = JudgementsFolder(split.paths), JudgementsFolder(split.paths.at(small))
    operations = []
    for judge, about in folder.judges().items():
        if about.files != split.provenance.files_digest:
            continue
        table = folder.table_path(judge)
        check_inside(table, split.paths.root)
        if sha256_of(table) != about.sha256:
            raise UserError(f"{table}: is not the table that {judge}.json describes; judge again")
        remote_about = remote.about_path(judge)
        if remote_about.exists() and read_json(remote_about) == read_json(folder.about_path(judge)):
            continue
        remote.check_same_judge(about, repo)
        remote.write_about(about)
        operations.append(CommitOperationAdd(split.paths.in_repo(table), table.absolute()))
    return operations


def _check_may_hold_splits(small: Path, state: RepoState) -> None:
    """Raise UserError if a repo has data that `load_dataset` could not read any more beside a perturbed split.

    `small` is the folder of its small files.
    """
    name = state.name
    if deltas_among(state.files):
        raise UserError(f"{name}: holds splits without images; push those with images to another repo")
    named = data_named(small / CARD, name)
    if named is None:
        own = tuple(f"{folder}/" for folder in OWN_FOLDERS)
        for path in sorted(state.files):
            if _DATA.search(path) and not path.startswith(own):
                raise UserError(
                    f"{name}: contains data that its card does not list ({path}), which load_dataset would no "
                    "longer find: list it in the card's `configs` first, or choose another repo"
                )
        return
    for path in named:
        match = _DATA.search(path)
        if match is not None and match[1].lower() != "parquet":
            raise UserError(
                f"{name}: contains data that is not parquet ({path}), and load_dataset reads one format per "
                "repo; choose another repo"
            )


def _check_all_sent(splits: list[FinishedSplit], state: RepoState, commit: str) -> None:
    """Raise UserError if the commit lacks files: the client silently leaves out what a .gitignore in the repo matches.

    If others have committed since, it is not known who removed a file.
    """
    if state.commit != commit:
        return
    for split in splits:
        for path in (*split.provenance.files, str(split.repo_paths.picture)):
            if path not in state.files:
                raise UserError(f"{state.name}: rejected {path}; a .gitignore in it may match it, fix that there")


def _is_there(split: FinishedSplit, remote: Provenance | None, state: RepoState) -> bool:
    """Return whether the repo, whose provenance of the split is `remote`, holds the very files of the split."""
    files = split.provenance.files
    if str(split.repo_paths.picture) not in state.files or remote is None or remote.files != files:
        return False
    # The sha256 of a small file that the repo keeps in git is not known: its name must do.
    return all(path in state.files and state.files[path] in (None, digest) for path, digest in files.items())


def _remote_provenance(paths: SplitPaths) -> Provenance | None:
    """Return the repo's provenance of a split, among its small files; None if there is none that can be read."""
    with suppress(UserError):
        return read_provenance(paths)
    return None


def _check_replaces_nothing(split: FinishedSplit, remote: Provenance | None, small: Path, state: RepoState) -> None:
    """Raise UserError if the repo has another split of the same name, or files of one without a provenance."""
    own = split.provenance
    is_other = remote is not None and remote.files != own.files
    if is_other or (remote is None and (split.paths.at(small).provenance.exists() or _old_shards(split, state))):
        fingerprint = None if remote is None else remote.fingerprint
        raise _another_split(state.name, split.paths.name, fingerprint, own.fingerprint)


def _another_split(repo: str, name: str, remote: Any, own: str) -> UserError:
    """Return the error that a repo has another split of the same name.

    `remote` is the fingerprint in the repo, None without provenance; `own` is that of the split to push.
    """
    recipe = "no provenance" if remote is None else f"recipe {remote}"
    return UserError(
        f"{repo}: already contains another {name} ({recipe}, yours {own}); pass "
        f"{option('replace', 'replace=True')}, or choose another {option('output.split')}"
    )


def _old_shards(split: FinishedSplit, state: RepoState) -> list[CommitOperationDelete]:
    """Return deletions of a split's parquet files in the repo that are not its files now."""
    shards = re.compile(rf"{re.escape(split.paths.name)}-[^/]*\.parquet")
    old = sorted(file for file in state.files if shards.fullmatch(file) and file not in split.provenance.files)
    return [CommitOperationDelete(file) for file in old]


def _add_hand_written(root: Path, small: Path, state: RepoState, with_benchmark: bool) -> None:
    """Copy the folder's card and benchmark file to the small files if the repo has none, for what was written into
    them by hand."""
    for name in (CARD, BENCHMARK) if with_benchmark else (CARD,):
        if name not in state.files and (root / name).is_file():
            check_inside(root / name, root)
            (small / name).write_bytes(read_plain(root / name))


def _add_small_files(split: FinishedSplit, small: Path) -> None:
    """Copy the split's provenance and results to the small files."""
    root = split.paths.root
    for path in [split.paths.provenance, *split.paths.results.glob("*.json")]:
        check_inside(path, root)
        write_atomically(small / path.relative_to(root), read_plain(path), durable=False)


def _add_tags(hub: HubRepo, splits: list[FinishedSplit], commit: str) -> list[str]:
    """Tag each split at a commit, unless its tag exists, and return the tags."""
    existing = hub.tags()
    for split in splits:
        if split.tag not in existing:
            hub.tag(split.tag, commit, f"{split.paths.name}, recipe {split.provenance.fingerprint}")
    return [split.tag for split in splits]


def _warn(splits: list[FinishedSplit], state: RepoState) -> list[str]:
    """Return notes on the licences of splits that everyone can see."""
    if state.private:
        return []
    notes = []
    for split in splits:
        licence = split.provenance.recipe.source.get("license")
        if licence is None or not _FREE.match(licence):
            licence_text = f"is {licence}" if licence else "is not said (source.license)"
            line = f"{split.paths.name} is public, and the licence of its source {licence_text}"
            notes.append(f"{line}: make sure that you may share it")
    return notes
