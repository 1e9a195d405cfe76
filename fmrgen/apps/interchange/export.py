"""Export a split to the formats of other tools: tars for webdataset, folders of images for everything else."""

import hashlib
import io
import json
import math
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal, NamedTuple

from datasets import ClassLabel, Image
from PIL import Image as PILImage

from fmrgen.errors import UserError, one_line
from fmrgen.files import write_atomically
from fmrgen.image_files import read_image
from fmrgen.split.open import open_split
from fmrgen.split.rows import Split, reading

_READ_BY_CLIP_BENCHMARK = ("webp", "png", "jpg", "jpeg")
_LONGEST_NAME = 200  # bytes; file systems allow 255

Format = Literal["webdataset", "imagefolder", "clip-benchmark"]


class _Exported(NamedTuple):
    """A row in any format: `images` are (file extension, bytes) by column, `fields` the other columns as JSON holds
    them."""

    key: str
    images: dict[str, tuple[str, bytes]]
    fields: dict[str, Any]


def export(
    split: str,
    folder: str | Path,
    form: Format,
    *,
    tar_size: int = 1000,
    on_rows: Callable[[int, int | None], None] = lambda done, total: None,
) -> int:
    """Write a split in another format, with the images' bytes unchanged.

    * `webdataset`: `SPLIT-000000.tar` and so on with `tar_size` rows each, and `SPLIT.json`. Each row is
      `KEY.image.png`, `KEY.original.png`, `KEY.cls` and `KEY.json`.
    * `imagefolder`: `image/CLASS/KEY.png`, `original/CLASS/KEY.png`, `metadata.jsonl` and `split.json`.
    * `clip-benchmark`: the layout of LAION's CLIP_benchmark. Its split `test` has the images of the valid rows
      (accuracy there is PA), its split `original` the originals of all rows.

    `KEY` is the row's id. The JSON file beside the rows holds the names of the classes and the provenance.

    Args:
        split: a reference, `PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]`.
        folder: to write into; must be empty or not exist.
        form: `webdataset`, `imagefolder` or `clip-benchmark`.
        tar_size: rows in a tar.
        on_rows: called with (rows done, rows in all or None).

    Returns:
        The number of rows.

    Raises:
        UserError: the split can't be read or written in this format, or the folder is not empty.
    """
    opened = open_split(split)
    for name in ("image", "label"):
        if name not in opened.features:
            raise UserError(f"{split}: has no column {name}, only {', '.join(opened.features)}")
    for name, feature in opened.features.items():
        # Such a name is a folder's in one format and an ending in the other; a stranger may have chosen it.
        if isinstance(feature, Image) and not re.fullmatch(r"[\w-]+", name):
            raise UserError(f"{split}: the image column {name!r} has a name that no file can have; rename it")
        if not isinstance(feature, Image) and _opens_files(feature):
            raise UserError(f"{split}: the column {name} contains images or sounds in a list; remove it from the split")
    writers: dict[Format, type[_Writer]] = {
        "webdataset": _Tars,
        "imagefolder": _Folders,
        "clip-benchmark": _ClipBenchmark,
    }
    writer = writers[form](Path(folder), opened, tar_size)
    done = 0
    try:
        for row in _rows(opened):
            writer.write(row)
            done += 1
            on_rows(done, opened.rows)
        writer.finish(done)
    finally:
        shutil.rmtree(writer.partial, ignore_errors=True)
    return done


def _opens_files(feature: Any) -> bool:
    """Return whether reading a column of that type opens files, whose paths a stranger may have chosen."""
    if isinstance(feature, dict):
        return any(map(_opens_files, feature.values()))
    if isinstance(feature, list):
        return any(map(_opens_files, feature))
    if hasattr(feature, "decode") and hasattr(feature, "decode_example"):
        return True
    return _opens_files(getattr(feature, "feature", {}))


