"""What a user's labelled images are like, and their deal into parts that do different work."""

import hashlib
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from fmrgen.errors import UserError
from fmrgen.files import write_atomically
from fmrgen.image_files import open_rgb
from fmrgen.labels import Labels
from fmrgen.progress.bars import report
from fmrgen.sources.base import RawExample, Source, large_enough

Part = Literal["panel", "choose", "tested"]

MOST_PHOTOS = 20_000  # that are looked at
_SHARES: dict[Part, float] = {"tested": 0.3, "choose": 0.15}  # of the photos; the rest teach the panel
_MOST: dict[Part, int] = {"tested": 1000, "choose": 300}
_HASH_SIDE = 8  # of a difference hash, 64 bits
_ALIKE_BITS = 3  # by which the hashes of two photos of one scene differ, at most
_LARGEST_GROUP = 0.2  # of a class: what is more alike is a class of like images, and no scene
_MOST_NAMED = 20  # unreadable files
_MOST_OF_TRACK = 200
_TRACK = re.compile(r"(.*?\D)[_\-. ]?(?:frame|img|image)?[_\-. ]?\d+")
_MASKS = {"mask", "masks", "annotation", "annotations", "segmentation", "labels"}
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


class Photo(NamedTuple):
    """A labelled image of the user."""

    place: int  # in the source
    label: int
    size: tuple[int, int]  # width and height in pixels
    mode: str  # of its file, as Pillow has it: RGB, L, RGBA, P, …
    digest: str  # of its pixels, reduced: equal for copies of one image
    looks: int  # a difference hash of 64 bits: nearly equal for photos of one scene
    file: str | None  # its path; None if it is no file of its own
    track: str | None  # what its file name has in common with others of a series; None if it says nothing

    @property
    def name(self) -> str:
        """Its path, or its place in the source."""
        return self.file or f"image {self.place}"


@dataclass(frozen=True)
class Look:
    """What a look at labelled images found."""

    labels: Labels
    photos: list[Photo]  # that can be read
    unreadable: list[tuple[str, str]]  # file, or place, and reason of those that can't
    left: int  # how many were not looked at
    groups: np.ndarray  # of each photo [N]: copies, photos of one scene and frames of one series share a number
    copies: int  # how many photos are copies of others
    contradictions: list[tuple[Photo, Photo]]  # pairs of copies that are in two classes

    @property
    def side(self) -> int:
        """The median of the shorter sides, in pixels."""
        return int(np.median([min(photo.size) for photo in self.photos]))

    def lines(self) -> list[str]:
        """Return what a user should know of the images, in a few lines."""
        sides = sorted(min(photo.size) for photo in self.photos)
        modes = Counter(photo.mode for photo in self.photos).most_common()
        of_labels = Counter(photo.label for photo in self.photos)
        counts = [of_labels[label] for label in range(len(self.labels))]
        lines = [
            f"{len(self.photos):,} images of {len(self.labels)} classes ({min(counts):,} to {max(counts):,} each), "
            f"shorter side {sides[0]} to {sides[-1]} px, {', '.join(f'{mode} {count:,}' for mode, count in modes)}"
        ]
        if self.left:
            lines.append(f"{self.left:,} more were not looked at")
        if self.unreadable:
            listed = ", ".join(f"{name} ({reason})" for name, reason in self.unreadable[:_MOST_NAMED])
            more = ", …" if len(self.unreadable) > _MOST_NAMED else ""
            lines.append(f"{len(self.unreadable):,} can't be read and are left out: {listed}{more}")
        if self.copies:
            lines.append(f"{self.copies:,} are copies of others; copies stay in one part")
        if self.contradictions:
            first, second = self.contradictions[0]
            lines.append(
                f"{len(self.contradictions):,} pairs of copies are in two classes, first {first.name} and "
                f"{second.name}: one label of each is wrong"
            )
        series = len(self.photos) - len(set(self.groups.tolist())) - self.copies
        if series > 0:
            lines.append(
                f"{series:,} more look like others of their class, or are named as frames of a series; each scene and "
                "series stays in one part"
            )
        return lines


