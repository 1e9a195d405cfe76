"""What is claimed to fail: a kind of real images, or one mistake on them.

Importing this brings no torch: claims on classes and columns need none.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fmrgen.apps.release.certificate import SCHEMA, Certificate, Cut
from fmrgen.apps.release.predictions import Predictions, few
from fmrgen.errors import UserError, near_name
from fmrgen.files import of_schema, read_json

if TYPE_CHECKING:
    from fmrgen.apps.explain.attributes import Attribute
    from fmrgen.apps.explain.interventions import Hypothesis

_EXPLANATION = re.compile(r"(?P<path>.+\.json)(?::(?P<number>\d+))?")
_CONDITION = re.compile(r"(?P<column>[^<>=!]+?)\s*(?P<comparison><=|>=|!=|<|>|=)\s*(?P<bound>[^<>=!]+)")
_SENTENCE = re.compile(r"changed to (?P<words>.+?) \(")
_ARROW = re.compile(r"\s*(?:→|->)\s*")
_CLASS = "class "
_NUMBERS: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_SHOWN = 5  # names in an error

Measure = Callable[["Attribute"], np.ndarray]


@dataclass(frozen=True)
class Condition:
    """A column of the images, or an attribute that `explain` measures, compared with a value: `width < 30`."""

    column: str
    comparison: str
    bound: str

    def holds(self, values: np.ndarray) -> np.ndarray:
        """Return where it holds, bool [N]. Raises UserError if values that need an order are no numbers."""
        if self.comparison in ("=", "!="):
            is_equal = np.array([str(value) == self.bound for value in values])
            return is_equal if self.comparison == "=" else ~is_equal
        try:
            numbers, bound = values.astype(float), float(self.bound)
        except (TypeError, ValueError):
            raise UserError(
                f"claim: {self.column} {self.comparison} {self.bound} compares what is no number; use = or !="
            ) from None
        is_within: np.ndarray = _NUMBERS[self.comparison](numbers, bound)
        return is_within


class Kind(NamedTuple):
    """Which images are of a kind, bool [N], and by what cut if they were measured."""

    rows: np.ndarray
    cut: Cut | None = None


@dataclass(frozen=True)
class Claim:
    """A kind of images, or a mistake on them, of which OLD is said to make too many; one of the fields says which.

    Attributes:
        words: how a report names it.
        label: the true class, of a claim on a class or a pair.
        answer: of a pair, the class that OLD takes it for; only this mistake counts then.
        condition: of a claim on a column.
        hypothesis: of a claim on an attribute.
        cut: of a claim that an earlier certificate was about; a new claim on an attribute makes its own.
        folder: of a claim on images that somebody collected.
        class_names: of the split that a finding is from; empty for others.
    """

    words: str
    label: str | None = None
    answer: str | None = None
    condition: Condition | None = None
    hypothesis: "Hypothesis | None" = None
    cut: Cut | None = None
    folder: str | None = None
    class_names: tuple[str, ...] = ()

    @property
    def column(self) -> str | None:
        """The column of the images that it needs; None if it needs none."""
        if self.condition is None or _attribute_named(self.condition.column) is not None:
            return None
        return self.condition.column

    def of_kind(self, old: Predictions, measure: Measure) -> Kind:
        """Return which images are of the kind.

        Args:
            old: what OLD says of them.
            measure: returns what an attribute measures in each, [N].

        Raises:
            UserError: none or all are, or what it compares is not there.
        """
        classes = set(old.labels.tolist())
        for name in (self.label, self.answer):
            if name is not None and name not in classes | set(old.answers.tolist()):
                raise UserError(_no_class(name, sorted(classes)))
        if self.class_names and not classes & set(self.class_names):
            raise UserError(
                "claim: the finding is of another split: its classes are "
                f"{few(sorted(self.class_names), _SHOWN)}, and those of the images {few(sorted(classes), _SHOWN)}"
            )
        kind = self._kind(old, measure)
        if not kind.rows.any():
            raise UserError(f"claim: none of the {len(old):,} images is of the kind {self.words}; add some")
        if kind.rows.all() and self.answer is None:
            raise UserError(f"claim: all {len(old):,} images are of the kind {self.words}; add others")
        return kind

    def _kind(self, old: Predictions, measure: Measure) -> Kind:
        if self.label is not None:
            return Kind(old.labels == self.label)
        if self.hypothesis is not None:
            measures = measure(self.hypothesis.attribute)
            cut = self.cut or Cut.of_most(measures, self.hypothesis.sign)
            return Kind(cut.holds(measures), cut)
        if self.condition is None:
            raise UserError(f"claim: {self.folder} has images, and there are predictions alone; name two classifiers")
        if self.condition.column in old.columns:
            return Kind(self.condition.holds(old.columns[self.condition.column]))
        attribute = _attribute_named(self.condition.column)
        if attribute is None:
            columns = ", ".join(old.columns) or "none"
            raise UserError(f"claim: there is no column {self.condition.column} (there are: {columns})")
        return Kind(self.condition.holds(measure(attribute)))


def read_claim(text: str) -> Claim:
    """Return a claim from its words.

    Args:
        text: a sentence of `explain`, as `explained/explain.json` (its first; `…:2` its second) or as it is printed, or
            words of an attribute (`smaller shapes`); a class or a pair of a diff (`class stop`, `yield → stop`); a
            condition (`width < 30`); a folder of labelled images; or a `certificate.json`, to ask about the same kind
            again.

    Raises:
        UserError: it is something else.
    """
    text = text.strip()
    if Path(text).is_dir():
        return Claim(f"images of {Path(text).name}", folder=text)
    if explanation := _EXPLANATION.fullmatch(text):
        return _of_explanation(Path(explanation["path"]), int(explanation["number"] or 1))
    if sentence := _SENTENCE.search(text):
        text = sentence["words"]
    if _ARROW.search(text):
        label, answer = (word.removeprefix(_CLASS) for word in _ARROW.split(text, maxsplit=1))
        return Claim(f"{label} taken for {answer}", label=label, answer=answer)
    if text.startswith(_CLASS):
        return Claim(text, label=text.removeprefix(_CLASS))
    if condition := _CONDITION.fullmatch(text):
        return Claim(text, condition=Condition(**condition.groupdict()))
    from fmrgen.apps.explain.interventions import hypothesis_of

    hypothesis = hypothesis_of(text)
    if hypothesis is None:
        raise UserError(
            f"claim: {text!r} is no kind of images; write words of explain (smaller shapes), class NAME, "
            "CLASS → ANSWER, COLUMN < VALUE, or the path of a folder or an explain.json"
        )
    return Claim(text, hypothesis=hypothesis)


def _of_explanation(path: Path, number: int) -> Claim:
    """Return the claim that a sentence of an explanation makes, or that a certificate was about."""
    from fmrgen.apps.explain.interventions import hypothesis_of
    from fmrgen.apps.explain.report import read_explanation

    tree = read_json(path)
    if tree.get("schema") == SCHEMA:
        return _of_certificate(path, tree)
    explanation = read_explanation(path)
    if not 1 <= number <= len(explanation.reported):
        raise UserError(f"{path}: has {len(explanation.reported)} findings; there is no number {number}")
    finding = explanation.reported[number - 1]
    hypothesis = hypothesis_of(finding.words)
    if hypothesis is None:
        raise UserError(
            f"{path}: {finding.words!r} is an attribute of your own, which can't be measured here; put real images of "
            "that kind into a folder, and claim that"
        )
    return Claim(finding.words, hypothesis=hypothesis, class_names=tuple(name for name, _, _ in finding.classes))


def _of_certificate(path: Path, tree: Mapping[str, Any]) -> Claim:
    """Return the claim of an earlier certificate, with the cut by which its images were of the kind."""
    from fmrgen.apps.explain.interventions import hypothesis_of

    certificate = of_schema(Certificate, SCHEMA, tree, str(path))
    hypothesis = hypothesis_of(certificate.claim)
    if hypothesis is None or certificate.cut is None:
        raise UserError(f"{path}: its kind of images was not measured; write the same claim again")
    return Claim(certificate.claim, hypothesis=hypothesis, cut=certificate.cut)


def _no_class(name: str, classes: Sequence[str]) -> str:
    near = near_name(name, classes)
    hint = f"there are {few(classes, _SHOWN)}" if near is None else f"did you mean {near}?"
    return f"claim: there is no class {name!r}; {hint}"


def _attribute_named(name: str) -> "Attribute | None":
    from fmrgen.apps.explain.attributes import BY_NAME

    return BY_NAME.get(name)
