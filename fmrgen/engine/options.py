"""The options of Algorithm 1: the `perturb` section of a recipe, which the engine takes as it is."""

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin

from fmrgen.errors import unknown_message

WITHOUT_GRADIENT = ("random", "nes", "boundary")  # update rules for classifiers that have no gradient
ALONG_GRADIENT = ("sign", "l2", "adam")  # update rules that follow the gradient without checking where it leads
# Questions in a step on top of `queries`, at most, of each rule that asks the classifier.
_EXTRA_QUERIES = {"nes": 0, "prior": 2, "boundary": 27}
_MOST_STEPS = 1_000_000
_MOST_SLOTS = 65_536
_MOST_QUERIES = 10_000
_MOST_CONTROLS = 1_000_000
# With `control: auto`.
_AUTO_CONTROLS = 64  # rows at most
_AUTO_CONTROLS_PERCENT = 8  # of the rows at most
_FEWEST_CONTROLLED = 200  # rows of a split; a smaller one gets no control


def _option(default: Any, description: str, *, since: str | None = None) -> Any:
    """Return a field of the options; a recipe from before version `since` lacks it, which means its default."""
    metadata = {"description": description}
    if since:
        metadata["since"] = since
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class PerturbOptions:
    """The options of Algorithm 1 (paper §3.1, §4.1).

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    budget: int = _option(50, "B: the most guided steps per image (a number of steps, not a norm bound)")
    step_size: float = _option(0.001, "length of one step, in latent units")
    update: Literal["sign", "l2", "adam", "nes", "prior", "boundary", "random"] = _option(
        "sign",
        "how a step's direction follows from the gradient; nes estimates one from answers, prior from the gradient "
        "too, as far as answers bear it out, boundary from labels alone; random is the control",
    )
    queries: int = _option(
        40,
        "questions to the classifier for a step of nes, of prior (and 2 more) or of boundary (and up to 27 more); even",
        since="0.2.0",
    )
    objective: Literal["margin", "cross_entropy", "targeted"] = _option(
        "margin",
        "what a step climbs: the best other class's lead over the true one, which does not depend on the "
        "logits' temperature, or the cross-entropy; targeted: the lead of one class over all others",
        since="0.2.0",
    )
    target: int | Literal["runner_up", "least_likely"] = _option(
        "runner_up",
        "that class of targeted: a class's number, or what the classifier finds second or least likely in the original "
        "(of an image of the class itself, the second)",
        since="0.2.0",
    )
    keep: Literal["last", "first"] = _option(
        "last",
        "store the last image that is accepted, or the first at which the objective is above zero: the least change",
        since="0.2.0",
    )
    start: Literal["none", "fgsm", "pgd"] = _option(
        "none",
        "encode the original as it is, or after an attack on its pixels (App. E); the stored "
        "original is the source's either way",
        since="0.2.0",
    )
    start_epsilon: float = _option(
        0.003, "largest change of a pixel by that attack, of values from 0 to 1", since="0.2.0"
    )
    start_noise: float = _option(
        0.0, "standard deviation of the noise that the first step adds, in latent units", since="0.2.0"
    )
    reencode: bool = _option(False, "encode the last image anew before each step, the literal g(x_t-1)")
    oracle_rule: Literal["label", "consistent"] = _option(
        "label", "accept h(x_t) = y (Algorithm 1), or h(x_t) = h(x) where the oracle itself is weak"
    )
    min_probability: float = _option(
        0.0, "accept only where the oracle gives that class at least this probability", since="0.2.0"
    )
    min_margin: float = _option(0.0, "and at least this much more than any other class", since="0.2.0")
    control: int | Literal["auto"] = _option(
        "auto",
        "rows that also get as many random steps, without asking the classifier; auto: 64, at most 8 % "
        "of the rows, and none if there are fewer than 200",
        since="0.2.0",
    )
    seed: int = _option(0, "seeds everything random, together with the example's id")
    slots: int | Literal["auto"] = _option(
        32, "images in flight on each process, or auto: found by timing; changes no result"
    )
    precision: Literal["fp32", "bf16"] = _option("fp32", "of generator and classifier; the oracle always runs in fp32")
    compile: bool = _option(False, "run generator and classifier through torch.compile")

    def __post_init__(self) -> None:
        for option in fields(self):
            _check_type(option.name, getattr(self, option.name), option.type)
        self._check_steps()
        self._check_start()
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, it is {self.seed}")
        if self.control != "auto" and not 0 <= self.control <= _MOST_CONTROLS:
            raise ValueError(f"control must be auto or from 0 to {_MOST_CONTROLS:,}, not {self.control}")
        if self.control not in ("auto", 0) and not self.can_be_controlled:
            raise ValueError(
                "control compares guided steps from one encoding: leave it out with update random or reencode"
            )
        if self.slots != "auto" and not 1 <= self.slots <= _MOST_SLOTS:
            raise ValueError(f"slots must be auto or from 1 to {_MOST_SLOTS:,}, not {self.slots}")

    def _check_steps(self) -> None:
        """Raise ValueError if an option of what a step does, or of when its image is accepted, is out of range."""
        if not 1 <= self.budget <= _MOST_STEPS:
            raise ValueError(f"budget must be from 1 to {_MOST_STEPS:,} steps, not {self.budget}")
        if not (self.step_size > 0 and math.isfinite(self.step_size)):
            raise ValueError(f"step_size must be a positive number, not {self.step_size}")
        if not isinstance(self.target, str) and self.target < 0:
            raise ValueError(f"target must be a class's number, runner_up or least_likely, not {self.target}")
        if not 2 <= self.queries <= _MOST_QUERIES or self.queries % 2:
            raise ValueError(f"queries must be an even number from 2 to {_MOST_QUERIES:,}, not {self.queries}")
        for name in ("min_probability", "min_margin"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be from 0 to less than 1, not {getattr(self, name)}")

    def _check_start(self) -> None:
        if not (self.start_noise >= 0 and math.isfinite(self.start_noise)):
            raise ValueError(f"start_noise must not be negative, it is {self.start_noise}")
        if not 0 < self.start_epsilon <= 1:
            raise ValueError(f"start_epsilon must be above 0 and at most 1, it is {self.start_epsilon}")

    @property
    def is_guided(self) -> bool:
        """Whether the first step is along the gradient, without noise."""
        return self.follows_gradient and not self.start_noise

    @property
    def follows_gradient(self) -> bool:
        """Whether a step is along the gradient, without checking where it leads."""
        return self.update in ALONG_GRADIENT

    @property
    def can_be_controlled(self) -> bool:
        """Whether steps are guided, and all steps of a row start from one encoding."""
        return self.update != "random" and not self.reencode

    @property
    def most_queries(self) -> int:
        """The most images that the classifier is asked about for one example: the original, the plain reconstruction,
        the image of each step, and the questions of each step."""
        passes = 2 * self.budget if self.reencode else self.budget + 1
        questions = 0
        if self.update in _EXTRA_QUERIES:
            questions = self.queries + _EXTRA_QUERIES[self.update]
        return 1 + passes + self.budget * questions

    def is_controlled(self, position: int, examples: int) -> bool:
        """Return whether the example at `position` of so many gets random steps too; these are spread evenly."""
        if self.control != "auto":
            controls = min(self.control, examples)
        elif self.can_be_controlled and examples >= _FEWEST_CONTROLLED:
            controls = min(_AUTO_CONTROLS, examples * _AUTO_CONTROLS_PERCENT // 100)
        else:
            controls = 0
        return (position + 1) * controls // examples > position * controls // examples


def _check_type(name: str, value: object, kind: Any) -> None:
    """Raise ValueError if the value is not of the type `kind`; the message names the nearest known word."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(unknown_message(f"{name} {value!r}", value, get_args(kind)))
    elif kind is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False, not {value!r}")
    else:
        _check_number(name, value, kind)


def _check_number(name: str, value: object, kind: Any) -> None:
    """Raise ValueError if the value does not fit `float`, `int` or `int | Literal[…]`."""
    words: list[str] = []
    for alternative in get_args(kind):
        words += get_args(alternative)  # int has none, Literal its words
    is_number = isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
    if not is_number and value not in words:
        wanted = " or ".join(["a number" if kind is float else "an integer", *words])
        raise ValueError(f"{name} must be {wanted}, not {value!r}")
