"""The pages of a leaderboard: an index, one per model, one per split; tables that need no script, and the data."""

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from fmrgen.apps.board.collect import BoardEntry, Family
from fmrgen.apps.board.submitted import SubmittedResult
from fmrgen.errors import UserError
from fmrgen.files import check_inside, json_text, write_atomically
from fmrgen.image_files import data_address
from fmrgen.metrics.intervals import Estimate, format_estimate
from fmrgen.publish.entries import Entry
from fmrgen.report.index import enter_page
from fmrgen.report.page_cards import PageCard
from fmrgen.report.pages import render_page
from fmrgen.report.plot import Plot, draw_points, drawing, write_key

SCHEMA = "fmrgen-leaderboard/1"

# Figures of a model on the split made for it, and the first of them on any split; and their titles.
_OWN = ("fmr", "standard_accuracy", "perturbed_accuracy", "validation_rate", "oracle_accuracy", "mean_iterations")
_COMPARED = _OWN[:3]
_OWN_TITLES = ("FMR", "SA", "PA", "VR", "oracle", "iterations")
_COMPARED_TITLES = _OWN_TITLES[:3]
_MOST_ACROSS = 50  # models in a table of transfer
_MAX_NAME_LETTERS = 80  # of a file
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # of a cell that a spreadsheet computes


def write_site(
    families: Sequence[Family],
    folder: Path,
    title: str,
    submitted: Mapping[str, Sequence[SubmittedResult]] | None = None,
) -> list[Path]:
    """Write the site into a folder.

    Args:
        families: as `collect` returns them.
        folder: made if needed; files of the same names in it are replaced.
        title: of the first page.
        submitted: the Hub's own board of each repo.

    Returns:
        The files, `index.html` first.

    Raises:
        UserError: the folder is a dataset's, or a link in it leads out of it.
    """
    if (folder / "provenance").exists():
        raise UserError(f"{folder}: holds splits; choose another --output for the site")
    pages = _Pages(families)
    contents = {"index.html": _index(families, pages, title, submitted or {}).encode()}
    for split in pages.splits:
        contents[pages.of_split(split)] = _split_page(split, pages).encode()
    for model, sections in _sections_of_models(families, pages).items():
        page = render_page(
            "leaderboard_model.html", title=model, root="../", sections=sections, columns=_COMPARED_TITLES
        )
        contents[pages.of_model(model)] = page.encode()
    rows = _rows(families)
    data = {"schema": SCHEMA, "fmrgen": version("fmrgen"), "rows": rows}
    contents["leaderboard.json"] = json_text(data, strict=True).encode()
    contents["leaderboard.csv"] = _csv(rows).encode()
    paths = [folder / name for name in contents]
    for path in paths:
        check_inside(path, folder)
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomically(path, content, durable=False)
    enter_page(paths[0])
    return paths


class _Pages:
    """The addresses of pages. Names come from anyone, so files are named by their plain letters, and a number."""

    def __init__(self, families: Sequence[Family]) -> None:
        self.splits: list[BoardEntry] = []
        for family in families:
            self.splits += family.splits
        models = set()
        for split in self.splits:
            models.add(split.classifier)
            models.update(entry.classifier for entry in split.entries)
        self.models = sorted(models)
        self._split_files = _file_names([split.name for split in self.splits])
        self._model_files = _file_names(self.models)

    def of_split(self, split: BoardEntry) -> str:
        """Return the address of the page of a split."""
        return f"splits/{self._split_files[split.name]}.html"

    def of_model(self, model: str) -> str:
        """Return the address of the page of a model."""
        return f"models/{self._model_files[model]}.html"


def _file_names(names: Sequence[str]) -> dict[str, str]:
    """Return a different file name, without a suffix, for each name."""
    files: dict[str, str] = {}
    used: set[str] = set()
    numbers: Counter[str] = Counter()
    for name in names:
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_MAX_NAME_LETTERS] or "x"
        file = plain
        numbers[plain] += 1
        if numbers[plain] > 1:
            file = f"{plain}-{numbers[plain]}"
        while file in used:
            numbers[plain] += 1
            file = f"{plain}-{numbers[plain]}"
        used.add(file)
        files[name] = file
    return files


def _index(
    families: Sequence[Family], pages: _Pages, title: str, submitted: Mapping[str, Sequence[SubmittedResult]]
) -> str:
    """Return the first page: a section for each protocol."""
    sections = []
    for number, family in enumerate(families, 1):
        name = f"Protocol {number}" if len(families) > 1 else "Each model on the split made for it"
        sections.append(_family_section(family, pages, name))
    results = sum(len(split.entries) for split in pages.splits)
    card = PageCard(kind="leaderboard", title=title, line=f"{len(pages.splits)} splits, {len(pages.models)} models.")
    return render_page(
        "leaderboard.html",
        title=title,
        card=card.to_json(),
        sections=sections,
        columns=_OWN_TITLES,
        counts={"splits": len(pages.splits), "results": results},
        submitted=submitted,
        models_at=constants.ENDPOINT,
    )


