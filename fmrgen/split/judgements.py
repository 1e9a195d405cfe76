"""What judges say of a split's stored images: a table and a small file about it for each judge, beside the split."""

import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from glob import escape
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from fmrgen.errors import UserError, one_line
from fmrgen.files import check_inside, json_text, of_schema, read_json, read_plain, write_atomically
from fmrgen.hub.client import HubClient
from fmrgen.results.judges import Kind
from fmrgen.split.rows import Split
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import Provenance
from fmrgen.trust.parquet import check_table

SCHEMA: Literal["fmrgen-judgements/1"] = "fmrgen-judgements/1"
NAME = r"\w[\w.-]*"  # of a judge
_LONGEST_NAME = 100  # in bytes
_SHA256 = r"^[0-9a-f]{64}$"
PEOPLE = "people"  # what all persons say together
_LARGEST = 1 << 28  # bytes of a file on the Hub; of a million images there are some 2^27
UNSURE = -2  # the label where a person can't tell

TABLE = pa.schema(
    [
        ("judge", pa.string()),
        ("id", pa.int64()),
        ("which", pa.string()),
        ("label", pa.int32()),
        ("probability", pa.float32()),
        ("score", pa.float32()),
        ("when", pa.string()),
        ("image_sha256", pa.string()),
        ("weights_sha256", pa.string()),
    ]
)


@dataclass(frozen=True)
class JudgeFile:
    """The small file about a judge's table."""

    schema: Literal["fmrgen-judgements/1"]
    judge: Annotated[str, Field(pattern=rf"^{NAME}$")]
    kind: Kind  # `vlm` is a vision-language model
    section: dict[str, Any] | None  # of a recipe; None of a person
    weights_sha256: Annotated[str, Field(pattern=_SHA256)] | None
    split: str  # `CONFIG/SPLIT` of which it spoke
    files: str  # digest of the very files of that split
    labels: int  # how many there are
    rows: int  # of the table
    sha256: Annotated[str, Field(pattern=_SHA256)]  # of the table's file
    fmrgen: str  # the version that wrote it
    digests: list[str] = field(default_factory=list)  # that its weights, or its members', may have in other files

    @classmethod
    def of(
        cls,
        judge: str,
        kind: Kind,
        section: dict[str, Any] | None,
        weights_sha256: str | None,
        split: str,
        provenance: Provenance,
        content: bytes,
        digests: Iterable[str] = (),
    ) -> "JudgeFile":
        """Return the small file about a judge, of the bytes of its table's file and the split's provenance."""
        return cls(
            schema=SCHEMA,
            judge=judge,
            kind=kind,
            section=section,
            weights_sha256=weights_sha256,
            split=split,
            files=provenance.files_digest,
            labels=len(provenance.labels),
            rows=pq.read_metadata(io.BytesIO(content)).num_rows,
            sha256=hashlib.sha256(content).hexdigest(),
            fmrgen=version("fmrgen"),
            digests=sorted(digests),
        )

    def related(self, provenance: Provenance, classifiers: Mapping[str, str | None]) -> list[str]:
        """Return with what, in words, the judge shares its weights: its figures are then no second opinion.

        `classifiers` are the digests of those that are measured, by their names.
        """
        digests = {self.weights_sha256, *self.digests} - {None}
        weights = provenance.weights_sha256
        relatives = []
        if digests & {weights.oracle, *provenance.oracle_sha256}:
            relatives.append("the split's own oracle")
        measured = [name for name, digest in classifiers.items() if digest in digests]
        if not measured and weights.classifier in digests:
            relatives.append("the classifier that the split was generated against")
        return relatives + [f"the classifier {name}" for name in measured]


@dataclass(frozen=True)
class Judgements:
    """What one judge says: the file about it, and its table."""

    about: JudgeFile
    table: pa.Table


