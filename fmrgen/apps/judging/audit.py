"""An audit: people name images of a split, on a page of this machine or on one that is sent around."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fmrgen.apps.judging.sample import Sample, draw
from fmrgen.apps.judging.server import AuditServer
from fmrgen.apps.judging.verdicts import Audited, Rater, parse_answer
from fmrgen.engine.images import on_byte_grid, to_batch, to_bytes
from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.engine.models import row_seed
from fmrgen.errors import UserError
from fmrgen.files import check_writable, fingerprint, open_plain, parse_json, write_atomically
from fmrgen.image_files import png_bytes
from fmrgen.metrics.rows import accepted_as_label
from fmrgen.publish.card import renew_card
from fmrgen.recipe.build import build_recorded_generator
from fmrgen.report.pages import audit_page
from fmrgen.results.judges import chance_line
from fmrgen.split.judgements import check_judge_name, judges_of, table_path
from fmrgen.split.open import Split, open_own_split, reading
from fmrgen.storage.provenance import Provenance

_COLUMNS = ("id", "label", "valid", "iterations", "prediction")
_LARGEST_ANSWERS = 1 << 24  # bytes


class Audit:
    """A split, its sample and its raters, ready to be served or exported.

    Args:
        split: a reference, `PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]`.
        raters: names, under which their answers are kept.
        count: perturbed images in the sample.
        seed: of the sample.
        output: the folder in whose `judgements/CONFIG/SPLIT/` answers are kept, for a split on the Hub; one in a folder
            keeps them beside itself.
        trust: let the generator in the split's provenance run the code and read the files that it names, for plain
            reconstructions among the controls.

    Raises:
        UserError: the split can't be audited, or what is there of a rater's does not belong to it.
    """

    def __init__(
        self, split: str, raters: Sequence[str], *, count: int = 300, seed: int = 0, output: Path, trust: bool = False
    ) -> None:
        for name in raters:
            check_judge_name(name)
        if len(set(raters)) < len(raters) or not raters:
            raise UserError("--raters: needs each name once, for example --raters ann,ben")
        opened, provenance = open_own_split(split)
        paths = opened.paths if opened.revision is None else opened.paths.at(output)
        check_writable(paths.root)
        with reading(split):
            columns = _columns(opened)
            generator, self.note = _generator(provenance, trust)
            sample = draw(columns, count, seed, reconstructions=generator is not None and "original" in opened.features)
            images = _images(opened, sample, generator, provenance)
        labels = dict(zip(columns["id"].tolist(), columns["label"].tolist(), strict=True))
        self.audited = Audited(paths, provenance, sample, images, labels)
        self.names = list(provenance.labels)
        self.raters = {name: Rater(name, self.audited) for name in raters}
        self._is_split_here = opened.revision is None

    def server(self, host: str, port: int) -> AuditServer:
        """The server of its page, listening. Raises UserError where it can't."""
        return AuditServer(self.raters, self.names, host, port)

    def close(self) -> list[Path]:
        """Ends the audit; returns the tables that there are."""
        if self._is_split_here and judges_of(self.audited.paths):
            renew_card(self.audited.paths.root)
        return [path for name in self.raters if (path := table_path(self.audited.paths, name)).exists()]

    def cautions(self) -> list[str]:
        """A line for each rater whose answers look like guesses."""
        lines = (chance_line(name, rater.originals_right, len(self.names)) for name, rater in self.raters.items())
        return [line for line in lines if line is not None]

    @property
    def key(self) -> str:
        """Names the sample: answers to another one are not taken."""
        shown = [[entry.id, entry.which, entry.repeat] for entry in self.audited.sample.shown]
        return fingerprint([self.audited.provenance.files, shown])

    def export(self, path: Path) -> None:
        """Writes the page with all images in it; whoever opens it sends a file of answers back. Raises UserError."""
        images = {
            name: [
                f"data:image/png;base64,{base64.b64encode(self.audited.images[task.id, task.which]).decode()}"
                for task in rater.tasks
            ]
            for name, rater in self.raters.items()
        }
        content = {"raters": list(self.raters), "names": self.names, "total": len(self.audited.sample.shown)}
        content |= {"images": images, "key": self.key}
        write_atomically(path, audit_page(content).encode())

    def take(self, path: Path) -> tuple[str, int]:
        """Takes the answers in a file that the exported page gave; they replace those that there are of its rater;
        returns whose they are, and how many.

        Raises UserError, and takes none, where one of them is no answer, they are fewer than there are already, not to
        this sample, or of somebody else.
        """
        content = _read_answers(path)
        if content.get("key") != self.key:
            raise UserError(f"{path}: has answers to other images; pass the --n, --seed and split of the exported page")
        if (rater := self.raters.get(str(content.get("rater")))) is None:
            raise UserError(f"{path}: has answers by {content.get('rater')!r}; add that name to --raters")
        answers = content.get("answers")
        taken = list[tuple[int, float | None]]()
        try:
            for entry in answers if isinstance(answers, list) else [None]:
                taken.append(parse_answer(entry, len(self.names)))
        except UserError as error:
            raise UserError(f"{path}: answer {len(taken) + 1}: {error}; no answers were imported") from None
        try:
            return rater.name, rater.take(taken)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None


