"""Deltas on the Hub: a card that says what they are, and a push of a folder of them."""

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, hf_hub_download

from fmrgen.delta.files import about_path, deltas_in, read_about
from fmrgen.errors import UserError
from fmrgen.files import read_plain, to_yaml, write_atomically
from fmrgen.hub.client import HubClient, Operation, check_no_token, check_publication, client_errors
from fmrgen.hub.timeouts import no_bars
from fmrgen.report.markdown import escape
from fmrgen.storage.made_with import made_with
from fmrgen.storage.paths import CARD, DELTA_FILE, DELTA_SHARD, DELTAS
from fmrgen.storage.provenance import Provenance

_OURS = "fmrgen rebuild"  # in every card of ours
_GATE = (
    "These files are useful only with the original images, whose terms still apply. You confirm that you have these "
    "images under their terms."
)


def write_delta_card(folder: Path) -> None:
    """Writes the card of a folder of deltas anew, for all that are in it; a card that somebody else wrote stays.

    Raises UserError where a delta in it can't be read.
    """
    path = folder / CARD
    if path.exists() and _OURS.encode() not in read_plain(path):
        return
    write_atomically(path, _card({name: read_about(folder, *name)[1] for name in deltas_in(folder)}).encode())


def _card(deltas: Mapping[tuple[str, str], Provenance]) -> str:
    splits: dict[str, list[str]] = {}
    for config, split in deltas:
        splits.setdefault(config, []).append(split)
    licences = sorted({str(provenance.recipe.source.get("license") or "unknown") for provenance in deltas.values()})
    data = {
        "license": licences if len(licences) > 1 else licences[0],
        "task_categories": ["image-classification"],
        "tags": ["fmrgen", "robustness", "perturbed"],
        "extra_gated_prompt": _GATE,
        "extra_gated_fields": {"I have the original images under their terms": "checkbox"},
        "configs": [
            {
                "config_name": f"{config}.delta",
                "data_files": [{"split": name, "path": f"{DELTAS}/{config}/{name}-*.parquet"} for name in names],
            }
            for config, names in splits.items()
        ],
    }
    made = "\n".join(
        f"\n## {escape('/'.join(name))}\n\n"
        + "\n".join(f"* {what}: {escape(how)}" for what, how in made_with(provenance).items())
        for name, provenance in deltas.items()
    )
    return (
        f"---\n{to_yaml(data)}---\n\n"
        f"# {escape(', '.join(map('/'.join, deltas)))}, without images\n\n"
        "Images perturbed against a classifier, for as long as a foundation model still sees the right class, with all "
        "that was measured, but without the images: each is masked with a stream that only its original yields. With "
        "your own copy of the originals you can restore the exact files:\n\n"
        f"```bash\n{_OURS} THIS_REPO --source RECIPE --output out\n```\n"
        f"{made}\n"
    )


def push_delta(
    folder: Path, repo: str, *, public: bool = False, on_wait: Callable[[str], None] = lambda line: None
) -> str:
    """Puts a folder of deltas into a dataset repo, in one commit; what is there already is not sent again, and deltas
    of other splits that are there stay.

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
    own = {name: read_about(folder, *name)[0] for name in deltas_in(folder)}
    if not own:
        raise UserError(f"{folder}: contains no delta; make one with fmrgen delta")
    hub = HubClient(repo, "dataset", "main", on_wait)
    hub.log_in()
    check_publication(hub.name, hub.is_private(), public)
    make = partial(hub.api.create_repo, hub.name, repo_type="dataset", private=not public, exist_ok=True)
    hub.ask(make)

    def operations_on(there: set[str]) -> list[Operation]:
        if any(path.startswith("provenance/") for path in there):
            raise UserError(f"{hub.name}: holds splits with images; push those without images to another repo")
        small = {CARD: _card_of_all(hub.name, folder, there)}
        small |= {path: (folder / path).read_bytes() for path in (about_path(Path(), *name).as_posix() for name in own)}
        check_no_token(small)
        shards = sorted(path for about in own.values() for path in about.files)
        found = {path: match.groups() for path in there - {*shards} if (match := re.fullmatch(DELTA_SHARD, path))}
        return [
            *(CommitOperationAdd(path, content) for path, content in small.items()),
            *(CommitOperationAdd(path, (folder / path).absolute()) for path in shards),
            *(CommitOperationDelete(path) for path, name in sorted(found.items()) if name in own),
        ]

    return hub.commit("Splits without images", operations_on)


def _card_of_all(repo: str, folder: Path, there: set[str]) -> bytes:
    """The card of a repo with these files once the folder's deltas are in it too."""
    with tempfile.TemporaryDirectory() as place:
        together = Path(place)
        with no_bars(), client_errors():
            sources: dict[str, Path | str] = {
                path: hf_hub_download(repo, path, repo_type="dataset")
                for path in there
                if path == CARD or re.fullmatch(DELTA_FILE, path)
            }
        own = [about_path(Path(), *name).as_posix() for name in deltas_in(folder)]
        for path, source in (sources | {path: folder / path for path in own}).items():
            (together / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, together / path)
        write_delta_card(together)
        return (together / CARD).read_bytes()