def _family_section(family: Family, pages: _Pages, name: str) -> dict[str, Any]:
    """Return the section of a protocol for the template of the first page."""
    splits = family.ranked()
    rows = []
    for split in splits:
        row = {
            "id": f"at-{Path(pages.of_split(split)).stem}",
            "model": split.classifier,
            "model_page": pages.of_model(split.classifier),
            "split": split.name,
            "split_page": pages.of_split(split),
            "rank": _rank(family.places[split.name]),
            "figures": _cells(_own_figures(split), _OWN, split.unranked),
            "judges": ", ".join(judge.judge for judge in split.judges),
            "related": split.related,
        }
        rows.append(row)
    return {
        "id": family.key,
        "name": name,
        "facts": family.title,
        "rows": rows,
        "at_chance": ", ".join(split.classifier for split in splits if split.at_chance),
        "masked": ", ".join(split.classifier for split in splits if split.masked),
        "rough": ", ".join(split.classifier for split in splits if split.rough),
        "tightness": _tightness(splits),
        "has_judges": any(row["judges"] for row in rows),
        "made": family.splits[0].made_with,
        "plot": data_address(_plot(family).to_bytes()) if len(family.splits) > 1 else None,
        "transfer": _transfer(family, pages),
    }


def _tightness(splits: Sequence[BoardEntry]) -> str:
    """Return a sentence that says for which models FMR has converged; it is an upper bound for the others."""
    if all(split.summary.has_converged is None for split in splits):
        return "FMR is an upper bound: these attacks do not say whether more would lower it."
    converged = [split.classifier for split in splits if split.summary.has_converged]
    others = [split.classifier for split in splits if not split.summary.has_converged]
    if not others:
        return "FMR has converged: another attack would lower it by less than one point."
    if not converged:
        return "FMR has not converged, and is an upper bound: more attacks would lower it."
    return f"FMR has converged for {', '.join(converged)}; it is an upper bound for {', '.join(others)}."


def _own_figures(split: BoardEntry) -> dict[str, Estimate | None]:
    """Return the figures of a split's own classifier by their names."""
    return {name: getattr(split.summary, name) for name in _OWN}


def _transfer(family: Family, pages: _Pages) -> dict[str, Any] | None:
    """Return the table of FMR of other models on every split; models across, those with the most results."""
    entries: dict[str, dict[str, Entry]] = {}
    counts: Counter[str] = Counter()
    for split in family.splits:
        entries[split.name] = {entry.classifier: entry for entry in split.entries}
        counts.update(list(entries[split.name]))
    if not counts:
        return None
    models = sorted(model for model, _ in counts.most_common(_MOST_ACROSS))
    rows = []
    for split in family.ranked():
        cells = []
        for model in models:
            if model == split.classifier:
                cells.append(_own_cell(split))
            else:
                cells.append(_entry_cell(entries[split.name].get(model)))
        rows.append({"split": split.name, "page": pages.of_split(split), "cells": cells})
    return {
        "models": [(model, pages.of_model(model)) for model in models],
        "rows": rows,
        "left_out": len(counts) - len(models),
    }


def _entry_cell(entry: Entry | None) -> dict[str, str]:
    """Return the cell of another model's result; an empty one if there is none."""
    if entry is None:
        return {"value": "", "interval": "", "sort": ""}
    return _fmr_cell(entry.figures.get("fmr") or entry.figures.get("perturbed_accuracy"), entry.at_chance)


def _own_cell(split: BoardEntry) -> dict[str, str]:
    """Return the cell of the model that a split was made for, which has a mark."""
    cell = _fmr_cell(split.summary.fmr, split.unranked)
    return {**cell, "value": f"{cell['value']} ◆"}


def _split_page(split: BoardEntry, pages: _Pages) -> str:
    """Return the page of a split."""
    figures = []
    for title, figure in zip(_OWN_TITLES, _own_figures(split).values(), strict=True):
        figures.append((title, format_estimate(figure)))
    entries = []
    for entry in split.entries:
        cells = _cells(entry.figures, _COMPARED, entry.at_chance)
        entries.append({"model": entry.classifier, "page": pages.of_model(entry.classifier), "figures": cells})
    picture = split.picture()
    return render_page(
        "leaderboard_split.html",
        title=split.name,
        root="../",
        split=split,
        address=None if split.commit is None else f"{constants.ENDPOINT}/datasets/{split.repo}",
        figures=figures,
        entries=entries,
        at_chance=", ".join(entry.classifier for entry in split.entries if entry.at_chance),
        columns=_COMPARED_TITLES,
        picture=None if picture is None else data_address(picture),
        own_page=pages.of_model(split.classifier),
    )


