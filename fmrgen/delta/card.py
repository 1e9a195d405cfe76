"""Deltas on the Hub: their card, and the push of a folder of them."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from fmrgen.delta.files import about_path, deltas_in, read_about
from fmrgen.errors import UserError
from fmrgen.files import read_plain, to_yaml, write_atomically
from fmrgen.hub.client import HubClient, Operation, check_no_token
from fmrgen.results.markdown_text import escape
from fmrgen.storage.made_with import made_with
from fmrgen.storage.paths import CARD, DELTA_FILE, DELTA_SHARD, DELTAS
from fmrgen.storage.provenance import Provenance

_OURS = "fmrgen rebuild"  # in every card that fmrgen wrote
_GATE = (
    "These files are useful only with the original images, whose terms still apply. You confirm that you have these "
    "images under their terms."
)


def write_delta_card(folder: Path) -> None:
    """Write the card of a folder of deltas, for all deltas in it. A card that somebody else wrote stays.

    Raises UserError if a delta cannot be read.
    """
    path = folder / CARD
    if path.exists() and _OURS.encode() not in read_plain(path):
        return
    provenances = {}
    for config, split in deltas_in(folder):
        provenances[config, split] = read_about(folder, config, split)[1]
    write_atomically(path, _card(provenances).encode())


def _card(provenances: Mapping[tuple[str, str], Provenance]) -> str:
    """Return the card of deltas, given their provenances by config and split."""
    files_by_config: dict[str, list[dict[str, str]]] = {}
    licences = set()
    names = []
    sections = []
    for (config, split), provenance in provenances.items():
        name = f"{config}/{split}"
        names.append(name)
        files = {"split": split, "path": f"{DELTAS}/{config}/{split}-*.parquet"}
        files_by_config.setdefault(config, []).append(files)
        licences.add(str(provenance.recipe.source.get("license") or "unknown"))
        lines = [f"* {key}: {escape(value)}" for key, value in made_with(provenance).items()]
        sections.append(f"\n## {escape(name)}\n\n" + "\n".join(lines))
    data = {
        "license": sorted(licences) if len(licences) > 1 else min(licences),
        "task_categories": ["image-classification"],
        "tags": ["fmrgen", "robustness", "perturbed"],
        "extra_gated_prompt": _GATE,
        "extra_gated_fields": {"I have the original images under their terms": "checkbox"},
        "configs": [
            {"config_name": f"{config}.delta", "data_files": files} for config, files in files_by_config.items()
        ],
    }
    settings = "\n".join(sections)
    return (
        f"---\n{to_yaml(data)}---\n\n"
        f"# {escape(', '.join(names))}, without images\n\n"
        "Images perturbed against a classifier, for as long as a foundation model still sees the right class, with all "
        "that was measured, but without the images: each is masked with a stream that only its original yields. With "
        "your own copy of the originals you can restore the exact files:\n\n"
        f"```bash\n{_OURS} THIS_REPO --source RECIPE --output out\n```\n"
        f"{settings}\n"
    )


def push_delta(folder: Path, repo: str, *, public: bool = False) -> str:
    """Upload a folder of deltas to a dataset repo in one commit, and return the address of the commit.

    Files that the repo has already are not sent again. Deltas of other splits in the repo stay.

    `repo` is `OWNER/NAME`, or a name in the caller's account; created if it does not exist, private unless `public`.
    Raises UserError if the Hub refuses, the repo is public without `public`, or it has splits with their images.
    """
    names = deltas_in(folder)
    about_paths = [about_path(Path(), *name).as_posix() for name in names]
    shards: set[str] = set()
    for config, split in names:
        about, _ = read_about(folder, config, split)
        shards.update(about.files)
    if not names:
        raise UserError(f"{folder}: contains no split without images; push one with --without-images")
    hub = HubClient(repo, "dataset")
    hub.create(public)

    def operations_on(repo_paths: set[str]) -> Sequence[Operation]:
        if any(path.startswith("provenance/") for path in repo_paths):
            raise UserError(f"{hub.name}: holds splits with images; push those without images to another repo")
        texts = {CARD: _card_of_all(hub, folder, repo_paths)}
        for path in about_paths:
            texts[path] = (folder / path).read_bytes()
        check_no_token(texts)
        operations: list[Operation] = []
        for path, content in texts.items():
            operations.append(CommitOperationAdd(path, content))
        for path in sorted(shards):
            operations.append(CommitOperationAdd(path, (folder / path).absolute()))
        for path in sorted(repo_paths - shards):
            match = re.fullmatch(DELTA_SHARD, path)
            if match is not None and match.groups() in names:  # a shard of an earlier delta of the same split
                operations.append(CommitOperationDelete(path))
        return operations

    return hub.commit("Splits without images", operations_on)


def _card_of_all(hub: HubClient, folder: Path, repo_paths: set[str]) -> bytes:
    """Return the card of a repo with the files `repo_paths`, once it has the folder's deltas, too."""
    small_files = [path for path in repo_paths if path == CARD or re.fullmatch(DELTA_FILE, path)]
    contents = hub.read(small_files, "main")
    for name in deltas_in(folder):
        path = about_path(Path(), *name).as_posix()
        contents[path] = (folder / path).read_bytes()
    with tempfile.TemporaryDirectory() as temporary:
        merged = Path(temporary)
        for path, content in contents.items():
            (merged / path).parent.mkdir(parents=True, exist_ok=True)
            (merged / path).write_bytes(content)
        write_delta_card(merged)
        return (merged / CARD).read_bytes()
