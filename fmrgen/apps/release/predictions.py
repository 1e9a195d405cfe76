"""Predictions of a classifier on labelled images, as anyone keeps them: parquet, CSV or JSON lines.

Nothing here imports torch, `datasets` or pandas.
"""

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import softmax

from fmrgen.errors import UserError, one_line
from fmrgen.files import open_plain

FORMATS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_IDS = ["id", "sample_id", "image_id", "example_id", "index", "file_name", "filename", "file", "path", "image_path"]
_LABELS = ["label", "labels", "target", "targets", "true", "true_label", "y_true"]
_LABELS += ["ground_truth", "reference", "references"]
_PREDICTIONS = ["prediction", "predictions", "predicted", "pred", "preds", "y_pred", "predicted_label"]
_PREDICTIONS += ["predicted_class", "pred_label", "answer", "output"]
_SCORES = ("probabilities", "probs", "scores", "logits")  # a list for each row
_NUMBERED_SCORES = ("p{}", "p_{}", "prob{}", "prob_{}", "score{}", "score_{}", "logit{}", "logit_{}")  # a column each
_CONFIDENCES = ("confidence", "score", "probability")  # of the prediction


@dataclass(frozen=True)
class Predictions:
    """The predictions of a classifier; every array is [N], in one order of the images."""

    name: str  # where they are from, for messages
    ids: np.ndarray  # as text; distinct
    labels: np.ndarray  # the true classes, as text
    predicted: np.ndarray  # classes, as text; empty for none
    confidence: np.ndarray | None = None  # of each prediction, from 0 to 1; None if there are no scores
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)  # all others: what images can be grouped by
    has_ids: bool = True  # else the ids are the places of the images

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, rows: np.ndarray) -> "Predictions":
        """Return the predictions for some images, by their places or bool [N]."""
        return replace(
            self,
            ids=self.ids[rows],
            labels=self.labels[rows],
            predicted=self.predicted[rows],
            confidence=None if self.confidence is None else self.confidence[rows],
            columns={name: values[rows] for name, values in self.columns.items()},
        )


def is_file_of_predictions(text: str) -> bool:
    """Return whether a word names a file of predictions, by how it ends."""
    return text.lower().endswith(FORMATS)


def read_predictions(path: str | Path) -> Predictions:
    """Read a file of predictions: parquet, CSV with a header, or JSON lines, with a row for each image.

    A row has an id (any of the usual names), the true label, and the prediction or a list of scores. Numbers and names
    of classes are compared as text. An evaluation.json, of one classifier, stands for the predictions that `evaluate`
    wrote beside it. Raises UserError if the file can't be read, lacks a column, or has two rows of one id.
    """
    path = Path(path)
    if path.name == "evaluation.json":
        path = path.with_name("predictions.parquet")  # which `evaluate` writes beside it
    if path.suffix.lower() == ".json":
        raise UserError(f"{path}: give JSON lines, an object on each line (.jsonl), or CSV or parquet")
    try:
        with open_plain(path) as file:
            table = _table_of(path, file)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path}: can't be read as {path.suffix[1:] or 'a table'}: {one_line(error)}") from None
    names = table.column_names
    if len(set(names)) < len(names):
        raise UserError(f"{path}: has two columns {max(names, key=names.count)}; drop one")
    for field_of_table in table.schema:
        if pa.types.is_binary(field_of_table.type):
            raise UserError(f"{path}: its column {field_of_table.name} is not UTF-8; save the file as UTF-8")
    if {"split", "classifier", "id", "label", "valid", "original_prediction", "prediction"} <= set(names):
        table = _of_one_classifier(path, table)
    return predictions_of_columns(str(path), dict(zip(table.column_names, table.columns, strict=True)))


def _of_one_classifier(path: Path, table: pa.Table) -> pa.Table:
    """Return the predictions that `evaluate` wrote of one classifier, on valid rows, with ids that name the split."""
    classifiers = table["classifier"].unique().to_pylist()
    if len(classifiers) > 1:
        raise UserError(f"{path}: has predictions of {', '.join(classifiers)}; evaluate one classifier, to compare it")
    table = table.filter(pc.fill_null(table["valid"], True))  # real images have no word on it
    ids = [f"{split}/{row}" for split, row in zip(table["split"].to_pylist(), table["id"].to_pylist(), strict=True)]
    return pa.table({"id": ids, "label": table["label"], "prediction": table["prediction"], "split": table["split"]})


