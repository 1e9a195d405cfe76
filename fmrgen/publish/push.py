"""Perturbed splits on the Hub: pushed as they are, beside what the repo holds already."""

import json
import logging
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from fmrgen.errors import UserError, option
from fmrgen.files import check_inside, read_json, read_plain
from fmrgen.hub.client import Operation, RejectedError, check_publication
from fmrgen.publish.benchmark import BenchmarkError, write_benchmark
from fmrgen.publish.card import citation_tag, data_named
from fmrgen.publish.judgements import add_judgements
from fmrgen.publish.repo import Change, HubRepo, RepoState
from fmrgen.recipe.job import Recipe
from fmrgen.split.reference import parse_reference
from fmrgen.storage.paths import BENCHMARK, CARD, CROISSANT, OWN_FOLDERS, SplitPaths, deltas_among, splits_in
from fmrgen.storage.provenance import Provenance, check_config, parse_provenance, read_provenance

# What `load_dataset` takes for data where no card says what is.
_DATA = re.compile(r"\.(csv|tsv|jsonl?|parquet|arrow|txt|xml|tar|zip|gz|png|jpe?g|webp|bmp|tiff?)$", re.IGNORECASE)
_FREE = re.compile(r"(cc-by|cc0|mit|apache|bsd|pddl|odc|odbl|cdla|unlicense|openrail|gpl|lgpl)", re.IGNORECASE)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pushed:
    """What is on the Hub now: in which repo, in which commit, and under which tags, split by split.

    `new` are the splits that were not there before, `notes` what their owner should know.
    """

    repo: str
    private: bool
    commit: str
    url: str | None
    new: list[str]
    tags: list[str]
    notes: list[str]


@dataclass
class _Local:
    """A finished split in a folder, and what its files are on the Hub."""

    paths: SplitPaths
    provenance: Provenance

    @property
    def name(self) -> str:
        return self.paths.name

    @property
    def tag(self) -> str:
        """Names the recipe and the very files: what is cited by it never changes."""
        return citation_tag(
            self.paths.config, self.paths.split, self.provenance.fingerprint, self.provenance.files_digest
        )

    @cached_property
    def operations(self) -> list[CommitOperationAdd]:
        """Operations that add its files. Raises UserError where these are not the ones that were checked."""
        again = "run the same generate command again"
        operations = []
        for path, digest in self.provenance.files.items():
            file = self.paths.root / path
            if not file.is_file():
                raise UserError(f"{file}: is gone; {again}")
            operation = CommitOperationAdd(path, file.absolute())  # it would expand a `~`
            if operation.upload_info.sha256.hex() != digest:
                raise UserError(f"{file}: is not the file that was checked; delete it, and {again}")
            operations.append(operation)
        picture = self.paths.picture
        if not picture.is_file():
            raise UserError(f"{picture}: is gone; {again}")
        check_inside(picture, self.paths.root)
        return [*operations, CommitOperationAdd(self.picture, picture.absolute())]

    @property
    def picture(self) -> str:
        return self.paths.in_repo(self.paths.picture)


