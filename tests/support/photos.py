"""A folder with photos and a recipe that is quick on them."""

import yaml
from PIL import Image

RECIPE = {
    "source": {"kind": "imagefolder", "path": "photos"},
    "classifier": {"kind": "lenet", "num_classes": 2},
    "generator": {"kind": "transform", "image_size": 32},
    "oracle": {"kind": "classifier", "classifier": {"kind": "lenet", "num_classes": 2}},
    "perturb": {"budget": 2, "step_size": 0.05, "oracle_rule": "consistent"},
    "output": {"config": "c", "split": "s"},
}


def photo(path, mode="RGB", size=(40, 40), color=1, kind=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, kind, **options)


def lay_out(root):
    """Photos of two classes, and a recipe over them."""
    for name in "ab":
        for number in range(2):
            photo(root / "photos" / name / f"{number}.png")
    (root / "r.yaml").write_text(yaml.safe_dump(RECIPE))
