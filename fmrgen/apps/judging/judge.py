"""The verdicts of other judges on the stored images of a split, stored beside it."""

import hashlib
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from fmrgen.config import ComponentConfig
from fmrgen.distributed.launch import Processes
from fmrgen.engine.images import to_batch
from fmrgen.engine.interfaces import Originals
from fmrgen.errors import UserError
from fmrgen.files import cache_folder, fingerprint, write_atomically
from fmrgen.metrics.intervals import Estimate, format_estimate, proportion
from fmrgen.oracles._parts import digests_of_parts
from fmrgen.progress.bars import progress_shown, report
from fmrgen.publish.repo import add_to_split
from fmrgen.recipe.build import build_oracle, judgement_of
from fmrgen.recipe.job import load_oracles
from fmrgen.recipe.objects import AnyOracle, oracle_section
from fmrgen.report.report import Report, Section, Table
from fmrgen.report.tables import related_line
from fmrgen.results.judges import Kind
from fmrgen.split.classify import decode_own
from fmrgen.split.judgements import TABLE, JudgeFile, JudgementsFolder, to_parquet
from fmrgen.split.open import open_own_split
from fmrgen.split.rows import Split, reading
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import Provenance, now
from fmrgen.weights.digest import check_same_weights
from fmrgen.weights.identity import identity_of

_Pixels = dict[str, np.ndarray]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """The outcome of one judge.

    Attributes:
        judge: its name.
        rows: number of rows in the split.
        preserved: percent of valid images in which the judge sees the label; None if no row is valid.
        originals_right: percent of originals in which it does; None if the split stores none.
        files: the files written, if the split is in a folder.
        place: the folder or commit that holds the verdicts.
        shares_weights_with: the split's oracle or classifier, if the judge has its weights and so is no second opinion.
    """

    judge: str
    rows: int
    preserved: Estimate | None
    originals_right: Estimate | None
    files: list[Path]
    place: str
    shares_weights_with: list[str]


def judge(
    split: str,
    oracles: Mapping[str, AnyOracle] | Sequence[str] | str,
    *,
    batch_size: int = 64,
    progress: bool = True,
) -> list[Judged]:
    """Judge the stored images of a split by other oracles, and store their judgements beside it.

    They are in `judgements/CONFIG/SPLIT/JUDGE.parquet`, with a small file about the judge: in the split's folder,
    or as a commit to its repo on the Hub. Runs on every process of `accelerate launch`, which share the batches.
    Judgements are cached until the table is written, so the same call resumes.

    Args:
        split: a reference, `PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]`.
        oracles: one or several, as `generate` takes one, or a mapping of names to oracles, sections or short
            forms.
        batch_size: images that an oracle gets at a time.
        progress: show a bar for each judge.

    Returns:
        The outcome of each, in their order.

    Raises:
        UserError: the split or a judge can't be used.
    """
    if isinstance(oracles, Mapping):
        sections = {name: oracle_section(oracle) for name, oracle in oracles.items()}
    else:
        sections = load_oracles([oracles] if isinstance(oracles, str) else oracles)
    for name in sections:
        JudgementsFolder.check_name(name)
    processes = Processes()
    opened, provenance = open_own_split(split)
    outcomes: list[Judged] = []
    with progress_shown(progress):
        for name, section in sections.items():
            job = Job(name, section, opened, provenance, processes, batch_size)
            outcomes += processes.together(partial(job.store, job.run()))
    return outcomes


