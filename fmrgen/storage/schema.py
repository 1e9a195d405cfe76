"""The columns of a perturbed split: names, types, contents and their origin. Only this module defines them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from datasets import ClassLabel, Features, Image, List, Value

from fmrgen.records import Perturbed, StopReason

ScoreColumn = Literal["clip_score", "oracle_score"]  # of image-text oracles, and of others
SCORE_COLUMNS: tuple[ScoreColumn, ...] = ("clip_score", "oracle_score")

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_WORDS = ("string", "large_string")
_FLOATS = ("float32", "float64")
VERDICT = {"name": "string", "label": "int32", "probability": "float32", "score": "float32"}  # of one judge
_ATTACK: dict[str, Any] = {  # the record of one attack: fields of `AttackRecord`
    "stop_reason": Value("string"),
    "predictions": List(Value("int32")),
    "objectives": List(Value("float32")),
    "oracle_probabilities": List(Value("float32")),
    "rejected_prediction": Value("int32"),
}


def are_whole(records: Sequence[Mapping[str, Any] | None]) -> bool:
    """Return whether no part is missing in the records of a row's attacks: anyone may have written them."""
    return all(record is not None and None not in record.values() for record in records)


@dataclass(frozen=True)
class Column:
    """A column, its type as `datasets` calls it.

    Of the other types, `image`, `label` and `reason` are images and classes, lists hold a value for each step of a row,
    `verdicts` those of each of several judges, `attacks` a record of each of several attacks.
    """

    name: str
    meaning: str  # in words, for the card
    type: Literal[
        "image",
        "label",
        "reason",
        "bool",
        "int32",
        "int64",
        "float32",
        "int32 list",
        "float32 list",
        "verdicts",
        "attacks",
        "string",
    ]
    field: str  # the value of `Perturbed` that it holds
    holds_classes: bool = False  # whether its numbers are those of labels, which is certain only in splits of fmrgen

    def feature(self, label_names: Sequence[str]) -> Any:
        """Return its type as `datasets` has it."""
        if self.type == "image":
            return Image()
        if self.type == "label":
            return ClassLabel(names=list(label_names))
        if self.type == "reason":
            return ClassLabel(names=[reason.value for reason in StopReason])
        if self.type == "verdicts":
            return List({name: Value(kind) for name, kind in VERDICT.items()})
        if self.type == "attacks":
            return List(dict(_ATTACK))
        value, _, is_list = self.type.partition(" ")
        return List(Value(value)) if is_list else Value(value)

    def can_be(self, feature: Any) -> bool:
        """Return whether a column of that name and the type `feature`, in anyone's split, can be read as this one."""
        if self.type == "reason" and isinstance(feature, ClassLabel):
            return True
        inner = feature.feature if isinstance(feature, List) else None
        if self.type == "verdicts":
            return isinstance(inner, dict) and VERDICT.keys() <= inner.keys()
        if self.type == "attacks":
            return inner == _ATTACK
        if self.type == "float32 list":
            return isinstance(inner, Value) and inner.dtype in _FLOATS
        if self.type == "int32 list":
            return isinstance(inner, Value) and inner.dtype in _INTEGERS
        types = {
            "bool": ("bool", *_INTEGERS),
            "float32": _FLOATS,
            "reason": _WORDS,
            "string": _WORDS,
            "label": _INTEGERS + _WORDS,
        }
        return isinstance(feature, Value) and feature.dtype in types.get(self.type, _INTEGERS)


def _column(name: str, type: Any, meaning: str, field: str | None = None, holds_classes: bool = False) -> Column:
    return Column(name, meaning, type, field or name, holds_classes)


_IMAGE = _column(
    "image", "image", "the perturbed image, a PNG, exactly what was judged; the original where `valid` is false"
)
LABEL = _column("label", "label", "the true class")
_ACCEPTED = _column(
    "accepted_labels",
    "int32 list",
    "all classes that are true of it, `label` first; to predict any of them is right",
    holds_classes=True,
)
_ORIGINAL = _column("original", "image", "the source's image at the generator's size, a PNG")
IMAGES = (_IMAGE.name, _ORIGINAL.name)
OF_SOURCE = "extra"  # the field of a row that holds the source's columns
_SCORES = {
    "clip_score": "the oracle's score of the true class on `image`: the cosine of the image and the label's prompt",
    "oracle_score": "the oracle's own score of the true class on `image`",
}