def look(source: Source) -> Look:
    """Look at the images of a source, at most 20,000, evenly from all of it.

    Raises UserError if there are too few, or of one class alone.
    """
    places = np.linspace(0, len(source) - 1, min(len(source), MOST_PHOTOS)).round().astype(int)
    photos: list[Photo] = []
    unreadable: list[tuple[str, str]] = []
    for done, (place, example) in enumerate(_examples(source, places), start=1):
        try:
            photos.append(_photo(place, example))
        except UserError as error:
            name = example.image if isinstance(example.image, str) else f"image {place}"
            unreadable.append((name, str(error)))
        report("images", done, len(places))
    check_photos(source.labels, photos, unreadable)
    copies, contradictions = _copies(photos)
    return Look(
        labels=source.labels,
        photos=photos,
        unreadable=unreadable,
        left=len(source) - len(places),
        groups=_groups(photos),
        copies=copies,
        contradictions=contradictions,
    )


def _examples(source: Source, places: np.ndarray) -> Iterator[tuple[int, RawExample]]:
    """Yield the examples at some places, read in runs."""
    ends = np.flatnonzero(np.diff(places) != 1) + 1
    for run in np.split(places, ends):
        if len(run):
            start = int(run[0])
            for number, example in enumerate(source.read(start, int(run[-1]) + 1)):
                yield start + number, example


def check_photos(labels: Labels, photos: Sequence[Photo], unreadable: Sequence[tuple[str, str]]) -> None:
    """Raise UserError if images are too few to choose a recipe by."""
    if not photos:
        first = "; the first, {}: {}".format(*unreadable[0]) if unreadable else ""
        raise UserError(f"init: none of the {len(unreadable)} images can be read{first}")
    of_classes = Counter(photo.label for photo in photos)
    if len(of_classes) < 2:
        raise UserError(
            f"init: all images are of one class, {labels.names[photos[0].label]}; put those of each class into a "
            "folder of its name"
        )
    if len(photos) < 30:
        raise UserError(f"init: {len(photos)} images can be read; at least 30 are needed")


def check_folder(folder: Path) -> None:
    """Raise UserError for a folder that holds something else than a folder of images for each class."""
    names = {entry.name.lower() for entry in folder.iterdir() if entry.is_dir()}
    if not names and not (folder / "metadata.csv").is_file():
        raise UserError(f"{folder}: has no folder for each class, and no metadata.csv with file_name and label")
    if names and names <= _SPLITS:
        first = sorted(entry for entry in folder.iterdir() if entry.is_dir())[0]
        raise UserError(f"{folder}: holds {', '.join(sorted(names))}; name one of them, as {first}")
    if names & _MASKS and len(names) <= 3:
        raise UserError(
            f"{folder}: looks like a dataset for segmentation ({', '.join(sorted(names))}); fmrgen tests classifiers, "
            "whose images lie in a folder for each class"
        )


def _photo(place: int, example: RawExample) -> Photo:
    """Return what one image is like. Raises UserError if it can't be read."""
    image = large_enough(open_rgb(example.image))
    grey = image.convert("L")
    reduced = np.asarray(grey.resize((_HASH_SIDE + 1, _HASH_SIDE), Image.Resampling.BOX), dtype=np.int16)
    bits = np.packbits(reduced[:, 1:] > reduced[:, :-1])
    small = image.resize((32, 32), Image.Resampling.BOX)
    return Photo(
        place=place,
        label=example.label,
        size=image.size,
        mode=_mode(example.image),
        digest=hashlib.sha256(np.asarray(small).tobytes()).hexdigest()[:16],
        looks=int.from_bytes(bits.tobytes()),
        file=example.image if isinstance(example.image, str) else None,
        track=_track(example.image),
    )


def _mode(image: "bytes | str | Image.Image") -> str:
    if isinstance(image, Image.Image):
        return image.mode
    with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
        return opened.mode


def _track(image: "bytes | str | Image.Image") -> str | None:
    """Return the part of a file's name before its last number, with its folder; None without a file or a number."""
    if not isinstance(image, str):
        return None
    path = Path(image)
    match = _TRACK.fullmatch(path.stem)
    return None if match is None else str(path.parent / match[1])


def _copies(photos: Sequence[Photo]) -> tuple[int, list[tuple[Photo, Photo]]]:
    """Return how many photos are copies of others, and pairs of copies that are in two classes."""
    first: dict[str, Photo] = {}
    copies = 0
    contradictions = []
    for photo in photos:
        other = first.setdefault(photo.digest, photo)
        if other is photo:
            continue
        copies += 1
        if other.label != photo.label:
            contradictions.append((other, photo))
    return copies, contradictions


