"""Deltas on the Hub: their card, and the push of a folder of them."""

import re
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from fmrgen.delta.files import about_path, deltas_in, read_about
from fmrgen.errors import UserError
from fmrgen.files import read_plain, to_yaml, write_atomically
from fmrgen.hub.client import Operation, check_publication
from fmrgen.publish.repo import Change, HubRepo, RepoState
from fmrgen.results.markdown_text import escape
from fmrgen.storage.made_with import made_with
from fmrgen.storage.paths import CARD, DELTA_SHARD, DELTAS
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


def push_delta(folder: Path, repo: str, *, public: bool = False) -> str | None:
    """Upload a folder of deltas to a dataset repo in one commit, and return the address of the commit.

    Files that the repo has already are not sent again. Deltas of other splits in the repo stay.

    `repo` is `OWNER/NAME`, or a name in the caller's account; created if it does not exist, private unless `public`.
    Raises UserError if the Hub refuses, the repo is public without `public`, or it has splits with their images.
    """
    names = deltas_in(folder)
    if not names:
        raise UserError(f"{folder}: contains no split without images; push one with --without-images")
    shards: set[str] = set()
    for name in names:
        shards.update(read_about(folder, *name)[0].files)
    hub = HubRepo(repo)
    hub.log_in()
    check_publication(hub.name, hub.is_private(), public)
    hub.make(private=not public)

    def change(small: Path, state: RepoState) -> Change:
        if any(path.startswith("provenance/") for path in state.files):
            raise UserError(f"{hub.name}: holds splits with images; push those without images to another repo")
        for name in names:
            write_atomically(about_path(small, *name), about_path(folder, *name).read_bytes(), durable=False)
        operations: list[Operation] = [CommitOperationAdd(path, (folder / path).absolute()) for path in sorted(shards)]
        for path in sorted(state.files.keys() - shards):
            match = re.fullmatch(DELTA_SHARD, path)
            if match is not None and match.groups() in names:  # a shard of an earlier delta of the same split
                operations.append(CommitOperationDelete(path))
        return "Splits without images", operations

    return hub.update(change, write_delta_card)[1]