def _table_of(path: Path, file: Any) -> pa.Table:
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        from fmrgen.trust.parquet import check_parquet_files

        check_parquet_files([str(path)])
        return pq.read_table(file)
    if path.suffix.lower() in (".csv", ".tsv"):
        from pyarrow import csv

        header = file.readline()
        file.seek(0)
        delimiter = max(",;\t", key=lambda mark: header.count(mark.encode()))
        return csv.read_csv(file, parse_options=csv.ParseOptions(delimiter=delimiter))
    from pyarrow.json import read_json

    if any(line.count(b"[") + line.count(b"{") > 1000 for line in file):  # Arrow follows them without end
        raise UserError(f"{path}: a line of it is nested too deeply; give a flat object on each line")
    file.seek(0)
    return read_json(file)


def predictions_of_columns(name: str, columns: Mapping[str, Any]) -> Predictions:
    """Return predictions from named columns of one length: arrays, lists or columns of Arrow.

    `name` says where they are from, for messages. Raises UserError as `read_predictions` does.
    """
    taken: set[str] = set()

    def column(names: Sequence[str]) -> Any:
        for candidate in names:
            if candidate in columns:
                taken.add(candidate)
                return columns[candidate]
        return None

    labels, predictions = column(_LABELS), column(_PREDICTIONS)
    scores, confidence = column(_SCORES), column(_CONFIDENCES)
    if scores is None:
        scores = _numbered_scores(columns, taken)
    if labels is None or (predictions is None and scores is None):
        missing, names = ("label", _LABELS) if labels is None else ("prediction", _PREDICTIONS)
        listed = ", ".join(map(str, columns)) or "none"
        raise UserError(
            f"{name}: has no column {missing}; call it {', '.join(names[:-1])} or {names[-1]} (its columns: {listed})"
        )
    _check_lengths(name, columns)
    label_text = as_text(labels)
    if not len(label_text):
        raise UserError(f"{name}: is empty")
    if (label_text == "").any():
        raise UserError(f"{name}: {int((label_text == '').sum()):,} rows have no label; leave them out")
    confidences = None
    if scores is not None:
        of_scores, confidences = _predicted(name, _scores(name, scores))
        predictions = of_scores if predictions is None else predictions
    if confidence is not None:
        confidences = _confidence(name, confidence)
    ids = column(_IDS)
    predicted_text = as_text(predictions)
    classes, predicted_classes = set(label_text.tolist()), set(predicted_text.tolist())
    # A column of CSV is read as numbers, 7, unless there is a word in it: then it has 007.
    by_digits = {text.lstrip("0"): text for text in classes if text.isdecimal()}
    spelled = {text: by_digits.get(text.lstrip("0"), text) for text in predicted_classes - classes if text.isdecimal()}
    if spelled:
        predicted_text = np.array([spelled.get(text, text) for text in predicted_text.tolist()])
        predicted_classes = set(predicted_text.tolist())
    if not classes & predicted_classes:
        raise UserError(
            f"{name}: no prediction is a label: labels are {few(sorted(classes))}, predictions "
            f"{few(sorted(predicted_classes))}; use the same names or numbers in both"
        )
    id_text = np.arange(len(label_text)).astype(str) if ids is None else as_text(ids)
    if ids is not None and (id_text == "").any():
        raise UserError(f"{name}: {int((id_text == '').sum()):,} rows have no id; give each its own")
    repeated = [text for text, count in Counter(id_text.tolist()).items() if count > 1]
    if repeated:
        raise UserError(f"{name}: has {len(repeated):,} ids more than once: {few(repeated)}; give each image one row")
    others = {
        other: np.asarray(_values(values), dtype=object) for other, values in columns.items() if other not in taken
    }
    return Predictions(name, id_text, label_text, predicted_text, confidences, others, has_ids=ids is not None)


