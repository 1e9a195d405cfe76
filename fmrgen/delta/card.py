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
    provenances = {name: read_about(folder, *name)[1] for name in deltas_in(folder)}
    write_atomically(path, _card(provenances).encode())


def _card(provenances: Mapping[tuple[str, str], Provenance]) -> str:
    """Return the card of deltas, given their provenances by config and split."""
    files_by_config: dict[str, list[dict[str, str]]] = {}
    sections = []
    for (config, split), provenance in provenances.items():
        files = {"split": split, "path": f"{DELTAS}/{config}/{split}-*.parquet"}
        files_by_config.setdefault(config, []).append(files)
        lines = [f"* {key}: {escape(value)}" for key, value in made_with(provenance).items()]
        sections.append(f"\n## {escape(f'{config}/{split}')}\n\n" + "\n".join(lines))
    title = ", ".join("/".join(name) for name in provenances)
    licences = {str(provenance.recipe.source.get("license") or "unknown") for provenance in provenances.values()}
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
        f"# {escape(title)}, without images\n\n"
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
    shards: set[str] = set()
    small_files: dict[str, bytes] = {}
    for name in names:
        shards.update(read_about(folder, *name)[0].files)
        path = about_path(folder, *name)
        small_files[path.relative_to(folder).as_posix()] = path.read_bytes()
    if not names:
        raise UserError(f"{folder}: contains no split without images; push one with --without-images")
    hub = HubClient(repo, "dataset")
    hub.create(public)

    def operations_on(repo_paths: set[str]) -> Sequence[Operation]:
        if any(path.startswith("provenance/") for path in repo_paths):
            raise UserError(f"{hub.name}: holds splits with images; push those without images to another repo")
        texts = {CARD: _card_of_all(hub, small_files, repo_paths), **small_files}
        check_no_token(texts)
        operations: list[Operation] = [CommitOperationAdd(path, content) for path, content in texts.items()]
        operations += [CommitOperationAdd(path, (folder / path).absolute()) for path in sorted(shards)]
        for path in sorted(repo_paths - shards):
            match = re.fullmatch(DELTA_SHARD, path)
            if match is not None and match.groups() in names:  # a shard of an earlier delta of the same split
                operations.append(CommitOperationDelete(path))
        return operations

    return hub.commit("Splits without images", operations_on)


def _card_of_all(hub: HubClient, added: Mapping[str, bytes], repo_paths: set[str]) -> bytes:
    """Return the card of a repo with the files `repo_paths`, once it has the `added` small files, too."""
    contents = hub.read([path for path in repo_paths if path == CARD or re.fullmatch(DELTA_FILE, path)], "main")
    with tempfile.TemporaryDirectory() as temporary:
        merged = Path(temporary)
        for path, content in {**contents, **added}.items():
            write_atomically(merged / path, content, durable=False)
        write_delta_card(merged)
        return (merged / CARD).read_bytes()
