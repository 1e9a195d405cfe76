"""A dozen traffic signs that are drawn, where any image of a sign does: in the layouts that GTSRB has."""

import csv

from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from photos import encoded
from PIL import Image, ImageDraw

from fmrgen.sources.gtsrb import SIGNS

LABELS = (0, 1, 2, 5, 13, 14, 0, 1, 2, 5, 13, 14)
WIDTHS = tuple(range(25, 25 + 3 * len(LABELS), 3))


def sign(label, side):
    """A round sign with a red rim for limits, a triangle that stands on its tip to yield, an octagon to stop."""
    image = Image.new("RGB", (side, side), (90, 120, 160))
    drawing = ImageDraw.Draw(image)
    edge, middle = side // 10, side / 2
    if label == 13:
        drawing.polygon([(edge, edge), (side - edge, edge), (middle, side - edge)], fill="white", outline="red")
    elif label == 14:
        drawing.regular_polygon((middle, middle, middle - edge), 8, fill=(180, 20, 30))
    else:
        drawing.ellipse((edge, edge, side - edge, side - edge), fill="white", outline="red", width=max(2, side // 10))
        drawing.text((middle, middle), SIGNS[label].rpartition(" ")[2], fill="black", anchor="mm")
    return image


def parquet_of_signs(path, with_columns=True):
    """Write the signs as a parquet file."""
    columns = {"image": [], "label": list(LABELS)}
    features = {"image": ImageFeature(), "label": ClassLabel(names=list(SIGNS))}
    for label, width in zip(LABELS, WIDTHS, strict=True):
        columns["image"].append({"bytes": encoded(sign(label, width)), "path": None})
    if with_columns:
        columns |= {"width": list(WIDTHS), "track": [f"{number:05}" for number in range(len(LABELS))]}
        features |= {"width": Value("int32"), "track": Value("string")}
    Dataset.from_dict(columns, features=Features(features)).to_parquet(path)
    return path


def folder_of_signs(root):
    """Write the signs as torchvision downloads them: training signs by class, test signs in one folder."""
    header = ["Filename", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId"]
    base = root / "gtsrb"
    tables = {}
    for number, (label, width) in enumerate(zip(LABELS, WIDTHS, strict=True)):
        is_test = number >= len(LABELS) // 2
        name = f"{number:05}.ppm" if is_test else f"00000_{number:05}.ppm"
        folder = base / ("GTSRB/Final_Test/Images" if is_test else f"GTSRB/Training/{label:05}")
        folder.mkdir(parents=True, exist_ok=True)
        sign(label, width).save(folder / name)
        table = base / "GT-final_test.csv" if is_test else folder / f"GT-{label:05}.csv"
        tables.setdefault(table, []).append([name, width, width, 0, 0, width, width, label])
    for path, lines in tables.items():
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter=";")
            writer.writerows([header, *lines])
    return root
