"""`index.html`: the pages of a folder, each with its verdict."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from fmrgen.files import write_atomically
from fmrgen.report.page_cards import read_card, read_meta
from fmrgen.report.pages import render_page

INDEX = "index.html"
_LONGEST_NAME = 1000  # letters of a folder
_META = "fmrgen-index"  # the name of the element that lists the folders of an index
_PROJECT = "fmrgen.yaml"  # a folder with this file is a project, whose index has the pages of all folders in it


def write_page(path: Path, page: str) -> None:
    """Write a page, and enter it in `index.html`.

    The index of its folder lists all pages there. If a command runs in a folder with a recipe, `fmrgen.yaml`, as
    `fmrgen init` writes it, the index beside the recipe lists the pages of all commands. An `index.html` that fmrgen
    did not write stays as it is.

    Raises:
        UserError: a file can't be written.
    """
    write_atomically(path, page.encode())
    enter_page(path)


def enter_page(path: Path) -> None:
    """Enter a page that has been written in the indices.

    Raises:
        UserError: an index can't be written.
    """
    folder, project = path.parent.resolve(), Path.cwd()
    is_below_project = (project / _PROJECT).is_file() and folder.is_relative_to(project)
    if path.name != INDEX:
        up = os.path.relpath(project / INDEX, folder) if is_below_project and folder != project else ""
        _write_index(folder, [], up)
    if is_below_project and folder != project:
        _write_index(project, [folder.relative_to(project).as_posix()], "")


def _write_index(folder: Path, more_folders: Sequence[str], up: str) -> None:
    """Write the index of a folder, of its pages and those of some folders below it.

    Args:
        folder: of the index.
        more_folders: below it, besides those that the index has already.
        up: the address of the project's index; empty if there is none.
    """
    index = folder / INDEX
    folders = [""]
    if index.is_file():
        listed = _listed_folders(index)
        if listed is None:  # not ours
            return
        folders = list(dict.fromkeys([*folders, *listed]))
    folders = list(dict.fromkeys([*folders, *more_folders]))
    pages = []
    for name in folders:
        for path in sorted((folder / name).glob("*.html")):
            card = read_card(path)
            if card is not None and path != index:
                pages.append({"address": quote(path.relative_to(folder).as_posix()), "card": card})
    title = f"Pages of {folder.name}"
    page = render_page(INDEX, title=title, pages=pages, folders=json.dumps(folders), up=quote(up))
    write_atomically(index, page.encode(), durable=False)


def _listed_folders(index: Path) -> list[str] | None:
    """Return the folders that an index lists; None if fmrgen did not write it."""
    listed = read_meta(index, _META)
    if not isinstance(listed, list):
        return None
    folders = []
    for name in filter(_is_name, listed):
        folder = (index.parent / name).resolve()
        if folder.is_relative_to(index.parent) and folder.is_dir():
            folders.append(folder.relative_to(index.parent).as_posix())
    return ["" if name == "." else name for name in folders]


def _is_name(name: object) -> bool:
    """Return whether it can be the name of a folder."""
    return isinstance(name, str) and "\0" not in name and len(name) <= _LONGEST_NAME
