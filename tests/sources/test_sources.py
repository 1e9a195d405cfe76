"""Images of every sort, and every way to name a source."""

import io
import re
from collections import Counter

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PILImage

from fmrgen.config import config_class
from fmrgen.errors import UserError
from fmrgen.image_files import open_rgb, resize
from fmrgen.labels import Labels, make_labels
from fmrgen.sources.base import LoadedExample, SkippedExample

RED = (255, 0, 0)


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def rgb(image):
    return np.asarray(open_rgb(image))


def palette():
    image = PILImage.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    return image


@pytest.mark.parametrize(
    ("content", "pixel"),
    [
        (encode(PILImage.new("L", (4, 4), 100)), [100] * 3),
        (encode(PILImage.new("RGB", (4, 4), RED).convert("P")), [255, 0, 0]),
        (encode(PILImage.new("1", (4, 4), 1)), [255] * 3),
        (encode(PILImage.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"), [255, 0, 0]),
        # Transparency lies on white.
        (encode(PILImage.new("RGBA", (4, 4), (255, 0, 0, 0))), [255] * 3),
        (encode(PILImage.new("LA", (4, 4), (0, 128))), [127] * 3),
        (encode(palette(), transparency=1), [255] * 3),
    ],
    ids=["grey", "palette", "bit", "cmyk", "rgba", "grey-alpha", "palette-alpha"],
)
def test_images_of_every_sort(content, pixel):
    assert rgb(content)[0, 0].tolist() == pixel


def test_exif_rotation_is_applied():
    image = PILImage.new("RGB", (20, 10), "black")
    image.paste("white", (0, 0, 10, 10))
    exif = PILImage.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    turned = rgb(encode(image, "JPEG", exif=exif, quality=95))
    assert turned.shape == (20, 10, 3)
    assert turned[:8].mean() > 250
    assert turned[12:].mean() < 5


def test_fit_crops_or_squashes_and_leaves_the_right_size_alone():
    image = PILImage.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 10, 20))
    assert resize(image, 20, "crop").mean() == pytest.approx(0, abs=2)
    assert resize(image, 20, "squash")[:, :4].min() > 200
    padded = resize(image, 20, "pad")
    assert padded[5:15, :4].min() > 200
    assert padded[:4].max() == padded[-4:].max() == 0
    exact = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    assert np.array_equal(resize(PILImage.fromarray(exact), 20, "crop"), exact)


@pytest.mark.parametrize(
    "content", [b"", b"no image", encode(PILImage.new("RGB", (50, 50), RED))[:60]], ids=["empty", "text", "cut"]
)
def test_unreadable_bytes_are_one_line(content):
    with pytest.raises(UserError) as error:
        open_rgb(content)
    assert "\n" not in str(error.value)


# --- datasets -------------------------------------------------------------------------------------------------------

CLASSES = ["ant", "bee", "cat", "dog", "eel", "fox"]


def pictures(count=12):
    return [encode(PILImage.new("RGB", (16, 16), (20 * i, 0, 0))) for i in range(count)]


PICTURES, NAMED = pictures(), ClassLabel(names=CLASSES)


def dataset(pictures=PICTURES, labels=(*range(6), *range(6)), feature=NAMED):
    """Rows with an image and a label."""
    columns = {"image": [{"bytes": picture, "path": None} for picture in pictures], "label": list(labels)}
    return Dataset.from_dict(columns, features=Features({"image": Image(), "label": feature}))


@pytest.fixture
def folder(tmp_path):
    dataset().to_parquet(tmp_path / "d" / "test.parquet")
    return tmp_path / "d"


def photos(root, *places):
    """Write a picture to each place, each lighter than the one before."""
    for place, picture in zip(places, pictures(len(places)), strict=True):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(picture)
    return str(root)


def build(kind, **options):
    return config_class("fmrgen.sources", kind).model_validate({"kind": kind, **options}).build()


def rows(source, start=0, stop=None):
    return [(e.id, int(e.image[0, 0, 0]), e.label) for e in source.load(start, stop or len(source), 16)]


@pytest.mark.parametrize("pattern", ["", "test.parquet", "*.parquet"])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_and_its_files_are_a_source(folder, pattern, streaming):
    source = build("datasets", path=str(folder / pattern), streaming=streaming, limit=12 if streaming else None)
    assert len(source) == 12
    assert source.labels.names == tuple(CLASSES)
    assert rows(source) == [(i, 20 * i, i % 6) for i in range(12)]
    assert rows(source, 7, 9) == [(7, 140, 1), (8, 160, 2)]