def _columns(score_column: ScoreColumn) -> tuple[Column, ...]:
    return (
        _IMAGE,
        LABEL,
        _ACCEPTED,
        _ORIGINAL,
        _column("id", "int64", "the example's number in its source"),
        _column("valid", "bool", "the oracle accepted at least the first step; only valid rows count in PA"),
        _column("iterations", "int32", "guided steps in `image`"),
        _column(
            "stop_reason",
            "reason",
            "`budget`: every step was accepted; `oracle`: the next one was not; `rejected`: not even the first; "
            "`nonfinite`: no finite step was left; `stuck`: the gradient is zero; `reached`: the objective was above "
            "zero, and the first such image is kept",
        ),
        _column(
            "queries",
            "int32",
            "images of it that the split's own classifier was asked about, all steps together",
        ),
        _column(score_column, "float32", _SCORES[score_column], "score"),
        _column(
            "oracle_probability", "float32", "the oracle's probability of the true class on `image`", "probability"
        ),
        _column(
            "oracle_label", "int32", "what the oracle sees in `image`; -1: none of the classes", holds_classes=True
        ),
        _column("original_oracle_label", "int32", "what the oracle sees in the original", holds_classes=True),
        _column(
            "reconstruction_oracle_label",
            "int32",
            "what the oracle sees in the plain reconstruction, before any step",
            holds_classes=True,
        ),
        _column("prediction", "int32", "prediction of the split's own classifier on `image`", holds_classes=True),
        _column("original_prediction", "int32", "its prediction on the original", holds_classes=True),
        _column("reconstruction_prediction", "int32", "its prediction on the plain reconstruction", holds_classes=True),
        _column("loss", "float32", "its cross-entropy on `image`"),
        _column("latent_shift", "float32", "root mean square of the change of the latent"),
        _column("pixel_shift", "float32", "root mean square of the change of the pixels, of values from 0 to 1"),
        _column(
            "step_predictions",
            "int32 list",
            "its prediction on each image, from the plain reconstruction to the one after the last step",
            holds_classes=True,
        ),
        _column("step_losses", "float32 list", "its cross-entropy on each of them"),
        _column(
            "step_oracle_probabilities",
            "float32 list",
            "the oracle's probability, on each of them, of the class that it is asked for: the true one, or by the "
            "rule `consistent` the one that it saw in the original",
        ),
        _column("step_objectives", "float32 list", "what the steps climb, on each of them"),
        _column(
            "control_predictions",
            "int32 list",
            "its predictions after random steps, at most as many and as long as the oracle accepts them, from "
            "the plain reconstruction on; empty in rows that were not chosen as controls",
            holds_classes=True,
        ),
        _column("control_objectives", "float32 list", "what the guided steps climb, on each of these"),
        _column(
            "rejected_prediction",
            "int32",
            "its prediction on the image after the step that the oracle rejected; -1: it rejected none",
            holds_classes=True,
        ),
        _column(
            "rejected_oracle_label",
            "int32",
            "what the oracle saw in that image instead; -1: none",
            holds_classes=True,
        ),
        _column(
            "attack",
            "int32",
            "the attack that made `image`, by its number in the recipe's list, from 0",
        ),
        _column(
            "attacks",
            "attacks",
            "each attack on the original, up to the first that fools: why it ended, its predictions, what its steps "
            "climb and the oracle's probability at every step, and the prediction on the image that the oracle "
            "rejected; `step_…`, `stop_reason` and `rejected_…` are those of the attack that made `image`",
        ),
        _column(
            "judges",
            "verdicts",
            "what each member of the oracle, a panel, sees in `image`: its label (-1: none of the classes), and its "
            "probability and own score of the true class",
            field="",
            holds_classes=True,
        ),
    )


@dataclass(frozen=True)
class Schema:
    """The columns of one split, in their order."""

    label_names: tuple[str, ...]
    keep_original: bool = True
    score_column: ScoreColumn = "clip_score"
    judges: tuple[str, ...] = ()  # the members of the oracle if that is a panel; else there is no such column
    accepts_several: bool = False  # whether its source names all true labels of each example; else no `accepted_labels`
    attacks: int = 1  # how many an image goes through; the columns `attack` and `attacks` are there if several
    source_columns: Mapping[str, str] = field(default_factory=dict)  # with their types; behind all others

    @property
    def columns(self) -> list[Column]:
        is_stored = {
            _ORIGINAL.name: self.keep_original,
            "judges": bool(self.judges),
            _ACCEPTED.name: self.accepts_several,
            "attack": self.attacks > 1,
            "attacks": self.attacks > 1,
        }
        columns = []
        for column in _columns(self.score_column):
            if is_stored.get(column.name, True):
                columns.append(column)
        for name, type in self.source_columns.items():
            columns.append(_column(name, type, "as the source has it", field=OF_SOURCE))
        return columns

    def verdicts(self, row: Perturbed) -> list[dict[str, Any]]:
        """Return the value of the column `judges`: a verdict of each member."""
        members = zip(self.judges, row.member_labels, row.member_probabilities, row.member_scores, strict=True)
        return [dict(zip(VERDICT, verdict, strict=True)) for verdict in members]

    @property
    def features(self) -> Features:
        return Features({column.name: column.feature(self.label_names) for column in self.columns})

    def name_of(self, field: str) -> str:
        """Return the name of the column that holds a value of `Perturbed`."""
        return next(column.name for column in self.columns if column.field == field)


# The columns that anyone's split may have besides its images and labels.
KNOWN_COLUMNS: dict[str, Column] = {}
OWN_COLUMNS: set[str] = set()  # all that are not the source's
for _score_column in SCORE_COLUMNS:
    for _known_column in _columns(_score_column):
        OWN_COLUMNS.add(_known_column.name)
        if _known_column.name not in (*IMAGES, LABEL.name):
            KNOWN_COLUMNS[_known_column.name] = _known_column