def _rows(opened: Split) -> Iterator[_Exported]:
    features = opened.features
    image_columns = [name for name, feature in features.items() if isinstance(feature, Image)]
    # The ids of fmrgen's own splits tell rows apart; those of other splits may not.
    has_ids = opened.provenance is not None
    with reading(opened.name):
        for number, row in enumerate(opened.stored_rows(image_columns)):
            fields = {}
            for name, value in row.items():
                if name not in image_columns:
                    fields[name] = _plain(value, features[name], name)
            _check_no_gaps(opened, number, row)
            images = {}
            for name in image_columns:
                if row[name]:
                    images[name] = _image(opened, row[name], f"row {number}: its {name}")
            key = row["id"] if has_ids else number
            yield _Exported(f"{key:08d}", images, fields)


def _check_no_gaps(opened: Split, number: int, row: dict[str, Any]) -> None:
    """Raise UserError if a row has no label or no image, or lacks any value though fmrgen made the split."""
    class_names = getattr(opened.features["label"], "names", None)
    if row["label"] is None or (class_names and not 0 <= row["label"] < len(class_names)):
        raise UserError(f"{opened.name}: row {number} has no label; export a split whose rows have one")
    if opened.provenance is not None:
        for name, value in row.items():
            if value is None:
                raise UserError(f"{opened.name}: row {number} has no {name}; fmrgen verify --files shows what changed")
    if row["image"] is None:
        raise UserError(f"{opened.name}: row {number} has no image; export a split whose rows have one")


def _image(opened: Split, stored: dict[str, Any], title: str) -> tuple[str, bytes]:
    """Return the extension of an image's format, and its bytes as they are stored."""
    try:
        image = opened.image_of(stored)
        if isinstance(image, str):
            image = read_image(image)
        with PILImage.open(io.BytesIO(image)) as picture:
            form = str(picture.format).lower()
    except (UserError, OSError) as error:
        raise UserError(f"{opened.name}: {title} is unreadable ({one_line(error)})") from None
    return {"jpeg": "jpg", "tiff": "tif"}.get(form, form), image


def _plain(value: Any, feature: Any, name: str) -> Any:
    """Return a value as JSON holds it: stop reasons and other classes by name, labels by number, NaN and infinity as
    null."""
    if isinstance(feature, ClassLabel) and name != "label" and value is not None:
        if not 0 <= value < len(feature.names):
            raise UserError(f"a {name} is {value}, not one of {len(feature.names)} classes; fix it and export again")
        return feature.int2str(value)
    return _as_json(value, name)


def _as_json(value: Any, name: str) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_as_json(entry, name) for entry in value]
    if isinstance(value, dict):
        return {str(key): _as_json(entry, name) for key, entry in value.items()}
    if value is not None and not isinstance(value, str | int | bool):
        raise UserError(
            f"the column {name} holds {type(value).__name__}, which JSON can't represent; remove it and export again"
        )
    return value


def _class_names(opened: Split) -> list[str] | None:
    feature = opened.features["label"]
    return list(feature.names) if isinstance(feature, ClassLabel) else None


