"""Where a dataset's card says that its data lies; anyone may have written it."""

from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import DatasetCard

from fmrgen.errors import UserError, one_line
from fmrgen.files import check_inside, open_plain
from fmrgen.hub.timeouts import no_bars
from fmrgen.trust.recipes import is_within


def config_entries(entries: Any, name: str, where: str) -> list[dict[str, Any]]:
    """A card's entries of configs, one by one. Raises UserError where they are none."""
    entries = [entries] if isinstance(entries, dict) else entries
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{where}: its {name} is no list of mappings; fix it by hand")
    return entries


def by_config(entries: Any, name: str, where: str) -> dict[str, dict[str, Any]]:
    """A card's entries by the config that they are of; one without a name is of the default config."""
    return {str(entry.get("config_name", "default")): entry for entry in config_entries(entries, name, where)}


def names_of_data(data_files: Any) -> list[str]:
    """All patterns in the `data_files` of a config: one, a list of them, or of mappings with a path."""
    if isinstance(data_files, dict):
        return names_of_data(data_files.get("path"))
    if isinstance(data_files, list):
        return [name for entry in data_files for name in names_of_data(entry)]
    return [data_files] if isinstance(data_files, str) else []


def places_named(text: str, is_card: bool, where: str) -> list[str]:
    """Everywhere that the configs of a card (or of the YAML alone, in a file of its own) take data from."""
    try:
        data = DatasetCard(text, ignore_metadata_errors=True).data.to_dict() if is_card else yaml.safe_load(text)
        configs = (data if isinstance(data, dict) else {}).get("configs", [])
    except Exception as error:  # anyone may have written it
        raise UserError(f"{where}: its metadata can't be read: {one_line(error)}") from None
    places = []
    for entry in config_entries(configs, "configs", where):
        places += names_of_data(entry.get("data_files"))
        if "data_dir" in entry:
            places.append(str(entry["data_dir"]))
    return places


def check_card_stays_inside(repo: str, revision: str | None) -> None:
    """Raises UserError where a dataset in a folder, or in a repo on the Hub, takes its data from elsewhere."""
    for name in ("README.md", ".huggingface.yaml"):
        card = _card_of(repo, revision, name)
        for place in [] if card is None else places_named(card, name == "README.md", f"{repo}: {name}"):
            if not is_within(place):
                raise UserError(f"{repo}: its {name} takes data from {place}, which is not in it; it is not read")


def _card_of(repo: str, revision: str | None, name: str) -> str | None:
    """The text of a dataset's card, None where it has none. Raises UserError where it is none, or lies elsewhere."""
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