class Job:
    """One judge on one split.

    Raises UserError if the oracle can't be built, or needs originals that the split lacks.
    """

    def __init__(
        self,
        name: str,
        section: ComponentConfig,
        opened: Split,
        provenance: Provenance,
        processes: Processes,
        batch_size: int,
    ) -> None:
        self.name, self.section, self.opened, self.provenance = name, section, opened, provenance
        self.processes, self.batch_size = processes, batch_size
        self.device = processes.device
        labels = provenance.job_labels
        self.oracle = build_oracle(section, labels, provenance.image_size, self.device, f"oracle {name}")
        identity = identity_of(self.oracle, section)
        self.digest = identity.weights_sha256
        processes.check_same(f"weights of oracle {name}", self.digest)
        self.columns = opened.image_columns
        if self.oracle.needs_originals and "original" not in self.columns:
            raise UserError(f"{opened.name}: has no originals (output.keep_original), and {name} compares with them")
        if identity.unknown is not None:
            _log.warning("oracle %s: can't be hashed (%s), so it judges from the beginning", name, identity.unknown)
        key = {
            "files": provenance.files,
            "section": section.model_dump(mode="json"),
            "oracle": identity.key,
            "name": name,
            "batch_size": batch_size,
            "launch": None if identity.unknown is None else processes.gather(secrets.token_hex(8))[0],
        }
        self.parts = cache_folder() / "judgements" / fingerprint(key)
        cached = sorted(int(part.stem) for part in self.parts.glob("[0-9]*.parquet"))
        spread = np.linspace(0, len(cached) - 1, 16 if cached else 0).astype(int)
        self.queried = {cached[place] for place in spread}  # batches, by whose first rows the oracle is recognised

    def run(self) -> pa.Table:
        """Judge the batches that are not in the cache; return the whole table, in the order of the rows."""
        done = self.processes.together(self._judge_own)
        tables = [pq.read_table(self._part(number)) for number in range(-(-done // self.batch_size))]
        return pa.concat_tables(tables) if tables else TABLE.empty_table()

    def _judge_own(self) -> int:
        """Write this process's verdicts into the cache; return the number of all rows."""
        done = 0
        with reading(self.opened.name):
            for number, (rows, decoded) in enumerate(decode_own(self._batches(), self.processes, self.device)):
                batch_and_pixels = None if decoded is None else decoded.result()
                if batch_and_pixels is not None and number in self.queried:
                    self._check_part(number, self._verdicts(*batch_and_pixels))
                elif batch_and_pixels is not None:
                    write_atomically(self._part(number), to_parquet(self._verdicts(*batch_and_pixels)))
                done += len(rows)
                report(self.name, done, self.provenance.rows)
        check_same_weights(f"oracle {self.name}", self.oracle, self.digest)
        return done

    def _part(self, number: int) -> Path:
        """Return the cache file with the verdicts on a batch."""
        return self.parts / f"{number:07d}.parquet"

    def _has_part(self, number: int, ids: list[int]) -> bool:
        """Return whether the verdicts on a batch are cached and undamaged."""
        try:
            table = pq.read_table(self._part(number), page_checksum_verification=True)
        except (OSError, pa.ArrowException):
            return False
        return table.schema.equals(TABLE) and table["id"].to_pylist() == ids * len(self.columns)

    def _check_part(self, number: int, verdicts: pa.Table) -> None:
        """Raise UserError unless the cached verdicts on a batch begin as these, on its first row, do."""
        cached = pq.read_table(self._part(number))
        first = cached.take(pa.array(range(0, len(cached), len(cached) // len(self.columns))))
        is_same = first["label"].equals(verdicts["label"])
        for name in ("probability", "score"):  # which differ by less between batches of other sizes
            is_same &= np.allclose(first[name], verdicts[name], rtol=1e-2, atol=1e-2, equal_nan=True)
        if not is_same:
            raise UserError(
                f"oracle {self.name}: differs from the oracle that judged the first rows; restore the files that it "
                f"reads, or delete {self.parts} to judge all rows again"
            )

    def _batches(self) -> Iterator[tuple[np.ndarray, Callable[[], Any]]]:
        """Yield the ids of each batch and the function that decodes it; collect `self.rows` on the way."""
        self.rows: dict[str, list[Any]] = {"label": [], "valid": []}
        for number, table in enumerate(self.opened.tables(self.batch_size, [*self.columns, *self.rows])):
            batch = table.to_pydict()
            for name, values in self.rows.items():
                values += batch[name]
            yield np.asarray(batch["id"]), partial(self._decode, number, batch)

    def _decode(self, number: int, batch: dict[str, list[Any]]) -> tuple[dict[str, list[Any]], _Pixels] | None:
        """Return a batch and its images; of one that was judged before its first row, or None if it is not queried."""
        if self._has_part(number, batch["id"]):
            if number not in self.queried:
                return None
            batch = {name: values[:1] for name, values in batch.items()}
        else:
            self.queried.discard(number)  # its file is damaged
        return batch, self.opened.decoded(batch)

    def _verdicts(self, batch: dict[str, list[Any]], pixels: _Pixels) -> pa.Table:
        """Return the oracle's verdicts on the images of a batch, and on their originals."""
        labels = torch.tensor(batch["label"], device=self.device)
        images = {column: to_batch(values, self.device) for column, values in pixels.items()}
        tables = []
        for column, column_images in images.items():
            originals = Originals(images.get("original", column_images), labels)
            measures, _ = judgement_of(self.oracle, column_images, originals, f"oracle {self.name}")
            columns: dict[str, Any] = {"id": batch["id"]}
            for name, measure in (("label", "oracle_label"), ("probability", "probability"), ("score", "score")):
                columns[name] = measures[measure].cpu().numpy()
            columns["image_sha256"] = [hashlib.sha256(stored["bytes"]).hexdigest() for stored in batch[column]]
            same = {"judge": self.name, "which": column, "when": now(), "weights_sha256": self.digest}
            columns |= {name: [value] * len(labels) for name, value in same.items()}
            tables.append(pa.table(columns, schema=TABLE))
        return pa.concat_tables(tables)

    def store(self, table: pa.Table) -> list[Judged]:
        """Store the table beside the split, and empty the cache; return the outcome, on the first process alone."""
        if not self.processes.is_first:
            return []
        content = to_parquet(table)
        paths = self.opened.paths
        repo = None if self.opened.revision is None else self.opened.repo
        kind: Kind = "vlm" if self.section.kind == "vlm" else "oracle"
        section, parts = self.section.model_dump(mode="json"), digests_of_parts(self.oracle)
        about = JudgeFile.of(self.name, kind, section, self.digest, paths.name, self.provenance, content, parts)

        def write(split: SplitPaths) -> None:
            folder = JudgementsFolder(split)
            if repo is not None:
                folder.check_same_judge(about, repo)
            folder.write(about, content)

        message = f"Judgements of {self.name} on {paths.name}"
        place = add_to_split(paths, repo, about.files, message, write)
        files: list[Path] = []
        if place is None:
            folder = JudgementsFolder(paths)
            files, place = [folder.table_path(self.name), folder.about_path(self.name)], str(paths.judgements)
        for part in self.parts.glob("*.parquet"):
            part.unlink(missing_ok=True)
        return [self._figures(table, files, place, about.related(self.provenance, {}))]

    def _figures(self, table: pa.Table, files: list[Path], place: str, shares_weights_with: list[str]) -> Judged:
        labels, valid = np.array(self.rows["label"]), np.array(self.rows["valid"], dtype=bool)
        right = {name: table.filter(pc.field("which") == name)["label"].to_numpy() == labels for name in self.columns}
        return Judged(
            judge=self.name,
            rows=self.provenance.rows,
            preserved=proportion(right["image"][valid]),
            originals_right=proportion(right["original"]) if "original" in right else None,
            files=files,
            place=place,
            shares_weights_with=shares_weights_with,
        )


def judged_report(outcomes: Sequence[Judged], split: str) -> Report:
    """Return the report of the judges of a split: their figures, and where their verdicts are."""
    rows, warnings, places = [], [], []
    for outcome in outcomes:
        preserved, originals_right = format_estimate(outcome.preserved), format_estimate(outcome.originals_right)
        rows.append([outcome.judge, preserved, originals_right, f"{outcome.rows:,}"])
        if outcome.shares_weights_with:
            warnings.append(related_line(outcome.judge, outcome.shares_weights_with))
        places += list(map(str, outcome.files)) or [outcome.place]
    table = Table(["judge", "sees the label in valid images, %", "in originals, %", "rows"], rows)
    section = Section("judges", split, tables=[table])
    conclusions = list(dict.fromkeys(places))
    return Report("judged", f"Judges of {split}", [section], outcomes, conclusions=conclusions, warnings=warnings)