@pytest.mark.parametrize("streaming", [False, True])
def test_grouped_classes_keep_the_ids_and_leave_the_rest_out(folder, streaming):
    classes = {"insects": "0-1", "pets": [2, "3"]}
    source = build("datasets", path=str(folder), classes=classes, streaming=streaming, limit=5)
    assert len(source) == 5
    assert source.labels == Labels(("insects", "pets"), ((0, 1), (2, 3)), 6, tuple(CLASSES))
    assert [(i, label) for i, _, label in rows(source)] == [(0, 0), (1, 0), (2, 1), (3, 1), (6, 0)]
    assert [i for i, _, _ in rows(source, 3, 5)] == [3, 6]


def test_a_limit_takes_all_classes_where_it_can(tmp_path):
    path = photos(tmp_path, *[f"{name}/{i}.png" for name in CLASSES for i in range(6)])

    def taken(**options):
        return [(example.id, example.label) for example in build("imagefolder", path=path, **options).read(0, 99)]

    assert taken(limit=12) == [(3 * i, i // 2) for i in range(12)]
    assert taken(limit=31) == [(i, i // 6) for i in range(31)]
    assert taken(per_class=1) == [(6 * i, i) for i in range(6)]
    shuffled = taken(shuffle_seed=3)
    assert sorted(shuffled) == taken()
    assert shuffled == taken(shuffle_seed=3) != taken(shuffle_seed=4)
    drawn = taken(shuffle_seed=3, per_class=2, limit=7)
    assert drawn == taken(shuffle_seed=3, per_class=2)[:7] == [entry for entry in shuffled if entry in drawn]
    assert Counter(label for _, label in taken(shuffle_seed=3, per_class=2)) == dict.fromkeys(range(6), 2)
    with pytest.raises(UserError, match=r"source.per_class: class ant has 6 examples, and 5 other classes fewer too"):
        taken(per_class=7)


@pytest.mark.parametrize("path", ["gone.parquet", "gone/*.parquet", "./gone", "/no/such/folder", "a/b/c"])
def test_what_looks_like_a_file_is_not_asked_of_the_hub(path, monkeypatch):
    monkeypatch.setattr("datasets.load_dataset", None)  # who asks it fails
    with pytest.raises(UserError, match=rf"source.path: {re.escape(path)}: no such file"):
        build("datasets", path=path)


def test_labels_may_be_more_than_the_classes_of_a_folder(folder):
    names = ["yak", *reversed(CLASSES), "zebra"]
    source = build("datasets", path=str(folder), classes=names)
    assert source.labels.names == tuple(names)
    assert [label for _, _, label in rows(source, 0, 6)] == [6, 5, 4, 3, 2, 1]
    with pytest.raises(UserError, match=r"7 names for the source's 6 classes; list one for each, or more that hold"):
        build("datasets", path=str(folder), classes=[*names[:5], "a", "b"])


@pytest.mark.parametrize("classes", [["fox", *CLASSES[:5]], None])
def test_labels_that_are_words_are_looked_up(tmp_path, classes):
    words = dataset(labels=[*CLASSES[::-1], *CLASSES], feature=Value("string")).rename_column("label", "kind")
    words.to_parquet(tmp_path / "words.parquet")
    source = build("datasets", path=str(tmp_path / "words.parquet"), label_column="kind", classes=classes)
    assert source.labels.names == tuple(classes or CLASSES)  # by the alphabet
    assert [source.labels.names[label] for _, _, label in rows(source)] == [*CLASSES[::-1], *CLASSES]


def test_a_folder_of_save_to_disk_with_names_for_plain_integers(tmp_path):
    dataset(feature=Value("int64")).save_to_disk(tmp_path / "saved")
    source = build("datasets", path=str(tmp_path / "saved"), classes=CLASSES)
    assert source.labels.names == tuple(CLASSES)
    assert rows(source) == [(i, 20 * i, i % 6) for i in range(12)]


@pytest.mark.parametrize(
    ("labels", "feature", "classes", "message"),
    [
        (range(12), "int64", None, "source.classes: the source has no class names"),
        ([0, 0, 0, 0, 9], "int64", CLASSES, "source: id 4: label 9 is outside the 6 classes"),
        (["ant", "fox"], "string", [*CLASSES[:5], "wolf"], "id 1: label 'fox' is not one of the 6 classes"),
        ([None], "null", CLASSES, "id 0: has no label; choose a split with labels"),
    ],
)
def test_labels_that_are_no_classes(tmp_path, labels, feature, classes, message):
    dataset(pictures(len(labels)), labels, Value(feature)).to_parquet(tmp_path / "odd.parquet")
    with pytest.raises(UserError, match=message):
        build("datasets", path=str(tmp_path / "odd.parquet"), classes=classes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "tset"}, "source: .*split 'tset', can't be opened"),
        ({"image_column": "img"}, "source.image_column: no column 'img'; choose from image, label"),
        ({"label_column": "y"}, "source.label_column: no column 'y'"),
        ({"classes": {"a": "0-2", "b": 1}}, "class 1 is in both 'a' and 'b'"),
        ({"classes": {"a": "2-0", "b": 1}}, "source.classes.a: '2-0' is not a class index or a range"),
        ({"classes": {"a": [], "b": 1}}, "source.classes.a: no class index"),
        ({"streaming": True, "split": "test"}, "source.limit: the length of .* is not known while streaming"),
        ({"streaming": True, "limit": 5, "per_class": 1}, "source.per_class: needs all labels at once"),
        ({"streaming": True, "limit": 5, "shuffle_seed": 1}, "source.shuffle_seed: needs all labels at once"),
    ],
)
def test_mistakes_name_the_key(folder, options, message):
    with pytest.raises(UserError, match=message) as error:
        build("datasets", **{"path": str(folder), **options})
    assert "\n" not in str(error.value)


def test_a_stream_that_ends_early_says_so(folder):
    source = build("datasets", path=str(folder), streaming=True, limit=20)
    with pytest.raises(UserError, match=r"source.limit: the stream ends after 12 examples"):
        rows(source)


def test_an_unreadable_image_fails_by_its_id_or_is_skipped(tmp_path):
    broken = pictures()
    broken[3] = broken[3][:40]
    dataset(broken).to_parquet(tmp_path / "b" / "test.parquet")
    source = build("datasets", path=str(tmp_path / "b"))
    with pytest.raises(UserError, match=r"image of id 3 is unreadable .* source.on_error=skip"):
        list(source.load(0, 12, 16))
    source.on_error = "skip"
    loaded = list(source.load(0, 12, 16))
    assert [type(entry) for entry in loaded].count(LoadedExample) == 11
    assert isinstance(loaded[3], SkippedExample)
    assert loaded[3].id == 3
    assert loaded[3].reason
    (tmp_path / "c/cat").mkdir(parents=True)
    PILImage.new("RGB", (1, 1)).save(tmp_path / "c/cat/0.png")  # as hosts send for a photo that is gone
    source = build("imagefolder", path=str(tmp_path / "c"))
    with pytest.raises(UserError, match=r"0\.png\) is unreadable \(it has 1×1 pixels; each side needs 4 or more\)"):
        list(source.load(0, 1, 16))


def test_imagefolder_takes_images_at_any_depth(tmp_path):
    places = ["ant/0.png", "bee/1.png", "ant/2.png", "bee/3.png", "ant/deep/4.png", "bee/deep/5.png"]
    path = photos(tmp_path / "[photos]", *places)
    (tmp_path / "[photos]" / "ant" / "notes.txt").write_text("not a picture")
    source = build("imagefolder", path=path)
    assert source.labels.names == ("ant", "bee")
    assert rows(source) == [(0, 0, 0), (1, 40, 0), (2, 80, 0), (3, 20, 1), (4, 60, 1), (5, 100, 1)]
    with pytest.raises(UserError, match=r"source.path: .* is not a folder of class folders"):
        build("imagefolder", path=str(tmp_path / "[photos]" / "ant" / "deep"))


def test_a_folder_with_metadata(tmp_path):
    photos(tmp_path / "all", "0.png", "1.png", "2.png", "3.png")
    metadata = tmp_path / "metadata.csv"
    metadata.write_text("file_name,label,who\nall/2.png,bee,x\nall/0.png,ant,y\nall/3.png,bee,\n")
    source = build("imagefolder", path=str(tmp_path))
    assert source.labels.names == ("ant", "bee")
    assert rows(source) == [(0, 40, 1), (1, 0, 0), (2, 60, 1)]
    named = build("imagefolder", path=str(tmp_path), classes=["bee", "ant"])
    assert [(e.id, e.label) for e in named.read(0, 3)] == [(0, 0), (1, 1), (2, 0)]
    metadata.write_text("file_name,label\nall/2.png,1\nall/0.png,0\n")
    numbered = build("imagefolder", path=str(tmp_path), classes=["ant", "bee"])
    assert rows(numbered) == [(0, 40, 1), (1, 0, 0)]
    for text, message in {
        "file,label\na.png,0\n": "metadata.csv has no column file_name, it has file, label",
        "file_name,class\na.png,0\n": "metadata.csv has no column label, it has file_name, class",
        "file_name,label\na.png,0\nb.png,\n": "metadata.csv: line 3 has no label",
        'file_name,label\n"a.png,0\n': "metadata.csv can't be read",
    }.items():
        metadata.write_text(text)
        with pytest.raises(UserError, match=re.escape(message)):
            build("imagefolder", path=str(tmp_path), classes=["ant", "bee"])


def test_a_stream_is_passed_over_once(folder):
    source = build("datasets", path=str(folder), streaming=True, limit=12)
    opened = []
    examples = source._examples
    source._examples = lambda start: opened.append(start) or examples(start)
    assert [i for start in (2, 4, 8) for i, _, _ in rows(source, start, start + 2)] == [2, 3, 4, 5, 8, 9]
    assert opened == [2]
    assert [i for i, _, _ in rows(source, 0, 2)] == [0, 1]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [1], "label": [0]}, "source.image_column: image holds no images"),
        ({"label": [[0]]}, r"source.label_column: label holds List, no classes"),
    ],
)
def test_columns_of_the_wrong_sort(tmp_path, columns, message):
    features = Features({"image": Image(), **Dataset.from_dict(columns).features})  # its own, if it has images
    table = {"image": [{"bytes": PICTURES[0], "path": None}], **columns}
    Dataset.from_dict(table, features=features).to_parquet(tmp_path / "odd.parquet")
    path = str(tmp_path / "odd.parquet")
    with pytest.raises(UserError, match=message):
        build("datasets", path=path, image_column="image", label_column="label", classes=["a", "b"])


