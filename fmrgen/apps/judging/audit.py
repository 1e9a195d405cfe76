"""An audit: people name images of a split, on a page of this machine or on one that is sent around."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fmrgen.apps.judging.sample import Sample, draw
from fmrgen.apps.judging.server import AuditServer, audit_page
from fmrgen.apps.judging.verdicts import Audited, Rater, parse_answer
from fmrgen.engine.images import on_byte_grid, to_batch, to_bytes
from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.engine.models import row_seed
from fmrgen.errors import UserError
from fmrgen.files import check_writable, fingerprint, open_plain, parse_json, write_atomically
from fmrgen.image_files import data_address, png_bytes
from fmrgen.publish.card import renew_card
from fmrgen.recipe.build import build_recorded_generator
from fmrgen.results.judges import chance_line
from fmrgen.split.judgements import JudgementsFolder
from fmrgen.split.open import open_own_split
from fmrgen.split.rows import Split, reading
from fmrgen.storage.provenance import Provenance

_COLUMNS = ("id", "label", "accepted_labels", "valid", "iterations", "prediction")
_MAX_ANSWERS_BYTES = 1 << 24


class Audit:
    """A split, its sample and its raters, ready to be served or exported.

    Args:
        split: a reference, `PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]`.
        raters: names, under which their answers are stored.
        count: perturbed images in the sample.
        quick: so many images in all, instead: a quarter of them originals.
        seed: of the sample.
        output: the folder in whose `judgements/CONFIG/SPLIT/` answers are stored, for a split on the Hub; those to a
            split in a folder are stored beside it.
        trust: let the generator in the split's provenance run the code and read the files that it names, for plain
            reconstructions among the controls.

    Raises:
        UserError: the split can't be audited, or the stored answers of a rater do not belong to it.
    """

    def __init__(
        self,
        split: str,
        raters: Sequence[str],
        *,
        count: int = 300,
        quick: int | None = None,
        seed: int = 0,
        output: Path,
        trust: bool = False,
    ) -> None:
        for name in raters:
            JudgementsFolder.check_name(name)
        if len(set(raters)) < len(raters) or not raters:
            raise UserError("--raters: needs each name once, for example --raters ann,ben")
        opened, provenance = open_own_split(split)
        paths = opened.paths if opened.revision is None else opened.paths.at(output)
        check_writable(paths.root)
        with reading(split):
            columns = opened.columns(_COLUMNS)
            generator, self.note = _generator(provenance, trust)
            has_reconstructions = generator is not None and "original" in opened.features
            if quick is None:
                sample = draw(columns, count, seed, reconstructions=has_reconstructions)
            else:
                originals = quick // 4
                sample = draw(columns, quick - originals, seed, reconstructions=False, fewest_originals=originals)
            images = _images(opened, sample, generator, provenance)
        labels = dict(zip(columns["id"].tolist(), columns["label"].tolist(), strict=True))
        self.audited = Audited(paths, provenance, sample, images, labels)
        self.names = list(provenance.labels)
        self.raters = {name: Rater(name, self.audited) for name in raters}
        self._is_split_local = opened.revision is None

    def server(self, host: str, port: int) -> AuditServer:
        """Return the server of the page, listening. Raises UserError if it can't."""
        return AuditServer(self.raters, self.names, host, port)

    def close(self) -> list[Path]:
        """End the audit; return the tables of answers."""
        folder = JudgementsFolder(self.audited.paths)
        if self._is_split_local and folder.judges():
            renew_card(self.audited.paths.root)
        tables = [folder.table_path(name) for name in self.raters]
        return [path for path in tables if path.exists()]

    def cautions(self) -> list[str]:
        """Return a line for each rater whose answers look like guesses."""
        lines = []
        for name, rater in self.raters.items():
            line = chance_line(name, rater.originals_right, len(self.names))
            if line is not None:
                lines.append(line)
        return lines

    @property
    def key(self) -> str:
        """A fingerprint of the sample: answers to another one are refused."""
        shown = [[entry.id, entry.which, entry.repeat] for entry in self.audited.sample.shown]
        return fingerprint([self.audited.provenance.files, shown])

    def export(self, path: Path) -> None:
        """Write the page with all images in it, which saves a file of answers. Raises UserError."""
        images = {}
        for name, rater in self.raters.items():
            images[name] = [data_address(self.audited.images[task.id, task.which]) for task in rater.tasks]
        content = {
            "raters": list(self.raters),
            "names": self.names,
            "total": len(self.audited.sample.shown),
            "images": images,
            "key": self.key,
        }
        write_atomically(path, audit_page(content).encode())

    def take(self, path: Path) -> tuple[str, int]:
        """Import a file of answers that the exported page saved; they replace those of its rater.

        Returns:
            The name of the rater, and how many answers there are.

        Raises:
            UserError: an answer is invalid, they are fewer than those already stored, they are to another sample, or
                by a rater of no such name; then none is imported.
        """
        content = _read_answers(path)
        if content.get("key") != self.key:
            raise UserError(f"{path}: has answers to other images; pass the --n, --seed and split of the exported page")
        rater = self.raters.get(str(content.get("rater")))
        if rater is None:
            raise UserError(f"{path}: has answers by {content.get('rater')!r}; add that name to --raters")
        entries = content.get("answers")
        if not isinstance(entries, list):
            entries = [None]  # which is no answer
        answers: list[tuple[int, float | None]] = []
        try:
            for entry in entries:
                answers.append(parse_answer(entry, len(self.names)))
        except UserError as error:
            raise UserError(f"{path}: answer {len(answers) + 1}: {error}; no answers were imported") from None
        try:
            return rater.name, rater.take(answers)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None


