"""A folder with photos and a recipe that is quick on them."""

import io

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


def encoded(image, kind="PNG", **options):
    """The bytes of an image's file, of anything that Pillow or `Image.fromarray` takes."""
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(path, mode="RGB", size=(40, 40), color=1, kind=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, kind, **options)


def lay_out(root):
    """Photos of two classes, and a recipe over them."""
    for name in "ab":
        for number in range(2):
            photo(root / "photos" / name / f"{number}.png")
    (root / "r.yaml").write_text(yaml.safe_dump(RECIPE))


def six_shards(root):
    """The recipe of a quick job over twelve photos, two to a shard; its models are random."""
    for number in range(12):
        photo(root / "photos" / "ab"[number % 2] / f"{number}.png", size=(200, 200), color=(20 * number, 0, 9))
    tree = RECIPE | {"source": {"kind": "imagefolder", "path": str(root / "photos")}}
    tree["output"] = {"config": "c", "split": "s", "shard_size": 2}
    (root / "r.yaml").write_text(yaml.safe_dump(tree))
    return root / "r.yaml"
