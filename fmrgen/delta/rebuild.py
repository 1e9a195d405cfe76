"""Splits without their images, for sources that may not be passed on, and the way back to them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fmrgen.delta.card import write_delta_card
from fmrgen.delta.files import DIGEST, deltas_in, pixels_sha256, read_about, read_delta, rebuilt_file, write_delta
from fmrgen.errors import UserError
from fmrgen.files import check_writable, write_atomically
from fmrgen.hub.fetch import fetched
from fmrgen.image_files import Fit, open_rgb, resize
from fmrgen.jobs.lifecycle import claimed_alone, finish
from fmrgen.metrics.summary import Summary
from fmrgen.recipe.build import build_source
from fmrgen.recipe.job import load_source
from fmrgen.sources.base import RawExample, Source, SourceConfig
from fmrgen.split.open import choose_split
from fmrgen.split.reference import parse_reference
from fmrgen.storage.paths import DELTAS, SplitPaths, splits_in
from fmrgen.storage.provenance import check_not_newer, read_provenance

_FITS: tuple[Fit, ...] = ("crop", "squash", "pad")


def make_delta(
    split: str, folder: str | Path, *, on_rows: Callable[[int, int | None], None] = lambda done, of: None
) -> None:
    """Writes what a finished split is relative to its originals: everything but the images, and these as noise.

    Args:
        split: of a folder, `FOLDER[:CONFIG/SPLIT]`.
        folder: to write into, laid out as a dataset repo.
        on_rows: called with (rows done, rows in all).

    Raises:
        UserError: there is no such finished split, or it keeps no originals.
    """
    reference = parse_reference(split)
    root = Path(reference.repo)
    if not root.is_dir():
        raise UserError(f"{split}: no such folder; make a delta of the --output of a generate command")
    there = sorted((paths.config, paths.split) for paths in splits_in(root))
    paths = SplitPaths(root, *choose_split(split, reference, there))
    provenance = read_provenance(paths)
    if not provenance.is_finished:
        raise UserError(f"{split}: not finished; run the same generate command again")
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        on_rows(done, provenance.rows)

    check_writable(Path(folder))
    if (Path(folder) / "provenance").exists():
        raise UserError(f"{folder}: holds splits with their images; choose another --output")
    write_delta(paths, provenance, Path(folder), count)
    write_delta_card(Path(folder))


def rebuild(
    delta: str | Path,
    source: str | SourceConfig,
    output: str | Path,
    *,
    on_rows: Callable[[int, int | None], None] = lambda done, of: None,
    on_note: Callable[[str], None] = lambda line: None,
) -> dict[str, Summary]:
    """Makes the splits of a delta whole again, from your own originals.

    Args:
        delta: a folder, or a dataset repo on the Hub, `OWNER/NAME[@REVISION]`.
        source: of the originals: a recipe whose source is meant, or a section.
        output: the dataset folder for the splits.
        on_rows: called with (rows done, rows in all).
        on_note: called with a line for each damaged file that is set aside.

    Returns:
        The figures of each split, by `CONFIG/SPLIT`.

    Raises:
        UserError: there is no delta, another split of its name is in `output`, an original is not the one that the
            split was made from, with what differs, or a rebuilt shard is not the file that was published.
    """
    check_writable(Path(output))
    if (Path(output) / DELTAS).exists():
        raise UserError(f"{output}: holds splits without their images; choose another --output")
    root = _folder_of(str(delta))
    found = deltas_in(root)
    if not found:
        raise UserError(f"{delta}: contains no delta; make one with fmrgen delta")
    config = load_source(source) if isinstance(source, str) else source
    return {"/".join(name): _rebuild(root, *name, config, Path(output), on_rows, on_note) for name in found}


def _rebuild(
    root: Path,
    config: str,
    split: str,
    source: SourceConfig,
    output: Path,
    on_rows: Callable[[int, int | None], None],
    on_note: Callable[[str], None],
) -> Summary:
    about, provenance = read_about(root, config, split)
    check_not_newer(f"{root}: {config}/{split}", provenance)
    originals = _Originals(build_source(source), provenance.image_size)
    with claimed_alone(output, config, split, provenance, provenance.runs, on_note) as (target, claimed):
        if claimed.is_finished and dict(claimed.files) == dict(provenance.files):
            return finish(target)
        if claimed.is_finished:
            where = f"{output}:{config}/{split}"
            raise UserError(f"{where}: is there already, and its files are not the delta's; choose another --output")
        done = 0
        for shard in range(target.shards):
            name = f"{DELTAS}/{target.name_of(shard)}"
            table = read_delta(root, name, about.files[name], provenance.row_schema.features)
            ids, digests = table["id"].to_pylist(), table[DIGEST].to_pylist()
            pixels = {i: originals.pixels(i, digest) for i, digest in zip(ids, digests, strict=True)}
            content = rebuilt_file(table, pixels, provenance, target.name_of(shard))
            write_atomically(target.shard_path(shard), content)
            done += len(ids)
            on_rows(done, provenance.rows)
        return finish(target)


class _Originals:
    """Your own originals, by id, each proved to be the very one."""

    def __init__(self, source: Source, size: int) -> None:
        self._source, self._size = source, size
        self._examples = source.read(0, len(source))
        self._waiting: dict[int, RawExample] = {}

    def pixels(self, example_id: int, digest: str) -> np.ndarray:
        """At the generator's size, uint8 [H, W, 3]. Raises UserError where it is another image."""
        while example_id not in self._waiting:
            example = next(self._examples, None)
            if example is None:
                raise UserError(f"source: id {example_id} is not in it; it is another source, or another order")
            self._waiting[example.id] = example
        stored = self._waiting.pop(example_id).image
        try:
            image = open_rgb(stored)
        except UserError as error:
            where = f" ({stored})" if isinstance(stored, str) else ""
            raise UserError(f"source: image of id {example_id}{where} is unreadable ({error}); repair it") from None
        pixels = resize(image, self._size, self._source.fit)
        if pixels_sha256(pixels) == digest:
            return pixels
        for fit in _FITS:
            if pixels_sha256(resize(image, self._size, fit)) == digest:
                raise UserError(
                    f"source: id {example_id} is the right image with fit={fit}, and yours has fit={self._source.fit}; "
                    f"set source.fit={fit}"
                )
        raise UserError(
            f"source: id {example_id} is not the image that the split was made from ({image.width}×{image.height} "
            "pixels here); it is another source, was resized before, or this version of Pillow resizes differently"
        )


def _folder_of(delta: str) -> Path:
    if Path(delta).is_dir():
        return Path(delta)
    repo, _, revision = delta.partition("@")
    return fetched(repo, revision or "main", [f"{DELTAS}/**"])[0]