def to_parquet(table: pa.Table) -> bytes:
    """Return the bytes of a table's file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


@dataclass(frozen=True)
class JudgementsFolder:
    """The judges of a split: their tables, and the small files about them.

    The split lies in its folder or among the small files of its repo.
    """

    paths: SplitPaths

    @staticmethod
    def check_name(judge: str) -> None:
        """Raise UserError for a name that can't be a file's, or that all persons together have."""
        if not re.fullmatch(NAME, judge) or len(judge.encode()) > _LONGEST_NAME:
            raise UserError(
                f"judge {judge[:_LONGEST_NAME]!r}: it names a file; use letters, digits and _ . -, NAME=…, and no "
                f"more than {_LONGEST_NAME} bytes"
            )
        if judge == PEOPLE:
            raise UserError(f"judge {judge}: that name means all people together; choose another")

    def table_path(self, judge: str) -> Path:
        return self.paths.judgements / f"{judge}.parquet"

    def about_path(self, judge: str) -> Path:
        return self.paths.judgements / f"{judge}.json"

    def judges(self) -> dict[str, JudgeFile]:
        """Return all judges, by name. Raises UserError for a file about one that can't be read."""
        return {path.stem: self._read_about(path) for path in sorted(self.paths.judgements.glob("*.json"))}

    def judges_of(self, files: str) -> list[JudgeFile]:
        """Return who judged the split's very files, of the digest `files`; other files are passed over."""
        judges = []
        for path in sorted(self.paths.judgements.glob("*.json")):
            with suppress(UserError):
                about = self._read_about(path)
                if about.files == files:
                    judges.append(about)
        return judges

    def read(self, about: JudgeFile) -> Judgements:
        """Return the table of a judge, which the small file about it describes.

        Raises UserError if it is not that very table, or holds what no judge of this split can say.
        """
        path = self.table_path(about.judge)
        content = read_plain(path)
        try:
            check_table(path, io.BytesIO(content), about.rows)
            table = pq.read_table(io.BytesIO(content))
        except (OSError, pa.ArrowException, ValueError) as error:
            raise UserError(f"{path}: can't be read: {one_line(error)}") from None
        if hashlib.sha256(content).hexdigest() != about.sha256:
            raise UserError(f"{path}: is not the table that {path.with_suffix('.json').name} describes; judge again")
        if not table.schema.equals(TABLE):
            raise UserError(f"{path}: has other columns than judgements have")
        for name in ("id", "which", "label", "image_sha256"):
            if table[name].null_count:
                raise UserError(f"{path}: a row has no {name}")
        labels = table["label"].to_numpy()
        wrong = labels[(labels < UNSURE) | (labels >= about.labels)]
        if len(wrong):
            raise UserError(f"{path}: label {wrong[0]} is not one of the {about.labels} classes")
        return Judgements(about, table)

    def write(self, about: JudgeFile, content: bytes) -> None:
        """Write both files of a judge, the table's with `content`."""
        table = self.table_path(about.judge)
        check_inside(table.parent, self.paths.root)
        write_atomically(table, content)
        self.write_about(about)

    def write_about(self, about: JudgeFile) -> None:
        """Write the small file about a judge."""
        path = self.about_path(about.judge)
        check_inside(path.parent, self.paths.root)
        write_atomically(path, json_text(about).encode())

    def check_same_judge(self, about: JudgeFile, repo: str) -> None:
        """Raise UserError if `repo` has judgements of another judge of that name, which would be lost.

        The folder is that of the repo's small files.
        """
        path = self.about_path(about.judge)
        if not path.exists():
            return
        earlier = of_schema(JudgeFile, SCHEMA, read_json(path), f"{repo}: {self.paths.in_repo(path)}")
        if (earlier.kind, earlier.weights_sha256) != (about.kind, about.weights_sha256):
            raise UserError(
                f"{repo}: already holds judgements of another {about.judge} on {self.paths.name}; give yours another "
                "name, NAME=…"
            )

    def _read_about(self, path: Path) -> JudgeFile:
        """Return what a file says of the judge whose name it has. Raises UserError."""
        check_inside(path, self.paths.root)
        about = of_schema(JudgeFile, SCHEMA, read_json(path), str(path))
        if about.judge != path.stem:
            raise UserError(f"{path}: is about the judge {about.judge!r}; give the file that name")
        return about


def judgements_config(config: str) -> str:
    """Return what `load_dataset` calls the judgements of the splits of a config."""
    return f"{config}.judgements"


def check_of_split(
    judgements: Judgements, name: str, ids: np.ndarray, sha256: Mapping[str, Sequence[str]], labels: int
) -> None:
    """Raise UserError for judgements of another split, or of images that are not the split's.

    `ids` [N] are those of the split's rows, `sha256` the digests of their stored images by `image` and `original`;
    `labels` says how many there are.
    """
    about = judgements.about
    subject = f"judge {about.judge} on {name}"
    if about.labels != labels:
        raise UserError(f"{subject}: it judged over {about.labels} classes, and the split has {labels}")
    rows = {example_id: row for row, example_id in enumerate(ids.tolist())}
    columns = (judgements.table[column].to_pylist() for column in ("id", "which", "image_sha256"))
    for example_id, which, digest in zip(*columns, strict=True):
        if example_id not in rows:
            raise UserError(f"{subject}: it judged id {example_id}, which is not in the split; it judged another split")
        if which in sha256 and sha256[which][rows[example_id]] != digest:
            raise UserError(f"{subject}: its {which} of id {example_id} is not the stored one; judge this split anew")


def judgements_of(opened: Split) -> tuple[list[Judgements], list[str]]:
    """Return what all judges say of a split, in its folder or its commit on the Hub, and a line for each left out.

    Left out are those who spoke of other files than the split has now, and one with the name of all people together.
    Raises UserError if a judge's files can't be read, or are not what they say.
    """
    if opened.provenance is None or opened.repo is None:
        return [], []
    paths = opened.paths
    if opened.revision is not None:
        files = f"{escape(paths.at(Path()).judgements.as_posix())}/*"
        root = HubClient(opened.repo, "dataset", opened.revision).download([files], largest=_LARGEST)
        paths = paths.at(root)
    judgements, notes = [], []
    folder = JudgementsFolder(paths)
    for judge, about in folder.judges().items():
        if about.files != opened.provenance.files_digest:
            notes.append(f"judge {judge} saw earlier files of the split and is skipped; judge the split again")
            continue
        if judge == PEOPLE:
            notes.append(f"judge {judge} is skipped: that name means all people together; judge under another name")
            continue
        if about.rows > 2 * opened.rows_in_files:  # of each image and its original
            raise UserError(
                f"{folder.about_path(judge)}: claims {about.rows:,} rows, more than there can be for the split's "
                f"{opened.rows_in_files:,} images; it is not read"
            )
        judgements.append(folder.read(about))
    return judgements, notes
