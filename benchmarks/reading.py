"""Blind readings: what do accepted images show, those that fool the classifier apart?

    python -m benchmarks.reading sheets out:gtsrb/cnn --unjudged control:gtsrb/cnn --chart gtsrb-train.parquet
    python -m benchmarks.reading gradients reading/key.json --train gtsrb-train.parquet -o gradients.json
    python -m benchmarks.reading score reading/key.json gradients.json reader.json

`sheets` mixes, in random order and with nothing but a number beside each, images that fool the split's classifier,
accepted images that do not, originals, and images that the oracle rejected, from a split that was made without it
(`perturb.oracle_rule=none perturb.min_probability=0`). `--chart` draws an example of each class with its name.

A reader writes a JSON file of the number of each image and the name of the class that it sees. `gradients` is a reader
of another kind, a support vector machine on histograms of gradients, to which attacks on networks hardly carry over.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

import fmrgen
from fmrgen.apps.pilot.gradients import GradientReader
from fmrgen.image_files import open_rgb
from fmrgen.metrics.intervals import format_estimate, proportion

KINDS = ("fooling", "accepted", "original", "rejected")
_SIDE = 96  # pixels of an image on a sheet
_ACROSS, _ON_SHEET = 8, 40  # images


def write_sheets(split: str, unjudged: str | None, chart: Path | None, count: int, seed: int, output: Path) -> None:
    """Writes sheets of at most `count` images of each kind, and `key.json`, which the readers must not see."""
    entries: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    opened = fmrgen.open_split(split)
    least = opened.provenance.recipe.perturb.min_probability if opened.provenance else 0
    for row in opened.stored_rows(opened.image_columns):
        entries["original"].append(_entry(opened, row, "original"))
        if row["valid"]:
            kind = "accepted" if row["prediction"] == row["label"] else "fooling"
            entries[kind].append(_entry(opened, row, "image"))
    if unjudged is not None:
        without = fmrgen.open_split(unjudged)
        for row in without.stored_rows(["image"]):
            if row["oracle_label"] != row["label"] or row["oracle_probability"] < least:
                entries["rejected"].append(_entry(without, row, "image"))
    generator = np.random.default_rng(seed)
    shown = []
    for kind in KINDS:
        for place in generator.permutation(len(entries[kind]))[:count]:
            shown.append({"kind": kind, **entries[kind][place]})
    shown = [shown[place] for place in generator.permutation(len(shown))]
    output.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(shown), _ON_SHEET):
        pictures = [entry["picture"] for entry in shown[start : start + _ON_SHEET]]
        titles = [str(start + place) for place in range(len(pictures))]
        _sheet(pictures, titles).save(output / f"sheet-{start // _ON_SHEET}.png")
    (output / "images").mkdir(exist_ok=True)
    names = list(opened.labels.names) if opened.labels else []
    key = []
    for number, entry in enumerate(shown):
        entry.pop("picture").save(output / "images" / f"{number}.png")
        key.append({"number": number, **entry})
    (output / "key.json").write_text(json.dumps({"split": split, "seed": seed, "classes": names, "images": key}))
    if chart is not None:
        pictures = _examples(chart, len(names))
        _sheet(pictures, names).save(output / "chart.png")
    counts = ", ".join(f"{sum(entry['kind'] == kind for entry in shown)} {kind}" for kind in KINDS)
    print(f"{output}: {len(shown)} images: {counts}")


def _entry(opened: fmrgen.Split, row: dict[str, Any], column: str) -> dict[str, Any]:
    picture = opened.decode(row[column], f"id {row['id']}: its {column}")
    names = ("id", "label", "prediction", "iterations", "oracle_probability")
    return {**{name: row[name] for name in names}, "picture": picture}


def _sheet(pictures: Sequence[Image.Image], titles: Sequence[str]) -> Image.Image:
    """Returns images in rows, each enlarged, under its title."""
    width, height = _SIDE + 16, _SIDE + 28
    rows = -(-len(pictures) // _ACROSS)
    sheet = Image.new("RGB", (_ACROSS * width, rows * height), "white")
    drawing = ImageDraw.Draw(sheet)
    for place, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        x, y = place % _ACROSS * width + 8, place // _ACROSS * height
        sheet.paste(picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), (x, y + 20))
        drawing.text((x, y + 4), title[:17], fill="black")
    return sheet


def _examples(path: Path, classes: int) -> list[Image.Image]:
    """Returns the brightest of the ten widest photos of each class."""
    table = pq.read_table(path, columns=["image", "label", "width"]).to_pylist()
    examples = []
    for label in range(classes):
        of_class = sorted((row for row in table if row["label"] == label), key=lambda row: -row["width"])[:10]
        photos = [open_rgb(row["image"]["bytes"]) for row in of_class]
        examples.append(max(photos, key=lambda photo: float(np.asarray(photo).mean())))
    return examples


def read_by_gradients(key: Path, train: Path, output: Path) -> None:
    """Writes what a support vector machine on histograms of gradients says of each image on the sheets."""
    about = json.loads(key.read_text())
    table = pq.read_table(train, columns=["image", "label"]).to_pylist()
    reader = GradientReader((open_rgb(row["image"]["bytes"]), row["label"]) for row in table)
    shown = [open_rgb(str(key.parent / "images" / f"{entry['number']}.png")) for entry in about["images"]]
    answers = reader.read(shown)
    output.write_text(json.dumps({str(number): about["classes"][answer] for number, answer in enumerate(answers)}))


def score(key: Path, readings: Sequence[Path]) -> None:
    """Prints how many images of each kind each reader names as they are labelled, with 95 % intervals."""
    about = json.loads(key.read_text())
    classes = about["classes"]
    print(f"{about['split']}, seed {about['seed']}\n| reader | {' | '.join(KINDS)} |\n|---|{'---|' * len(KINDS)}")
    for path in readings:
        reading = json.loads(path.read_text())
        cells = []
        for kind in KINDS:
            right = []
            for entry in about["images"]:
                if entry["kind"] == kind:
                    right.append(reading.get(str(entry["number"])) == classes[entry["label"]])
            cells.append(
                "" if not right else f"{sum(right)} of {len(right)}: {format_estimate(proportion(np.array(right)))}"
            )
        print(f"| {path.stem} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    sheets = commands.add_parser("sheets")
    sheets.add_argument("split")
    sheets.add_argument("--unjudged")
    sheets.add_argument("--chart", type=Path)
    sheets.add_argument("--count", type=int, default=60)
    sheets.add_argument("--seed", type=int, default=0)
    sheets.add_argument("-o", "--output", type=Path, default=Path("reading"))
    gradients = commands.add_parser("gradients")
    gradients.add_argument("key", type=Path)
    gradients.add_argument("--train", type=Path, required=True)
    gradients.add_argument("-o", "--output", type=Path, default=Path("gradients.json"))
    scored = commands.add_parser("score")
    scored.add_argument("key", type=Path)
    scored.add_argument("readings", type=Path, nargs="+")
    options = parser.parse_args()
    if options.command == "sheets":
        write_sheets(options.split, options.unjudged, options.chart, options.count, options.seed, options.output)
    elif options.command == "gradients":
        read_by_gradients(options.key, options.train, options.output)
    else:
        score(options.key, options.readings)


if __name__ == "__main__":
    main()