def _check_lengths(name: str, columns: Mapping[str, Any]) -> None:
    """Raise UserError unless all columns have one length, and one value in each row or a list of scores."""
    lengths = {column: len(values) for column, values in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{column} {length}" for column, length in list(lengths.items())[:3])
        raise UserError(f"{name}: its columns have different lengths ({listed})")
    for column, values in columns.items():
        dimensions = 1 if isinstance(values, pa.ChunkedArray) else np.ndim(values)  # which would import pandas
        if dimensions > 1 and column not in _SCORES:
            raise UserError(f"{name}: {column} has {dimensions} dimensions; give a class for each image, or scores")


def _values(column: Any) -> list[Any]:
    return column.to_pylist() if isinstance(column, pa.ChunkedArray | pa.Array) else list(column)


def as_text(column: Any) -> np.ndarray:
    """Return classes or ids as text, [N]: 3 and 3.0 are the same, and a missing one is empty."""
    if isinstance(column, pa.ChunkedArray | pa.Array) and pa.types.is_floating(column.type):
        column = column.fill_null(math.nan)
    values = np.asarray(_values(column))  # pyarrow's own conversion would import pandas
    if values.dtype.kind in "iub":
        return values.astype(str)
    if values.dtype.kind == "f":
        texts = [str(int(value)) if value.is_integer() else repr(value) for value in values.tolist()]
        return np.where(np.isnan(values), "", np.array(texts, dtype=str))
    texts = ["" if value is None else str(value).strip() for value in values.tolist()]
    # é is one character here and two in another tool: both are one class.
    return np.array([text if text.isascii() else unicodedata.normalize("NFC", text) for text in texts], dtype=str)


def _confidence(name: str, column: Any) -> np.ndarray:
    """Return confidences [N]. Raises UserError if they are no probabilities."""
    try:
        values = np.asarray(_values(column), dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{name}: its confidence is not a column of numbers") from None
    outside = np.isfinite(values) & ((values < 0) | (values > 1))
    if outside.any():
        raise UserError(f"{name}: its confidence goes up to {values[outside].max():g}; give probabilities, 0 to 1")
    return values


def _numbered_scores(columns: Mapping[str, Any], taken: set[str]) -> list[list[Any]] | None:
    """Return scores of columns p0, p1, …, [N][K], and add their names to `taken`; None if there are no two."""
    for pattern in _NUMBERED_SCORES:
        names: list[str] = []
        while (name := pattern.format(len(names))) in columns:
            names.append(name)
        if len(names) > 1:
            taken.update(names)
            of_classes = [_values(columns[name]) for name in names]
            return [list(row) for row in zip(*of_classes, strict=True)]
    return None


def _scores(name: str, scores: Any) -> np.ndarray:
    """Return scores as a matrix [N, K]. Raises UserError if rows are not lists of numbers of one length."""
    lists = _values(scores)
    try:
        lists = [json.loads(row) if isinstance(row, str) else row for row in lists]  # as pandas writes lists into CSV
        lengths = {0 if row is None else len(row) for row in lists}
        if len(lengths) != 1 or lengths == {0}:
            raise UserError(
                f"{name}: its scores have {min(lengths)} to {max(lengths)} values a row; each needs all classes"
            )
        return np.asarray(lists, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise UserError(f"{name}: its scores are not lists of numbers, one for each class") from None


def _predicted(name: str, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the class and the confidence of each row [N]: NaN where scores are NaN or inf; -inf leaves a class out."""
    finite = np.isfinite(scores.max(axis=1))
    if not finite.any():
        raise UserError(f"{name}: no row has finite scores; check the network that gave them")
    probabilities = scores[finite]
    if (probabilities < 0).any() or np.abs(probabilities.sum(axis=1) - 1).max() >= 1e-3:  # but for rounding
        probabilities = softmax(probabilities, axis=1)
    confidence = np.full(len(scores), np.nan)
    confidence[finite] = probabilities.max(axis=1)
    return np.where(finite, scores.argmax(axis=1), np.nan), confidence


def few(ids: Sequence[str]) -> str:
    """Return the first three ids, for a message."""
    return ", ".join(text or "an empty one" for text in ids[:3]) + (", …" if len(ids) > 3 else "")


def matched(old: Predictions, new: Predictions) -> Predictions:
    """Return `new` in the order of `old`. Raises UserError if their ids, or the labels of an image, differ."""
    if len(old) != len(new) or not np.array_equal(old.ids, new.ids):
        place = {text: row for row, text in enumerate(new.ids.tolist())}
        missing = [text for text in old.ids.tolist() if text not in place]
        extra = sorted(place.keys() - set(old.ids.tolist()))
        differences = []
        for ids, holder, other in ((missing, old, new), (extra, new, old)):
            if ids:
                differences.append(f"{len(ids):,} ids of {holder.name} are not in {other.name} ({few(ids)})")
        if differences:
            raise UserError(f"{'; '.join(differences)}: compare predictions on the same images")
        new = new.of(np.array([place[text] for text in old.ids.tolist()]))
    rows = np.flatnonzero(old.labels != new.labels)
    if len(rows):
        row = rows[0]
        raise UserError(
            f"{len(rows):,} labels differ, first of id {old.ids[row]}: {str(old.labels[row])!r} in {old.name}, "
            f"{str(new.labels[row])!r} in {new.name}; use one set of labels"
        )
    return new
