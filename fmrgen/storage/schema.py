"""The columns of a perturbed split: names, types, contents and their origin. Only this module defines them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import ClassLabel, Features, Image, List, Value

from fmrgen.records import StopReason

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
    type: str
    meaning: str  # in words, for the card
    field: str = ""  # the value of `Perturbed` that it holds, if that has another name
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
        value, _, is_list = self.type.partition(" ")
        stored = inner if is_list else feature
        types = {
            "bool": ("bool", *_INTEGERS),
            "float32": _FLOATS,
            "reason": _WORDS,
            "string": _WORDS,
            "label": _INTEGERS + _WORDS,
        }
        return isinstance(stored, Value) and stored.dtype in types.get(value, _INTEGERS)


LABEL = Column("label", "label", "the true class")
IMAGES = ("image", "original")
OF_SOURCE = "extra"  # the field of a row that holds the source's columns
_COLUMNS = (
    Column(
        "image", "image", "the perturbed image, a PNG, exactly what was judged; the original where `valid` is false"
    ),
    LABEL,
    Column(
        "accepted_labels",
        "int32 list",
        "all classes that are true of it, `label` first; to predict any of them is right",
        holds_classes=True,
    ),
    Column("original", "image", "the source's image at the generator's size, a PNG"),
    Column("id", "int64", "the example's number in its source"),
    Column("valid", "bool", "the oracle accepted at least the first step; only valid rows count in PA"),
    Column("iterations", "int32", "guided steps in `image`"),
    Column(
        "stop_reason",
        "reason",
        "`budget`: every step was accepted; `oracle`: the next one was not; `rejected`: not even the first; "
        "`nonfinite`: no finite step was left; `stuck`: the gradient is zero; `reached`: the objective was above "
        "zero, and the first such image is kept",
    ),
    Column("queries", "int32", "images of it that the split's own classifier was asked about, all steps together"),
    Column(
        "clip_score",
        "float32",
        "the oracle's score of the true class on `image`: the cosine of the image and the label's prompt",
        "score",
    ),
    Column("oracle_score", "float32", "the oracle's own score of the true class on `image`", "score"),
    Column("oracle_probability", "float32", "the oracle's probability of the true class on `image`", "probability"),
    Column("oracle_label", "int32", "what the oracle sees in `image`; -1: none of the classes", holds_classes=True),
    Column("original_oracle_label", "int32", "what the oracle sees in the original", holds_classes=True),
    Column(
        "reconstruction_oracle_label",
        "int32",
        "what the oracle sees in the plain reconstruction, before any step",
        holds_classes=True,
    ),
    Column("prediction", "int32", "prediction of the split's own classifier on `image`", holds_classes=True),
    Column("original_prediction", "int32", "its prediction on the original", holds_classes=True),
    Column("reconstruction_prediction", "int32", "its prediction on the plain reconstruction", holds_classes=True),
    Column("loss", "float32", "its cross-entropy on `image`"),
    Column("latent_shift", "float32", "root mean square of the change of the latent"),
    Column("pixel_shift", "float32", "root mean square of the change of the pixels, of values from 0 to 1"),
    Column(
        "step_predictions",
        "int32 list",
        "its prediction on each image, from the plain reconstruction to the one after the last step",
        holds_classes=True,
    ),
    Column("step_losses", "float32 list", "its cross-entropy on each of them"),
    Column(
        "step_oracle_probabilities",
        "float32 list",
        "the oracle's probability, on each of them, of the class that it is asked for: the true one, or by the "
        "rule `consistent` the one that it saw in the original",
    ),
    Column("step_objectives", "float32 list", "what the steps climb, on each of them"),
    Column(
        "control_predictions",
        "int32 list",
        "its predictions after random steps, at most as many and as long as the oracle accepts them, from "
        "the plain reconstruction on; empty in rows that were not chosen as controls",
        holds_classes=True,
    ),
    Column("control_objectives", "float32 list", "what the guided steps climb, on each of these"),
    Column(
        "rejected_prediction",
        "int32",
        "its prediction on the image after the step that the oracle rejected; -1: it rejected none",
        holds_classes=True,
    ),
    Column("rejected_oracle_label", "int32", "what the oracle saw in that image instead; -1: none", holds_classes=True),
    Column("attack", "int32", "the attack that made `image`, by its number in the recipe's list, from 0"),
    Column(
        "attacks",
        "attacks",
        "each attack on the original, up to the first that fools: why it ended, its predictions, what its steps "
        "climb and the oracle's probability at every step, and the prediction on the image that the oracle "
        "rejected; `step_…`, `stop_reason` and `rejected_…` are those of the attack that made `image`",
    ),
    Column(
        "judges",
        "verdicts",
        "what each member of the oracle, a panel, sees in `image`: its label (-1: none of the classes), and its "
        "probability and own score of the true class",
        holds_classes=True,
    ),
)
OWN_COLUMNS = {column.name for column in _COLUMNS}  # all that are not the source's
# The columns that anyone's split may have besides its images and labels.
KNOWN_COLUMNS = {column.name: column for column in _COLUMNS if column.name not in (*IMAGES, LABEL.name)}


@dataclass(frozen=True)
class Schema:
    """The columns of one split, in their order."""

    label_names: tuple[str, ...]
    keep_original: bool = True
    score_column: str = "clip_score"  # of image-text oracles; `oracle_score` of others
    judges: tuple[str, ...] = ()  # the members of the oracle if that is a panel; else there is no such column
    accepts_several: bool = False  # whether its source names all true labels of each example; else no `accepted_labels`
    attacks: int = 1  # how many an image goes through; the columns `attack` and `attacks` are there if several
    source_columns: Mapping[str, str] = field(default_factory=dict)  # with their types; behind all others

    @property
    def columns(self) -> list[Column]:
        is_stored = {
            "original": self.keep_original,
            "accepted_labels": self.accepts_several,
            "clip_score": self.score_column == "clip_score",
            "oracle_score": self.score_column == "oracle_score",
            "judges": bool(self.judges),
            "attack": self.attacks > 1,
            "attacks": self.attacks > 1,
        }
        columns = [column for column in _COLUMNS if is_stored.get(column.name, True)]
        for name, type in self.source_columns.items():
            columns.append(Column(name, type, "as the source has it", OF_SOURCE))
        return columns

    @property
    def features(self) -> Features:
        return Features({column.name: column.feature(self.label_names) for column in self.columns})

    def name_of(self, field: str) -> str:
        """Return the name of the column that holds a value of `Perturbed`."""
        return next(column.name for column in self.columns if field in (column.name, column.field))
