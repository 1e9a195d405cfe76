"""Perturbed splits on the Hub: pushed as they are, beside what the repo holds already."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from fmrgen.errors import UserError
from fmrgen.hub import Change, HubRepo, Operation, RepoState
from fmrgen.provenance import refuse_mixed_config
from fmrgen.reading import parse_reference
from fmrgen.recipe import fingerprint
from fmrgen.split import picture_path, provenance_path, read_json

_FREE = re.compile(r"(cc-by|cc0|mit|apache|bsd|pddl|odc|odbl|cdla|unlicense|openrail|gpl|lgpl)", re.IGNORECASE)


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

    root: Path
    config: str
    split: str
    provenance: dict[str, Any]
    operations: list[Operation] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.config}/{self.split}"

    @property
    def tag(self) -> str:
        """Names the recipe and the very files: what is cited by it never changes."""
        files = fingerprint(self.provenance["files"])[:8]
        return f"{self.config}-{self.split}-{self.provenance['fingerprint']}-{files}".replace("..", "-")

    def read_files(self) -> None:
        """Makes the operations that add its files. Raises UserError where these are not the ones that were checked."""
        again = "run the same generate command again"
        for path, digest in self.provenance["files"].items():
            if not (self.root / path).is_file():
                raise UserError(f"{self.root / path}: is gone; {again}")
            operation = CommitOperationAdd(path, self.root / path)
            if operation.upload_info.sha256.hex() != digest:
                raise UserError(f"{self.root / path}: is not the file that was checked; delete it, and {again}")
            self.operations.append(operation)
        picture = picture_path(self.root, self.config, self.split)
        if not picture.is_file():
            raise UserError(f"{picture}: is gone; {again}")
        self.operations.append(CommitOperationAdd(picture.relative_to(self.root).as_posix(), picture))


def push(
    folder: str | Path,
    repo: str,
    *,
    public: bool = False,
    replace: bool = False,
    revision: str | None = None,
    on_wait: Callable[[str], None] = lambda line: None,
) -> Pushed:
    """Puts the finished splits of `folder` (or the one of `FOLDER:CONFIG/SPLIT`) into the dataset repo `repo`.

    The files go as they are, in one commit, with the card of all splits that the repo then holds; what is there already
    is not sent again, and a push that was interrupted goes on where it stopped. The repo is made if need be, private
    unless `public`. A split that is there with other files is replaced only with `replace`. `revision` is a branch,
    made if need be, or a pull request (`refs/pr/3`). Each split gets a tag to be cited by. `on_wait` is told when the
    Hub makes one wait. Raises UserError.
    """
    found, notes = _finished_splits(str(folder))
    hub = HubRepo(repo, revision, on_wait)
    hub.log_in()
    state = hub.look()
    if state is not None:
        _refuse_unasked_publication(state, public)
    for local in found:
        local.read_files()
    if state is None:
        hub.create(private=not public)
    new: list[str] = []

    def change(small: Path, state: RepoState) -> Change:
        new.clear()
        operations: list[Operation] = []
        for local in found:
            if not _is_there(local, small, state):
                _refuse_to_lose(local, small, state, replace)
                refuse_mixed_config(small, local.config, local.split, local.provenance, hub.name)
                new.append(local.name)
                operations += [*local.operations, *_old_shards(local, state)]
            _add_small_files(local, small)
        listed = ", ".join(f"{split.name} (recipe {split.provenance['fingerprint']})" for split in found)
        return Change(f"{'Add' if new else 'Update the card of'} {listed}", operations)

    done = hub.update(change)
    state = hub.look()
    if state is None:
        raise UserError(f"{hub.name}: is gone from the Hub")
    commit = state.commit if done is None else done[0]
    tags = [] if hub.is_pull_request else _add_tags(hub, found, commit)
    return Pushed(
        hub.name, state.private, commit, None if done is None else done[1], new, tags, notes + _warn(found, state)
    )


def check_push(repo: str, *, public: bool = False) -> None:
    """Proves, before a long job, that the Hub knows the caller and the repo is one to push to. Raises UserError."""
    hub = HubRepo(repo, None, lambda line: None)
    hub.log_in()
    state = hub.look()
    if state is not None:
        _refuse_unasked_publication(state, public)


def _finished_splits(text: str) -> tuple[list[_Local], list[str]]:
    """The splits to push, and a note for each that is left out."""
    reference = parse_reference(text)
    root = Path(reference.repo)
    if not root.is_dir():
        raise UserError(f"{text}: no such folder; push the --output of a generate command")
    wanted = (reference.config, reference.split)
    found, notes = [], []
    for path in sorted((root / "provenance").glob("*/*.json")):
        place = (path.parent.name, path.stem)
        if wanted not in ((None, None), place):
            continue
        provenance = read_json(path)
        if provenance.get("finished"):
            found.append(_Local(root, *place, provenance))
        else:
            notes.append(f"{'/'.join(place)} is not finished and stays here; run the same generate command again")
    if not found:
        raise UserError(f"{text}: {notes[0] if notes else 'holds no perturbed split'}")
    return found, notes


def _refuse_unasked_publication(state: RepoState, public: bool) -> None:
    if not state.private and not public:
        raise UserError(f"{state.name}: is a public repo; if these images may be published, say --public")


def _is_there(local: _Local, small: Path, state: RepoState) -> bool:
    """Whether the repo holds the very files of the split."""
    path = provenance_path(small, local.config, local.split)
    if not path.exists() or not state.files.issuperset(local.provenance["files"]):
        return False
    return read_json(path).get("files") == local.provenance["files"]


def _refuse_to_lose(local: _Local, small: Path, state: RepoState, replace: bool) -> None:
    path = provenance_path(small, local.config, local.split)
    if replace or not (path.exists() or _old_shards(local, state)):
        return
    recipe = f"recipe {read_json(path).get('fingerprint')}" if path.exists() else "no provenance"
    raise UserError(
        f"{state.name}: holds another {local.name} already ({recipe}, yours {local.provenance['fingerprint']}); say "
        "--replace, or choose another output.split"
    )


def _old_shards(local: _Local, state: RepoState) -> list[CommitOperationDelete]:
    """Deletions of the parquet files of a split that are not among its files now."""
    shards = re.compile(rf"{re.escape(local.config)}/{re.escape(local.split)}-[^/]*\.parquet")
    gone = sorted(file for file in state.files if shards.fullmatch(file) and file not in local.provenance["files"])
    return [CommitOperationDelete(file) for file in gone]


def _add_small_files(local: _Local, small: Path) -> None:
    """The split's provenance, and what has been found on it."""
    for path in (
        provenance_path(local.root, local.config, local.split),
        *(local.root / "results" / local.config / local.split).glob("*.json"),
    ):
        target = small / path.relative_to(local.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _add_tags(hub: HubRepo, found: list[_Local], commit: str) -> list[str]:
    known = hub.tags()
    for local in found:
        if local.tag not in known:
            hub.tag(local.tag, commit, f"{local.name}, recipe {local.provenance['fingerprint']}")
    return [local.tag for local in found]


def _warn(found: list[_Local], state: RepoState) -> list[str]:
    """Notes on the licence of what can be seen by everyone."""
    if state.private:
        return []
    notes = []
    for local in found:
        licence = local.provenance["recipe"]["source"].get("license")
        if licence is None or not _FREE.match(licence):
            told = f"is {licence}" if licence else "is not said (source.license)"
            notes.append(
                f"{local.name} is public, and the licence of its source {told}: make sure that you may share it"
            )
    return notes