def push(
    folder: str | Path,
    repo: str,
    *,
    public: bool = False,
    replace: bool = False,
    revision: str | None = None,
    on_wait: Callable[[str], None] = lambda line: None,
) -> Pushed:
    """Puts finished splits into a dataset repo on the Hub.

    The files go as they are, in one commit, with the card of all splits that the repo then holds; what is there
    already is
    not sent again, and a push that was interrupted goes on where it stopped. Each split gets a tag to be cited by.

    Args:
        folder: a dataset folder, or one split of it, `FOLDER:CONFIG/SPLIT`.
        repo: `OWNER/NAME`, or a name of the caller's own; made if need be, private unless `public`.
        public: whether everyone may see the images.
        replace: whether a split that is there with other files is replaced.
        revision: a branch, made if need be, or a pull request (`refs/pr/3`).
        on_wait: called with a line when the Hub makes one wait.

    Returns:
        Where the splits are now.

    Raises:
        UserError: nothing is finished, the Hub refuses, or something would be lost.
    """
    found, notes = _finished_splits(str(folder))
    hub = HubRepo(repo, revision, on_wait)
    hub.log_in()
    check_publication(hub.name, hub.is_private(), public)
    for local in found:
        _ = local.operations  # before anything is made on the Hub
    if hub.fetch_state() is None:
        hub.create(private=not public)
    new: dict[str, None] = {}

    def change(small: Path, state: RepoState) -> Change:
        check_publication(hub.name, state.private, public)
        check_may_hold_splits(hub.name, small, state)
        operations: list[Operation] = []
        root = found[0].paths.root
        for name in (CARD, BENCHMARK) if takes_benchmark else (CARD,):
            if name not in state.files and (root / name).is_file():
                check_inside(root / name, root)
                (small / name).write_bytes(read_plain(root / name))  # for what was written into it by hand
        for local in found:
            if not _is_there(local, small, state):
                _check_replaced(local, small, state, replace)
                check_config(local.paths.at(small), local.provenance, hub.name)
                new[local.name] = None
                # Copies for each attempt: the client keeps in them what it found on the Hub at that one.
                operations += [*map(copy, local.operations), *old_shards(local.paths, local.provenance.files, state)]
            _add_small_files(local, small)
            operations += add_judgements(local.paths, local.provenance, small, hub.name)
        if takes_benchmark:
            write_benchmark(small, hub.name)
        listed = ", ".join(f"{split.name} (recipe {split.provenance.fingerprint})" for split in found)
        return Change(f"{'Add' if new else 'Update the card of'} {listed}", operations)

    takes_benchmark = True
    try:
        commit, url = hub.update(change)
    except (BenchmarkError, RejectedError) as error:
        takes_benchmark = False  # the splits matter more, and may be all that is right
        commit, url = hub.update(change)
        notes.append(f"pushed without {BENCHMARK}, so it has no board of the Hub's: {error}")
    state = hub.fetch_state()
    if state is None:
        raise UserError(f"{hub.name}: is gone from the Hub")
    _check_all_sent(found, state, commit)
    tags = [] if hub.is_pull_request else _add_tags(hub, found, commit)
    return Pushed(hub.name, state.private, commit, url, list(new), tags, notes + _warn(found, state))


def check_push(repo: str, recipe: Recipe, *, public: bool = False, replace: bool = False) -> None:
    """Proves, before a long job, that what `recipe` makes may be pushed to the dataset repo. Raises UserError.

    The Hub must know the caller, a public repo needs `public`, and another split of the same name `replace`.
    """
    hub = HubRepo(repo, None, _log.warning)
    hub.log_in()
    state = hub.fetch_state()
    if state is None:
        return
    check_publication(hub.name, state.private, public)
    paths = SplitPaths(Path(), recipe.output.config, recipe.output.split)
    path = paths.provenance.as_posix()
    if path in state.files and not replace:
        with suppress(ValueError, AttributeError):
            there = json.loads(hub.read(path, state)).get("fingerprint")
            if there != recipe.fingerprint:
                raise another_split(hub.name, paths.name, there, recipe.fingerprint)


def _finished_splits(text: str) -> tuple[list[_Local], list[str]]:
    """The splits to push, and a note for each that is left out."""
    reference = parse_reference(text)
    root = Path(reference.repo)
    if not root.is_dir():
        raise UserError(f"{text}: no such folder; push the {option('output')} of a generate command")
    wanted = (reference.config, reference.split)
    found, notes = [], []
    for paths in splits_in(root):
        if wanted not in ((None, None), (paths.config, paths.split)):
            continue
        check_inside(paths.provenance, root)
        provenance = parse_provenance(read_json(paths.provenance))
        if provenance is not None and provenance.is_finished:
            found.append(_Local(paths, provenance))
        else:
            notes.append(f"{paths.name} is not finished and stays here; run the same generate command again")
    if not found:
        folder = option("output")
        raise UserError(
            f"{text}: {notes[0] if notes else f'contains no perturbed split; push the {folder} of a generate command'}"
        )
    return found, notes