def _groups(photos: Sequence[Photo]) -> np.ndarray:
    """Return the group of each photo [N]: what is a copy, of one scene, or of one series.

    A scene or series of much of a class is no group: the photos or the file names of the whole class are alike then.
    """
    groups = _alike([photo.digest for photo in photos])
    tracks = [photo.track for photo in photos]
    series = [members for members in _alike(tracks) if len(members) <= _MOST_OF_TRACK]
    of_class = Counter(photo.label for photo in photos)
    for members in [*series, *_scenes(photos)]:
        if len(members) <= _LARGEST_GROUP * of_class[photos[members[0]].label]:
            groups.append(members)
    links = []
    for members in groups:
        links += [(members[0], other) for other in members[1:]]
    return _components(len(photos), links)


def _components(count: int, links: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return for each of `count` things the number of the set that links join it to, [N]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, columns = np.array(links, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(count, count))
    numbers: np.ndarray = connected_components(graph, directed=False)[1]
    return numbers


def _alike(keys: Sequence[object]) -> list[list[int]]:
    """Return the places that have the same key, where several have it; None is no key."""
    of_keys: dict[object, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        if key is not None:
            of_keys[key].append(place)
    return [places for places in of_keys.values() if len(places) > 1]


def _scenes(photos: Sequence[Photo]) -> list[list[int]]:
    """Return photos of one class that look nearly the same: their hashes are linked by differences of few bits."""
    scenes = []
    for members in _alike([photo.label for photo in photos]):
        hashes = np.array([photos[number].looks for number in members], dtype=np.uint64)
        distinct, of_place = np.unique(hashes, return_inverse=True)  # thousands of blank images have one hash
        links = []
        for place, value in enumerate(distinct[:-1]):
            differing = np.bitwise_count(distinct[place + 1 :] ^ value)
            links += [(place, int(other)) for other in np.flatnonzero(differing <= _ALIKE_BITS) + place + 1]
        for scene in _alike(_components(len(distinct), links)[of_place].tolist()):
            scenes.append([members[place] for place in scene])
    return scenes


def deal(looked: Look) -> dict[Part, list[Photo]]:
    """Deal photos into the images that are tested, those by which choices are made, and those that teach a panel.

    No group is in two parts, each class is dealt by itself, and the order is that of a digest. Of photos that are in
    two classes none is dealt.
    """
    doubted = {photo.digest for photo, _ in looked.contradictions}
    of_groups: dict[int, list[Photo]] = defaultdict(list)
    for photo, group in zip(looked.photos, looked.groups.tolist(), strict=True):
        if photo.digest not in doubted:
            of_groups[group].append(photo)
    total = sum(map(len, of_groups.values()))
    of_classes: dict[int, list[list[Photo]]] = defaultdict(list)
    for members in of_groups.values():
        of_classes[members[0].label].append(members)
    dealt: dict[Part, list[Photo]] = {"panel": [], "choose": [], "tested": []}
    for groups in of_classes.values():
        groups.sort(key=lambda members: _digest(members[0].place))
        share = sum(map(len, groups)) / total
        quotas: dict[Part, float] = {}
        for part, part_share in _SHARES.items():
            quotas[part] = max(1.0, share * min(_MOST[part], part_share * total))
        for members in groups:
            open_parts = [part for part, quota in quotas.items() if quota >= len(members)]
            if open_parts:
                quotas[open_parts[0]] -= len(members)
            dealt[[*open_parts, "panel"][0]] += members
    for photos in dealt.values():
        photos.sort(key=lambda photo: _digest(photo.place))
    return dealt


def _digest(place: int) -> str:
    return hashlib.sha256(str(place).encode()).hexdigest()


def write_images(root: Path, photos: Sequence[Photo], source: Source) -> None:
    """Write images that are no files below `root` into it, with a `metadata.csv` of their numbers and classes."""
    root.mkdir(parents=True, exist_ok=True)
    labels = {photo.place: photo.label for photo in photos}
    lines = ["file_name,label"]
    for place, example in _examples(source, np.array(sorted(labels))):
        lines.append(f"{place:06}.png,{labels[place]}")
        open_rgb(example.image).save(root / f"{place:06}.png")
    write_atomically(root / "metadata.csv", "\n".join([*lines, ""]).encode())