class _Writer(ABC):
    """Writes rows in one format into a temporary folder, which takes the place of the wanted one when it is whole."""

    def __init__(self, folder: Path, opened: Split, tar_size: int) -> None:
        self.folder, self.opened, self.tar_size = folder.resolve(), opened, tar_size
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise UserError(f"{folder}: is not empty; choose another folder")
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.partial = Path(mkdtemp(".partial", f".{self.folder.name[:100]}.", self.folder.parent))
        except OSError as error:
            raise UserError(f"{folder}: can't be written: {error.strerror}") from None
        self.classes = _class_names(opened)

    def take_its_place(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(self.partial.iterdir()):
                os.replace(path, self.folder / path.name)
        except OSError as error:
            raise UserError(f"{self.folder}: can't be written: {error.strerror}") from None

    @abstractmethod
    def write(self, row: _Exported) -> None: ...

    @abstractmethod
    def finish(self, rows: int) -> None: ...

    def description(self, rows: int) -> dict[str, Any]:
        """Return what a reader of the rows needs besides them: classes, columns and provenance."""
        opened = self.opened
        name = Path(opened.name).name
        if opened.split:
            name = f"{opened.config}/{opened.split}"
        about = {"split": name, "rows": rows, "classes": self.classes, "columns": opened.features.to_dict()}
        return about | {"provenance": None if opened.provenance is None else opened.provenance.tree}


class _Tars(_Writer):
    def __init__(self, folder: Path, opened: Split, tar_size: int) -> None:
        super().__init__(folder, opened, tar_size)
        self.name = opened.split or "split"
        self.images: set[str] | None = None
        self.waiting: list[_Exported] = []
        self.tars: list[dict[str, Any]] = []

    def write(self, row: _Exported) -> None:
        self.images = self.images or set(row.images)
        differing = self.images ^ set(row.images)
        if differing:
            raise UserError(
                f"{self.opened.name}: some rows have no {min(differing)}, and tars whose samples differ can't be "
                "loaded; remove that column from the split, or export an imagefolder"
            )
        self.waiting.append(row)
        if len(self.waiting) == self.tar_size:
            self._write_tar()

    def _write_tar(self) -> None:
        samples = []
        for row in self.waiting:
            sample: dict[str, Any] = {"__key__": row.key, "json": json.dumps(row.fields, ensure_ascii=False).encode()}
            for name, (extension, content) in row.images.items():
                sample[f"{name}.{extension}"] = content
            if isinstance(row.fields["label"], int):
                sample["cls"] = str(row.fields["label"]).encode()
            samples.append(sample)
        path = self.partial / f"{self.name}-{len(self.tars):06d}.tar"
        self.tars.append({"name": path.name, "rows": len(self.waiting), "sha256": _write_tar(path, samples)})
        self.waiting = []

    def finish(self, rows: int) -> None:
        if self.waiting:
            self._write_tar()
        write_atomically(self.partial / f"{self.name}.json", _json({**self.description(rows), "tars": self.tars}))
        self.take_its_place()


class _Folders(_Writer):
    def __init__(self, folder: Path, opened: Split, tar_size: int) -> None:
        super().__init__(folder, opened, tar_size)
        self.metadata: list[bytes] = []
        self.class_folders: dict[Any, str] = {}  # by label
        if self.classes:
            self.class_folders.update(enumerate(_class_folders(self.classes)))

    def write(self, row: _Exported) -> None:
        class_folder = self._class_folder(row.fields["label"])
        names: dict[str, Any] = {}
        for name, (extension, content) in row.images.items():
            path = self.partial / name / class_folder / f"{row.key}.{extension}"
            names[f"{name}_file_name"] = path.relative_to(self.partial).as_posix()
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            except OSError as error:
                raise UserError(f"{path}: can't be written: {error.strerror}") from None
        self.metadata.append(_json({**names, **row.fields}, indent=None))

    def finish(self, rows: int) -> None:
        write_atomically(self.partial / "metadata.jsonl", b"".join(self.metadata))
        write_atomically(self.partial / "split.json", _json(self.description(rows)))
        self.take_its_place()

    def _class_folder(self, label: Any) -> str:
        """Return the folder of a class; if the split has no class names, folders are made as their labels come."""
        if label not in self.class_folders:
            name = f"{label:06d}" if isinstance(label, int) else _as_folder(str(label))
            taken = set(self.class_folders.values())
            while name in taken or not name:
                name = f"{name} {len(taken)}".strip()
            self.class_folders[label] = name
        return self.class_folders[label]


class _ClipBenchmark(_Writer):
    """Writes `test/0.tar`, …, `original/0.tar`, …, each with a `nshards.txt`; classes and prompts in files beside
    them."""

    def __init__(self, folder: Path, opened: Split, tar_size: int) -> None:
        super().__init__(folder, opened, tar_size)
        if self.classes is None:
            raise UserError(f"{opened.name}: its labels have no names, and CLIP_benchmark needs those")
        self.waiting: dict[str, list[dict[str, Any]]] = {"test": [], "original": []}
        self.tars: dict[str, int] = {"test": 0, "original": 0}

    def write(self, row: _Exported) -> None:
        if row.fields.get("valid", True):
            self._add(row, "image", "test")
        self._add(row, "original", "original")

    def _add(self, row: _Exported, column: str, part: str) -> None:
        """Add the image of a column, if the row has it, to a part of the export: `test` or `original`."""
        if column not in row.images:
            return
        extension, content = row.images[column]
        if extension not in _READ_BY_CLIP_BENCHMARK:
            raise UserError(
                f"{self.opened.name}: contains {extension} images, and CLIP_benchmark reads "
                f"{', '.join(_READ_BY_CLIP_BENCHMARK)}"
            )
        label = str(row.fields["label"]).encode()
        self.waiting[part].append({"__key__": row.key, extension: content, "cls": label})
        if len(self.waiting[part]) == self.tar_size:
            self._write_tar(part)

    def _write_tar(self, part: str) -> None:
        path = self.partial / part / f"{self.tars[part]}.tar"
        path.parent.mkdir(exist_ok=True)
        _write_tar(path, self.waiting[part])
        self.tars[part] += 1
        self.waiting[part] = []

    def finish(self, rows: int) -> None:
        for part, waiting in self.waiting.items():
            if waiting:
                self._write_tar(part)
            if self.tars[part]:
                write_atomically(self.partial / part / "nshards.txt", b"%d\n" % self.tars[part])
        lines = {
            "classnames.txt": [" ".join(name.split()) for name in self.classes or []],
            "zeroshot_classification_templates.txt": self._templates(),
            "dataset_type.txt": ["classification"],
        }
        for name, texts in lines.items():
            write_atomically(self.partial / name, "\n".join(texts).encode())
        write_atomically(self.partial / "split.json", _json(self.description(rows)))
        self.take_its_place()

    def _templates(self) -> list[str]:
        """Return the oracle's prompts in the form of CLIP_benchmark, or a default one if the oracle has none."""
        provenance = self.opened.provenance
        prompts = None if provenance is None else provenance.recipe.oracle.tree.get("prompts")
        if not isinstance(prompts, list):
            prompts = []
        templates = []
        for prompt in prompts:
            if "{class}" in prompt:
                doubled = prompt.replace("{", "{{").replace("}", "}}")  # CLIP_benchmark fills them with str.format
                template = doubled.replace("{{class}}", "{c}")
                templates.append(" ".join(template.split()))
        return templates or ["a photo of a {c}."]


def _write_tar(path: Path, samples: list[dict[str, Any]]) -> str:
    """Write a tar and return its sha256; without times and users, the same rows make the same bytes."""
    from webdataset import TarWriter

    buffer = io.BytesIO()
    with TarWriter(buffer, encoder=False, mtime=0, user="", group="") as tar:
        for sample in samples:
            tar.write(sample)
    write_atomically(path, buffer.getbuffer())
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def _class_folders(classes: list[str]) -> list[str]:
    """Return a folder's name for each class, sorted as the labels are: tools number folders in the order of their
    names."""
    plain = [_as_folder(name) for name in classes]
    if plain == sorted(set(plain)) and all(plain):
        return plain
    width = len(str(len(classes) - 1))
    return [f"{label:0{width}d} {name}".strip() for label, name in enumerate(plain)]


def _as_folder(name: str) -> str:
    plain = re.sub(r"[^\w ,.()'+&-]", "_", name).encode()[:_LONGEST_NAME].decode(errors="ignore")
    return plain.strip(". ")


def _json(tree: Any, indent: int | None = 2) -> bytes:
    return json.dumps(tree, indent=indent, ensure_ascii=False).encode() + b"\n"