def test_mnist_takes_turns_and_its_splits_share_no_digit():
    test, train = build("mnist"), build("mnist", split="train", limit=50)
    assert (len(test), len(train)) == (1000, 50)
    assert [e.label for e in test.read(0, 12)] == [*range(10), 0, 1]
    digits = {np.asarray(e.image).tobytes() for e in test.read(0, 1000)}
    assert not digits & {np.asarray(e.image).tobytes() for e in train.read(0, 50)}
    odd = build("mnist", classes={"odd": [1, 3, 5], "even": [0, 2, 4]}, limit=7)
    assert [(e.id, e.label) for e in odd.read(0, 7)] == [(0, 1), (1, 0), (2, 1), (3, 0), (4, 1), (5, 0), (10, 1)]


def test_labels_refuse_what_is_no_class():
    labels = make_labels({"a": 3, "b": "5-6"}, None)
    assert (labels.from_source(6), labels.from_source(100)) == (1, None)
    with pytest.raises(UserError, match="label -1 is outside"):
        labels.from_source(-1)


def test_a_file_that_is_gone_is_named_by_its_id(tmp_path):
    path = photos(tmp_path / "photos", "ant/0.png", "bee/1.png", "ant/2.png", "bee/3.png")
    source = build("imagefolder", path=path)
    (tmp_path / "photos" / "ant" / "2.png").unlink()
    with pytest.raises(UserError, match=r"image of id 1 \(.*/ant/2.png\) is unreadable \(No such file or directory\)"):
        rows(source)


@pytest.mark.parametrize("name", ["../secret.png", "/secret.png", "a/../../secret.png"])
def test_a_metadata_file_names_no_image_outside_of_its_folder(tmp_path, name):
    (tmp_path / "secret.png").write_bytes(encode(PILImage.new("RGB", (8, 8), RED)))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/metadata.csv").write_text(f"file_name,label\n{name},cat\n")
    with pytest.raises(UserError, match=r"secret.png is outside of the folder"):
        build("imagefolder", path=str(tmp_path / "photos"))