def _read_answers(path: Path) -> dict[str, Any]:
    try:
        with open_plain(path) as file:
            return parse_json(file.read(_MAX_ANSWERS_BYTES), str(path))
    except (OSError, UserError) as error:
        raise UserError(f"{path}: is not a file of answers; save one from the exported page") from error


def _generator(provenance: Provenance, trust: bool) -> tuple[Generator | None, str | None]:
    """Return the split's generator for plain reconstructions, or None and a line that says why."""
    try:
        return build_recorded_generator(provenance.recipe.generator.tree, trust=trust, device="cpu"), None
    except UserError as error:
        return None, f"no plain reconstructions among the controls: {error}"


def _images(
    opened: Split, sample: Sample, generator: Generator | None, provenance: Provenance
) -> dict[tuple[int, str], bytes]:
    """Return the PNG of each image of the sample, by id and which."""
    keys = {(entry.id, entry.which) for entry in sample.shown}
    ids = {entry.id for entry in sample.shown}
    columns = opened.image_columns
    images: dict[tuple[int, str], bytes] = {}
    for row in opened.stored_rows(columns, [*columns, "id", "label"]):
        example_id = row["id"]
        if example_id not in ids:
            continue
        for name in columns:
            if (example_id, name) in keys:
                images[example_id, name] = _png(opened, row[name], f"id {example_id}: its {name}")
        if (example_id, "reconstruction") in keys and generator is not None:
            pixels = np.asarray(opened.decode(row["original"], f"id {example_id}: its original"))
            seed = row_seed(int(provenance.recipe.perturb.model_dump().get("seed", 0)), example_id)
            images[example_id, "reconstruction"] = _reconstruction(generator, pixels, row["label"], seed)
    return images


def _png(opened: Split, stored: dict[str, Any], name: str) -> bytes:
    """Return the bytes of a stored image, which errors call `name`."""
    opened.decode(stored, name)  # raises UserError unless it is an image of the right size
    content = opened.image_of(stored)
    return content if isinstance(content, bytes) else Path(content).read_bytes()


@torch.no_grad()
def _reconstruction(generator: Generator, pixels: np.ndarray, label: int, seed: int) -> bytes:
    """Return the plain reconstruction of an original [size, size, 3] as a PNG."""
    generator.row_seeds = [seed]
    latents = generator.encode(to_batch(pixels[None]), torch.tensor([label]))
    image = to_bytes(on_byte_grid(generator.decode(Latents(*latents)).float()))[0]
    return png_bytes(image.permute(1, 2, 0).numpy())