def _sections_of_models(families: Sequence[Family], pages: _Pages) -> dict[str, list[dict[str, Any]]]:
    """Return the results of each model in each protocol, the splits made for it first."""
    sections: dict[str, list[dict[str, Any]]] = {model: [] for model in pages.models}
    for family in families:
        rows: dict[str, list[dict[str, Any]]] = {}
        for split in family.splits:
            row = {
                "split": split.name,
                "page": pages.of_split(split),
                "own": True,
                "rank": _rank(family.places[split.name]),
                "figures": _cells(_own_figures(split), _COMPARED, split.unranked),
            }
            rows.setdefault(split.classifier, []).append(row)
        for split in family.ranked():
            for entry in split.entries:
                row = {
                    "split": split.name,
                    "page": pages.of_split(split),
                    "own": False,
                    "rank": "",
                    "figures": _cells(entry.figures, _COMPARED, entry.at_chance),
                }
                rows.setdefault(entry.classifier, []).append(row)
        for model, model_rows in rows.items():
            sections[model].append({"id": family.key, "facts": family.title, "rows": model_rows})
    return sections


def _plot(family: Family) -> Plot:
    """Return a plot of FMR against SA, each classifier on the split made for it."""
    points, names = [], []
    for split in family.ranked():
        standard_accuracy, fmr = split.summary.standard_accuracy, split.summary.fmr
        if not split.unranked and standard_accuracy is not None and fmr is not None:
            points.append((split.classifier, standard_accuracy, fmr))
            if split.classifier not in names:
                names.append(split.classifier)
    with drawing():
        figure = Plot(figsize=(6.4, 4.2))
        axes = figure.subplots()
        draw_points(axes, points, names)
        axes.set_xlabel("SA, %")
        axes.set_ylabel("FMR on its own split, %")
        write_key(figure, names)
    return figure


def _rows(families: Sequence[Family]) -> list[dict[str, Any]]:
    """Return everything on the board, a row for each model on a split."""
    rows = []
    for family in families:
        for split in family.ranked():
            shared = {
                "protocol": family.key,
                "split": split.name,
                "commit": split.commit,
                "fingerprint": split.provenance.fingerprint,
            }
            best, worst = family.places[split.name] or (None, None)
            own = {
                "model": split.classifier,
                "own": True,
                "at_chance": split.at_chance,
                "masked": split.masked,
                "related": split.related is not None,
                "converged": split.summary.has_converged,
                "rank_best": best,
                "rank_worst": worst,
            }
            rows.append(shared | own | _figure_columns(_own_figures(split)))
            for entry in split.entries:
                row = {
                    "model": entry.classifier,
                    "own": False,
                    "at_chance": entry.at_chance,
                    "masked": False,
                    "related": False,
                    "converged": None,
                    "rank_best": None,
                    "rank_worst": None,
                }
                rows.append(shared | row | _figure_columns(entry.figures))
    return rows


def _figure_columns(figures: Mapping[str, Estimate | None]) -> dict[str, float | None]:
    """Return the columns of all figures, with the ends of their intervals; None if there is none."""
    columns: dict[str, float | None] = {}
    for name in _OWN:
        figure = figures.get(name)
        if figure is None:
            columns |= {name: None, f"{name}_low": None, f"{name}_high": None}
        else:
            columns |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
    return columns


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _no_formula(value) for key, value in row.items()})
    return file.getvalue()


def _no_formula(value: Any) -> Any:
    """Return a value that no spreadsheet takes for a formula; names come from anyone."""
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value


def _cell(figure: Estimate | None) -> dict[str, str]:
    """Return a figure in words, its interval, and what a table sorts it by."""
    if figure is None:
        return {"value": "n/a", "interval": "", "sort": ""}
    interval = "" if figure.low is None or figure.high is None else f"{figure.low:.1f} – {figure.high:.1f}"
    return {"value": f"{figure.value:.2f}", "interval": interval, "sort": f"{figure.value:.6f}"}


def _fmr_cell(fmr: Estimate | None, unranked: bool) -> dict[str, str]:
    """Return the cell of FMR; if it is no measure of robustness, it has a mark and is sorted behind all others."""
    cell = _cell(fmr)
    if unranked:
        return {**cell, "value": f"{cell['value']} †", "sort": ""}
    return cell


def _cells(figures: Mapping[str, Estimate | None], names: Sequence[str], unranked: bool) -> list[dict[str, str]]:
    """Return the cells of the figures of these names, the first of which is FMR."""
    first, *others = names
    return [_fmr_cell(figures.get(first), unranked), *(_cell(figures.get(name)) for name in others)]


def _rank(place: tuple[int, int] | None) -> str:
    """Return a rank, or a span of ranks, in words."""
    if place is None:
        return "n/a"
    best, worst = place
    return str(best) if best == worst else f"{best} – {worst}"
