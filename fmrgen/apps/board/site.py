"""The pages of a leaderboard: one of all, one per model, one per split; tables that need no script, and the data."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from fmrgen.apps.board.collect import BoardEntry, Family
from fmrgen.apps.board.submitted import SubmittedResult
from fmrgen.errors import UserError
from fmrgen.files import check_inside, write_atomically
from fmrgen.metrics.intervals import Estimate, format_estimate
from fmrgen.publish.entries import Entry
from fmrgen.report.pages import png_address, render_page
from fmrgen.report.plot import Plot, draw_points, drawing, write_key

SCHEMA = "fmrgen-leaderboard/1"

_OWN = ("fmr", "standard_accuracy", "perturbed_accuracy", "validation_rate", "oracle_accuracy", "mean_iterations")
_MOST_ACROSS = 50  # models in a table of transfer
_NAMES = ("FMR", "SA", "PA", "VR", "oracle", "iterations")


def write_site(
    families: Sequence[Family],
    folder: Path,
    title: str,
    submitted: Mapping[str, Sequence[SubmittedResult]] | None = None,
) -> list[Path]:
    """Writes the site into a folder.

    Args:
        families: as `collect` returns them.
        folder: made if need be; files of these names in it are replaced.
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
    written = {"index.html": _index(families, pages, title, submitted or {}).encode()}
    for split in pages.splits:
        written[pages.of_split(split)] = _split_page(split, pages).encode()
    for model, sections in _sections_of_models(families, pages).items():
        page = render_page("leaderboard_model.html", title=model, root="../", sections=sections, columns=_NAMES[:3])
        written[pages.of_model(model)] = page.encode()
    rows = _rows(families)
    data = {"schema": SCHEMA, "fmrgen": version("fmrgen"), "rows": rows}
    written["leaderboard.json"] = (json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    written["leaderboard.csv"] = _csv(rows).encode()
    paths = {folder / name: content for name, content in written.items()}
    for path in paths:
        check_inside(path, folder)
    for path, content in paths.items():
        write_atomically(path, content, durable=False)
    return [*paths]


class _Pages:
    """The addresses of pages: names come from anyone, so files are called by what is plain of them, and a number."""

    def __init__(self, families: Sequence[Family]) -> None:
        self.splits = [split for family in families for split in family.splits]
        models = [split.classifier for split in self.splits]
        models += [entry.classifier for split in self.splits for entry in split.entries]
        self.models = sorted(set(models))
        self._of_split = _file_names([split.name for split in self.splits])
        self._of_model = _file_names(self.models)

    def of_split(self, split: BoardEntry) -> str:
        return f"splits/{self._of_split[split.name]}.html"

    def of_model(self, model: str) -> str:
        return f"models/{self._of_model[model]}.html"


def _file_names(names: Sequence[str]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    taken: set[str] = set()
    numbers: Counter[str] = Counter()
    for name in names:
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80] or "x"
        numbers[plain] += 1
        while (file := f"{plain}-{numbers[plain]}" if numbers[plain] > 1 else plain) in taken:
            numbers[plain] += 1
        taken.add(file)
        chosen[name] = file
    return chosen


def _index(
    families: Sequence[Family], pages: _Pages, title: str, submitted: Mapping[str, Sequence[SubmittedResult]]
) -> str:
    sections = []
    for number, family in enumerate(families, 1):
        places = family.places
        rows = [
            {
                "id": f"at-{Path(pages.of_split(split)).stem}",
                "model": split.classifier,
                "model_page": pages.of_model(split.classifier),
                "split": split.name,
                "split_page": pages.of_split(split),
                "rank": _rank(places[split.name]),
                "figures": _cells([getattr(split.summary, name) for name in _OWN], split.unranked),
                "judges": ", ".join(judge.judge for judge in split.judges),
                "related": split.related,
            }
            for split in family.ranked()
        ]
        sections.append(
            {
                "id": family.key,
                "name": f"Protocol {number}" if len(families) > 1 else "Each model on the split made for it",
                "facts": family.title,
                "rows": rows,
                "at_chance": ", ".join(split.classifier for split in family.ranked() if split.at_chance),
                "masked": ", ".join(split.classifier for split in family.ranked() if split.masked),
                "rough": ", ".join(split.classifier for split in family.ranked() if split.rough),
                "has_judges": any(row["judges"] for row in rows),
                "made": family.splits[0].made_with,
                "plot": png_address(_plot(family).to_bytes()) if len(family.splits) > 1 else None,
                "transfer": _transfer(family, pages),
            }
        )
    counts = {"splits": len(pages.splits), "results": sum(len(split.entries) for split in pages.splits)}
    return render_page(
        "leaderboard.html",
        title=title,
        sections=sections,
        columns=_NAMES,
        counts=counts,
        submitted=submitted,
        models_at=constants.ENDPOINT,
    )


def _transfer(family: Family, pages: _Pages) -> dict[str, Any] | None:
    """FMR of other models on every split, models across: those with the most results."""
    found = {split.name: {entry.classifier: entry for entry in split.entries} for split in family.splits}
    counts = Counter(model for of_split in found.values() for model in of_split)
    if not counts:
        return None
    models = sorted(model for model, _ in counts.most_common(_MOST_ACROSS))
    rows = [
        {
            "split": split.name,
            "page": pages.of_split(split),
            "cells": [
                _of_own(split) if model == split.classifier else _of_entry(found[split.name].get(model))
                for model in models
            ],
        }
        for split in family.ranked()
    ]
    return {
        "models": [(model, pages.of_model(model)) for model in models],
        "rows": rows,
        "left_out": len(counts) - len(models),
    }


def _of_entry(entry: Entry | None) -> dict[str, str]:
    if entry is None:
        return {"value": "", "interval": "", "sort": ""}
    return _cells([entry.figures.get("fmr") or entry.figures.get("perturbed_accuracy")], entry.at_chance)[0]


def _of_own(split: BoardEntry) -> dict[str, str]:
    cell = _cells([split.summary.fmr], split.unranked)[0]
    return {**cell, "value": f"{cell['value']} ◆"}


def _split_page(split: BoardEntry, pages: _Pages) -> str:
    picture = split.picture()
    compared = ("fmr", "standard_accuracy", "perturbed_accuracy")
    return render_page(
        "leaderboard_split.html",
        title=split.name,
        root="../",
        split=split,
        address=None if split.commit is None else f"{constants.ENDPOINT}/datasets/{split.repo}",
        figures=[(name, format_estimate(getattr(split.summary, key))) for name, key in zip(_NAMES, _OWN, strict=True)],
        entries=[
            {
                "model": entry.classifier,
                "page": pages.of_model(entry.classifier),
                "figures": _cells([entry.figures.get(name) for name in compared], entry.at_chance),
            }
            for entry in split.entries
        ],
        at_chance=", ".join(entry.classifier for entry in split.entries if entry.at_chance),
        columns=("FMR", "SA", "PA"),
        picture=None if picture is None else png_address(picture),
        own_page=pages.of_model(split.classifier),
    )


def _sections_of_models(families: Sequence[Family], pages: _Pages) -> dict[str, list[dict[str, Any]]]:
    """What there is of each model in each protocol, the splits made for it first."""
    sections: dict[str, list[dict[str, Any]]] = {model: [] for model in pages.models}
    for family in families:
        rows: dict[str, list[dict[str, Any]]] = {}
        for split in family.splits:
            row = {"split": split.name, "page": pages.of_split(split), "own": True}
            row |= {"rank": _rank(family.places[split.name])}
            row |= {"figures": _cells([getattr(split.summary, name) for name in _OWN[:3]], split.unranked)}
            rows.setdefault(split.classifier, []).append(row)
        for split in family.ranked():
            for entry in split.entries:
                row = {"split": split.name, "page": pages.of_split(split), "own": False, "rank": ""}
                row |= {"figures": _cells([entry.figures.get(name) for name in _OWN[:3]], entry.at_chance)}
                rows.setdefault(entry.classifier, []).append(row)
        for model, found in rows.items():
            sections[model].append({"id": family.key, "facts": family.title, "rows": found})
    return sections


def _plot(family: Family) -> Plot:
    """FMR against SA, each classifier on the split made for it."""
    points = [
        (split.classifier, sa, fmr)
        for split in family.ranked()
        if not split.unranked and (sa := split.summary.standard_accuracy) and (fmr := split.summary.fmr)
    ]
    names = list(dict.fromkeys(name for name, _, _ in points))
    with drawing():
        figure = Plot(figsize=(6.4, 4.2))
        axes = figure.subplots()
        draw_points(axes, points, names)
        axes.set_xlabel("SA, %")
        axes.set_ylabel("FMR on its own split, %")
        write_key(figure, names)
    return figure


def _rows(families: Sequence[Family]) -> list[dict[str, Any]]:
    """Everything on the board, a row for each figure of a model on a split."""
    rows = []
    for family in families:
        places = family.places
        for split in family.ranked():
            shared = {"protocol": family.key, "split": split.name, "commit": split.commit}
            shared |= {"fingerprint": split.provenance.fingerprint}
            best, worst = places[split.name] or (None, None)
            own = {"model": split.classifier, "own": True, "at_chance": split.at_chance, "masked": split.masked}
            own |= {"related": split.related is not None, "rank_best": best, "rank_worst": worst}
            rows.append(shared | own | _figures({name: getattr(split.summary, name) for name in _OWN}))
            for entry in split.entries:
                row = {"model": entry.classifier, "own": False, "at_chance": entry.at_chance, "masked": False}
                row |= {"related": False, "rank_best": None, "rank_worst": None}
                rows.append(shared | row | _figures({name: entry.figures.get(name) for name in _OWN}))
    return rows


def _figures(figures: Mapping[str, Estimate | None]) -> dict[str, float | None]:
    columns: dict[str, float | None] = {}
    for name, figure in figures.items():
        ends = (None, None, None) if figure is None else tuple(asdict(figure).values())
        columns |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
    return columns


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _no_formula(value) for key, value in row.items()} for row in rows)
    return file.getvalue()


def _no_formula(value: Any) -> Any:
    """Text that no spreadsheet takes for a formula; names come from anyone."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _cell(figure: Estimate | None) -> dict[str, str]:
    if figure is None:
        return {"value": "n/a", "interval": "", "sort": ""}
    interval = "" if figure.low is None or figure.high is None else f"{figure.low:.1f} – {figure.high:.1f}"
    return {"value": f"{figure.value:.2f}", "interval": interval, "sort": f"{figure.value:.6f}"}


def _cells(figures: Sequence[Estimate | None], unranked: bool) -> list[dict[str, str]]:
    """Of figures, FMR first: where it says nothing of robustness it is marked, and sorted behind all others."""
    first, *others = map(_cell, figures)
    return [{**first, "value": f"{first['value']} †", "sort": ""} if unranked else first, *others]


def _rank(place: tuple[int, int] | None) -> str:
    if place is None:
        return "n/a"
    return str(place[0]) if place[0] == place[1] else f"{place[0]} – {place[1]}"
