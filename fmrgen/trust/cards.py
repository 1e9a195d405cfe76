"""The places where a dataset says that its data lies, in its card; anyone may have written it."""

from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import DatasetCard

from fmrgen.errors import UserError, one_line
from fmrgen.files import check_inside, open_plain
from fmrgen.hub.timeouts import no_bars
from fmrgen.trust.recipes import is_within


def config_entries(entries: Any, name: str, where: str) -> list[dict[str, Any]]:
    """Return a card's entries of configs, a mapping or a list of them, as a list.

    Raises UserError, starting with `where`, if they are not mappings; `name` is the key of the entries in the card.
    """
    if isinstance(entries, dict):
        entries = [entries]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{where}: its {name} is not a list of mappings; fix it by hand")
    return entries


def by_config(entries: Any, name: str, where: str) -> dict[str, dict[str, Any]]:
    """Return a card's entries, as `config_entries` takes them, by config; without a name it is the default config."""
    return {str(entry.get("config_name", "default")): entry for entry in config_entries(entries, name, where)}


def names_of_data(data_files: Any) -> list[str]:
    """Return all patterns in the `data_files` of a config: one, a list of them, or of mappings with a path."""
    if isinstance(data_files, str):
        return [data_files]
    if isinstance(data_files, dict):
        return names_of_data(data_files.get("path"))
    names = []
    if isinstance(data_files, list):
        for entry in data_files:
            names += names_of_data(entry)
    return names


def places_named(text: str, is_card: bool, where: str) -> list[str]:
    """Return all places that the configs of a card take data from. Errors start with `where`.

    Unless `is_card`, the text is the YAML alone, in a file of its own.
    """
    try:
        data = DatasetCard(text, ignore_metadata_errors=True).data.to_dict() if is_card else yaml.safe_load(text)
        configs = data.get("configs", []) if isinstance(data, dict) else []
    except Exception as error:  # anyone may have written it
        raise UserError(f"{where}: its metadata can't be read: {one_line(error)}") from None
    places = []
    for entry in config_entries(configs, "configs", where):
        places += names_of_data(entry.get("data_files"))
        if "data_dir" in entry:
            places.append(str(entry["data_dir"]))
    return places


def check_card_stays_inside(repo: str, revision: str | None) -> None:
    """Raise UserError if a dataset in a folder, or in a repo on the Hub, takes its data from elsewhere."""
    for name in ("README.md", ".huggingface.yaml"):
        card = _card_of(repo, revision, name)
        if card is None:
            continue
        for place in places_named(card, name == "README.md", f"{repo}: {name}"):
            if not is_within(place):
                raise UserError(f"{repo}: its {name} takes data from {place}, which is not in it; it is not read")


def _card_of(repo: str, revision: str | None, name: str) -> str | None:
    """Return the text of a dataset's card, None if it has none. Raises UserError if it lies elsewhere."""
    path = Path(repo) / name
    if not Path(repo).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            with no_bars():
                path = Path(hf_hub_download(repo, name, repo_type="dataset", revision=revision))
        except EntryNotFoundError:
            return None
    elif path.exists() or path.is_symlink():
        check_inside(path, Path(repo))
    else:
        return None
    with open_plain(path) as file:
        return file.read().decode(errors="replace")
