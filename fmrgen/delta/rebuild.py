"""Makes deltas of splits whose source may not be passed on, and rebuilds the splits from the originals."""

from pathlib import Path
from typing import get_args

import numpy as np

from fmrgen.delta.card import write_delta_card
from fmrgen.delta.files import DIGEST, deltas_in, pixels_sha256, read_about, read_delta, rebuilt_file, write_delta
from fmrgen.errors import UserError
from fmrgen.files import check_writable
from fmrgen.hub.client import HubClient, check_repo_name
from fmrgen.image_files import Fit, open_rgb, resize
from fmrgen.jobs.lifecycle import claimed_alone, finish
from fmrgen.metrics.summary import Summary
from fmrgen.progress.bars import report
from fmrgen.recipe.build import build_source
from fmrgen.recipe.job import load_source
from fmrgen.sources.base import RawExample, Source, SourceConfig
from fmrgen.split.reference import choose_split, parse_reference
from fmrgen.storage.paths import DELTAS, SplitPaths, splits_in
from fmrgen.storage.provenance import read_provenance


def make_delta(split: str, folder: str | Path) -> None:
    """Write the delta of a finished split: all its columns, with the images masked by their originals.

    `split` is one of a folder, `FOLDER[:CONFIG/SPLIT]`; the delta is laid out as a dataset repo. Raises UserError if
    there is no such finished split, or it keeps no originals.
    """
    reference = parse_reference(split)
    root = Path(reference.repo)
    if not root.is_dir():
        raise UserError(f"{split}: no such folder; make a delta of the --output of a generate command")
    names = sorted((paths.config, paths.split) for paths in splits_in(root))
    paths = SplitPaths(root, *choose_split(split, reference, names))
    provenance = read_provenance(paths)
    if not provenance.is_finished:
        raise UserError(f"{split}: not finished; run the same generate command again")
    check_writable(Path(folder))
    if (Path(folder) / "provenance").exists():
        raise UserError(f"{folder}: holds splits with their images; choose another --output")
    write_delta(paths, provenance, Path(folder))
    write_delta_card(Path(folder))


def rebuild(delta: str | Path, source: str | SourceConfig, output: str | Path) -> dict[str, Summary]:
    """Rebuild the splits of a delta from your own originals, and return the summary of each, by `CONFIG/SPLIT`.

    `delta` is a folder, or a dataset repo on the Hub, `OWNER/NAME[@REVISION]`. `source`, that of the originals, is a
    recipe, whose other sections do not matter, or a source section. Raises UserError if there is no delta, `output` has
    another split of that name, an original is not the one that the split was generated from (the error says what
    differs), or a rebuilt shard is not the published file.
    """
    check_writable(Path(output))
    if (Path(output) / DELTAS).exists():
        raise UserError(f"{output}: holds splits without their images; choose another --output")
    root = Path(delta)
    if not root.is_dir():
        repo, _, revision = str(delta).partition("@")
        check_repo_name(repo)
        root = HubClient(repo, "dataset", revision or "main").download([f"{DELTAS}/**"])
    names = deltas_in(root)
    if not names:
        raise UserError(f"{delta}: contains no split without images; push one with --without-images")
    source_config = load_source(source) if isinstance(source, str) else source
    summaries = {}
    for config, split in names:
        summaries[f"{config}/{split}"] = _rebuild(root, config, split, source_config, Path(output))
    return summaries


def _rebuild(root: Path, config: str, split: str, source: SourceConfig, output: Path) -> Summary:
    about, provenance = read_about(root, config, split)
    originals = _Originals(build_source(source), provenance.image_size)
    with claimed_alone(output, config, split, provenance) as (target, claimed, claims):
        if claimed.is_finished and dict(claimed.files) == dict(provenance.files):
            return finish(target, claims)
        if claimed.is_finished:
            where = f"{output}:{config}/{split}"
            raise UserError(f"{where}: is there already, and its files are not the delta's; choose another --output")
        done = 0
        for shard in range(target.shards):
            name = f"{DELTAS}/{target.name_of(shard)}"
            table = read_delta(root, name, about.files[name], provenance.row_schema.features)
            digests = zip(table["id"].to_pylist(), table[DIGEST].to_pylist(), strict=True)
            pixels = {example_id: originals.pixels(example_id, digest) for example_id, digest in digests}
            content = rebuilt_file(table, pixels, provenance, target.name_of(shard))
            target.store.create(target.shard_path(shard), content)
            done += len(table)
            report("rebuild", done, provenance.rows)
        return finish(target, claims)


class _Originals:
    """The user's originals, by id, each checked against the digest of the right one."""

    def __init__(self, source: Source, size: int) -> None:
        self._source = source
        self._size = size
        self._examples = source.read(0, len(source))
        self._waiting: dict[int, RawExample] = {}  # read, but not asked for yet

    def pixels(self, example_id: int, digest: str) -> np.ndarray:
        """Return an original at the generator's size, uint8 [H, W, 3]. Raises UserError if it is another image."""
        while example_id not in self._waiting:
            example = next(self._examples, None)
            if example is None:
                raise UserError(f"source: id {example_id} is not in it; it is another source, or another order")
            self._waiting[example.id] = example
        stored = self._waiting.pop(example_id).image
        try:
            image = open_rgb(stored)
        except UserError as error:
            path = f" ({stored})" if isinstance(stored, str) else ""
            raise UserError(f"source: image of id {example_id}{path} is unreadable ({error}); repair it") from None
        pixels = resize(image, self._size, self._source.fit)
        if pixels_sha256(pixels) == digest:
            return pixels
        for fit in get_args(Fit):
            if pixels_sha256(resize(image, self._size, fit)) == digest:
                raise UserError(
                    f"source: id {example_id} is the right image with fit={fit}, and yours has fit={self._source.fit}; "
                    f"set source.fit={fit}"
                )
        raise UserError(
            f"source: id {example_id} is not the image that the split was generated from ({image.width}×{image.height} "
            "pixels here); it is another source, was resized before, or this version of Pillow resizes differently"
        )
