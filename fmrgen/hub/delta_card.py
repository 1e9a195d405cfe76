"""Deltas on the Hub: a card that says what they are, and a push of a folder of them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml
from huggingface_hub import CommitOperationAdd

from fmrgen.errors import UserError
from fmrgen.files import write_atomically
from fmrgen.hub.client import HubClient, check_publication
from fmrgen.report.markdown import escape
from fmrgen.storage.delta import FOLDER
from fmrgen.storage.made_with import made_with
from fmrgen.storage.paths import CARD, SplitPaths
from fmrgen.storage.provenance import Provenance

_GATE = (
    "These files are of use only with the original images, whose terms stay in force. You confirm that you have these "
    "images under their terms."
)


def write_delta_card(folder: Path, paths: SplitPaths, provenance: Provenance) -> None:
    """Writes the card of a folder of deltas anew, for all that are in it; a card that somebody else wrote stays."""
    path = folder / CARD
    if path.exists() and "fmrgen rebuild" not in path.read_text(encoding="utf-8"):
        return
    splits: dict[str, list[str]] = {}
    for about in sorted((folder / FOLDER).glob("*/*.json")):
        splits.setdefault(about.parent.name, []).append(about.stem)
    data = {
        "license": provenance.recipe.source.get("license") or "unknown",
        "task_categories": ["image-classification"],
        "tags": ["fmrgen", "robustness", "perturbed"],
        "extra_gated_prompt": _GATE,
        "extra_gated_fields": {"I have the original images under their terms": "checkbox"},
        "configs": [
            {
                "config_name": f"{config}.delta",
                "data_files": [{"split": name, "path": f"{FOLDER}/{config}/{name}-*.parquet"} for name in names],
            }
            for config, names in splits.items()
        ],
    }
    made = "\n".join(f"* {what}: {escape(how)}" for what, how in made_with(provenance).items())
    text = (
        f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True)}---\n\n"
        f"# {escape(paths.name)}, without images\n\n"
        "Images perturbed against a classifier, for as long as a foundation model still sees the right class, with all "
        "that was measured, but without the images: each is laid over a stream that only its own original makes. With "
        "your own copy of the originals you have the very files:\n\n"
        "```bash\nfmrgen rebuild THIS_REPO --source RECIPE --output out\n```\n\n"
        f"Made of:\n\n{made}\n"
    )
    write_atomically(path, text.encode())


def push_delta(
    folder: Path, repo: str, *, public: bool = False, on_wait: Callable[[str], None] = lambda line: None
) -> str:
    """Puts a folder of deltas into a dataset repo, in one commit; what is there already is not sent again.

    Args:
        folder: of deltas.
        repo: `OWNER/NAME`, or a name of the caller's own; made if need be, private unless `public`.
        public: whether everyone may see it.
        on_wait: called with a line when the Hub makes one wait.

    Returns:
        The address of the commit.

    Raises:
        UserError: the Hub refuses, or the repo is public or has splits with their images.
    """
    hub = HubClient(repo, "dataset", "main", on_wait)
    hub.log_in()
    check_publication(hub.name, hub.is_private(), public)
    make = partial(hub.api.create_repo, hub.name, repo_type="dataset", private=not public, exist_ok=True)
    hub.ask(make)

    def operations_on(there: set[str]) -> list[CommitOperationAdd]:
        if any(path.startswith("provenance/") for path in there):
            raise UserError(f"{hub.name}: holds splits with their images; push what is without originals elsewhere")
        files = [path for path in [*(folder / FOLDER).rglob("*.*"), folder / CARD] if path.is_file()]
        return [CommitOperationAdd(path.relative_to(folder).as_posix(), path.absolute()) for path in files]

    return hub.commit("Splits without images", operations_on)