def _read_answers(path: Path) -> dict[str, Any]:
    try:
        with open_plain(path) as file:
            return parse_json(file.read(_LARGEST_ANSWERS), str(path))
    except (OSError, UserError) as error:
        raise UserError(f"{path}: is not a file of answers; save one from the exported page") from error


def _columns(opened: Split) -> dict[str, np.ndarray]:
    wanted = [*_COLUMNS, *({"accepted_labels"} & opened.features.keys())]
    parts = list(opened.dataset.select_columns(wanted).with_format("arrow").iter(1000))
    return accepted_as_label({name: np.concatenate([part[name].to_numpy() for part in parts]) for name in wanted})


def _generator(provenance: Provenance, trust: bool) -> tuple[Generator | None, str | None]:
    """The split's generator for plain reconstructions, or why there is none."""
    try:
        return build_recorded_generator(provenance.recipe.generator.tree, trust=trust, device="cpu"), None
    except UserError as error:
        return None, f"no plain reconstructions among the controls: {error}"


def _images(
    opened: Split, sample: Sample, generator: Generator | None, provenance: Provenance
) -> dict[tuple[int, str], bytes]:
    """The bytes of all that is shown."""
    wanted = {(entry.id, entry.which) for entry in sample.shown}
    ids = {example_id for example_id, _ in wanted}
    columns = [name for name in ("image", "original") if name in opened.features]
    found: dict[tuple[int, str], bytes] = {}
    for row in opened.stored_rows(columns, [*columns, "id", "label"]):
        if row["id"] not in ids:
            continue
        for name in columns:
            if (row["id"], name) in wanted:
                found[row["id"], name] = _png(opened, row[name], f"id {row['id']}: its {name}")
        if (row["id"], "reconstruction") in wanted and generator is not None:
            pixels = np.asarray(opened.decode(row["original"], f"id {row['id']}: its original"))
            seed = row_seed(int(provenance.recipe.perturb.model_dump().get("seed", 0)), row["id"])
            found[row["id"], "reconstruction"] = _reconstruction(generator, pixels, row["label"], seed)
    return found


def _png(opened: Split, stored: dict[str, Any], what: str) -> bytes:
    opened.decode(stored, what)  # it is an image, and of the right size
    content = opened.image_of(stored)
    return content if isinstance(content, bytes) else Path(content).read_bytes()


@torch.no_grad()
def _reconstruction(generator: Generator, pixels: np.ndarray, label: int, seed: int) -> bytes:
    generator.row_seeds = [seed]
    latents = generator.encode(to_batch(pixels[None]), torch.tensor([label]))
    image = to_bytes(on_byte_grid(generator.decode(Latents(*latents)).float()))[0]
    return png_bytes(image.permute(1, 2, 0).numpy())