def check_may_hold_splits(name: str, small: Path, state: RepoState) -> None:
    """Raises UserError for data that `load_dataset` could not read any more beside a perturbed split."""
    if deltas_among(state.files):
        raise UserError(f"{name}: holds splits without images; push those with images to another repo")
    named = data_named(small / CARD, name)
    if named is None:
        own = (*(f"{folder}/" for folder in OWN_FOLDERS), CROISSANT)
        unnamed = [
            path for path in sorted(state.files) if _DATA.search(path) and not path.startswith((*own, CROISSANT))
        ]
        if unnamed:
            raise UserError(
                f"{name}: contains data that its card does not list ({unnamed[0]}), which load_dataset would no "
                "longer find: list it in the card's `configs` first, or choose another repo"
            )
    elif others := [path for path in named if (found := _DATA.search(path)) and found[1].lower() != "parquet"]:
        raise UserError(
            f"{name}: contains data that is not parquet ({others[0]}), and load_dataset reads one format per "
            "repo; choose another repo"
        )


def _check_all_sent(found: list[_Local], state: RepoState, commit: str) -> None:
    """The Hub's client leaves out without a word what a .gitignore in the repo matches."""
    for local in found:
        missing = [path for path in (*local.provenance.files, local.picture) if path not in state.files]
        if missing and state.commit == commit:
            raise UserError(f"{state.name}: rejected {missing[0]}; a .gitignore in it may match it, fix that there")


def _is_there(local: _Local, small: Path, state: RepoState) -> bool:
    """Whether the repo holds the very files of the split."""
    files = local.provenance.files
    there = provenance_there(local.paths, small)
    if local.picture not in state.files or there is None or there.files != files:
        return False
    # The sha256 of a small file that the repo keeps in git is not known: its name must do.
    return {path: state.files[path] or digest for path, digest in files.items() if path in state.files} == files


def provenance_there(paths: SplitPaths, small: Path) -> Provenance | None:
    """What the repo says of a split of that name; None where it says nothing that can be read."""
    with suppress(UserError):
        return read_provenance(paths.at(small))
    return None


def _check_replaced(local: _Local, small: Path, state: RepoState, may_replace: bool) -> None:
    there = provenance_there(local.paths, small)
    if may_replace or (there is not None and there.files == local.provenance.files):
        return
    if there is not None and not there.is_finished and there.fingerprint == local.provenance.fingerprint:
        return  # it was sent as far as it was made
    if (
        there is not None
        or local.paths.at(small).provenance.exists()
        or old_shards(local.paths, local.provenance.files, state)
    ):
        found = None if there is None else there.fingerprint
        raise another_split(state.name, local.name, found, local.provenance.fingerprint)


def another_split(repo: str, name: str, there: Any, own: str) -> UserError:
    recipe = "no provenance" if there is None else f"recipe {there}"
    return UserError(
        f"{repo}: already contains another {name} ({recipe}, yours {own}); pass "
        f"{option('replace', 'replace=True')}, or choose another {option('output.split')}"
    )


def old_shards(paths: SplitPaths, files: Collection[str], state: RepoState) -> list[CommitOperationDelete]:
    """Deletions of the parquet files of a split that are not among its files now."""
    shards = re.compile(rf"{re.escape(paths.name)}-[^/]*\.parquet")
    gone = sorted(file for file in state.files if shards.fullmatch(file) and file not in files)
    return [CommitOperationDelete(file) for file in gone]


def _add_small_files(local: _Local, small: Path) -> None:
    """The split's provenance, and what has been found on it."""
    root = local.paths.root
    found = [local.paths.provenance, *local.paths.results.glob("*.json")]
    if local.paths.explanation.is_file():
        found.append(local.paths.explanation)
    for path in found:
        check_inside(path, root)
        target = small / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(read_plain(path))


def _add_tags(hub: HubRepo, found: list[_Local], commit: str) -> list[str]:
    known = hub.tags()
    for local in found:
        if local.tag not in known:
            hub.tag(local.tag, commit, f"{local.name}, recipe {local.provenance.fingerprint}")
    return [local.tag for local in found]


def _warn(found: list[_Local], state: RepoState) -> list[str]:
    """Notes on the licence of what can be seen by everyone."""
    if state.private:
        return []
    notes = []
    for local in found:
        licence = local.provenance.recipe.source.get("license")
        if licence is None or not _FREE.match(licence):
            licence_text = f"is {licence}" if licence else "is not said (source.license)"
            notes.append(
                f"{local.name} is public, and the licence of its source {licence_text}: make sure that you may share it"
            )
    return notes
