"""The options of Algorithm 1: the `perturb` section of a recipe, which the engine takes as it is."""

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_origin

from fmrgen.errors import UserError, unknown_message

WITHOUT_GRADIENT = ("random", "nes")  # update rules for classifiers that have no gradient
ALONG_GRADIENT = ("sign", "l2", "adam")  # update rules that follow the gradient without checking where it leads
_MOST_STEPS = 1_000_000
_MOST_ATTACKS = 100
_OF_AN_ATTACK = ("update", "objective", "target", "start_noise")  # options that each attack of a list has itself
_MOST_SLOTS = 65_536
_MOST_QUERIES = 10_000
_MOST_CONTROLS = 1_000_000
# With `control: auto`.
_AUTO_CONTROLS = 64  # rows at most
_AUTO_CONTROLS_PERCENT = 8  # of the rows at most
_FEWEST_CONTROLLED = 200  # rows of a split; a smaller one gets no control


Rule = Literal["sign", "l2", "adam", "nes", "random"]
Objective = Literal["margin", "cross_entropy", "targeted"]
Target = int | Literal["runner_up", "third", "fourth", "least_likely"]


def _option(default: Any, description: str) -> Any:
    return field(default=default, metadata={"description": description})


def _check_types(options: Any) -> None:
    """Raise ValueError if a field of the dataclass `options` is not of its type; the message names the nearest word."""
    for option in fields(options):
        name, value, kind = option.name, getattr(options, option.name), option.type
        if name == "attacks":
            _check_attack_list(value)
        elif get_origin(kind) is Literal:
            if value not in get_args(kind):
                raise ValueError(unknown_message(f"{name} {value!r}", value, get_args(kind)))
        elif kind is bool:
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be True or False, not {value!r}")
        else:
            _check_number(name, value, kind)


def _check_target(target: Target) -> None:
    if not isinstance(target, str) and target < 0:
        words = ", ".join(get_args(get_args(Target)[1]))
        raise ValueError(f"target must be a class's number or one of {words}, not {target}")


def _check_attack_list(value: object) -> None:
    """Raise ValueError unless it is the name of an ensemble, or attacks."""
    if isinstance(value, str):
        names = ("one", *ENSEMBLES)
        if value not in names:
            raise ValueError(unknown_message(f"attacks {value!r}", value, names))
    elif not isinstance(value, (list, tuple)) or not all(isinstance(attack, AttackOptions) for attack in value):
        raise ValueError("attacks must be one, standard, thorough, or a list of AttackOptions")


def _check_number(name: str, value: object, kind: Any) -> None:
    """Raise ValueError if the value does not fit `float` or `int`, alone or with `| Literal[…]`."""
    words: list[str] = []
    for alternative in get_args(kind):
        words += get_args(alternative)  # int has none, Literal its words
    is_float = float in (kind, *get_args(kind))
    is_number = isinstance(value, (int, float) if is_float else int) and not isinstance(value, bool)
    if not is_number and value not in words:
        wanted = " or ".join(["a number" if is_float else "an integer", *words])
        raise ValueError(f"{name} must be {wanted}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class AttackOptions:
    """One attack of an ensemble: a run of Algorithm 1 with a rule, an objective, a start and a step of its own.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    update: Rule = _option("sign", "how a step's direction follows from the gradient")
    objective: Objective = _option("margin", "what a step climbs")
    target: Target = _option("runner_up", "the class of targeted")
    step: float = _option(1.0, "length of one step, in units of perturb.step_size")
    noise: float = _option(0.0, "standard deviation of the noise that its first step adds, in the same units")

    def __post_init__(self) -> None:
        _check_types(self)
        if not (self.step > 0 and math.isfinite(self.step)):
            raise ValueError(f"step must be a positive number, not {self.step}")
        if not (self.noise >= 0 and math.isfinite(self.noise)):
            raise ValueError(f"noise must not be negative, it is {self.noise}")
        _check_target(self.target)

    @property
    def name(self) -> str:
        """What distinguishes it, in a few words, such as `l2 targeted third, noise 4`."""
        return attack_name(self.update, self.objective, self.target, self.step, self.noise)


def attack_name(update: str, objective: str, target: int | str, step: float, noise: float) -> str:
    """Return the name of an attack with these options: those that are not the defaults, after its rule."""
    words = [update]
    if objective != "margin":
        words.append(objective.replace("_", "-"))
    if objective == "targeted":
        words.append(str(target))
    text = " ".join(words)
    if step != 1:
        text += f", step {step:g}"
    if noise:
        text += f", noise {noise:g}"
    return text


# Of twenty attacks, five of different kinds that find most for their passes, chosen on training digits against five
# networks, and seven more. The last two are of the strongest kind: whether FMR has converged is read off them. Such
# restarts alone find more, but also more of the oracle's mistakes (docs: Several attacks).
_STANDARD = (
    AttackOptions(),
    AttackOptions(update="l2", noise=8.0),
    AttackOptions(objective="targeted", target="fourth"),
    AttackOptions(noise=16.0),
    AttackOptions(noise=16.0),
)
_MORE = (
    AttackOptions(step=2.0, noise=8.0),
    AttackOptions(update="l2", objective="targeted", target="third", noise=4.0),
    AttackOptions(objective="cross_entropy", noise=8.0),
    AttackOptions(noise=2.0),
    AttackOptions(step=2.0, noise=16.0),
    AttackOptions(noise=16.0),
    AttackOptions(noise=16.0),
)
ENSEMBLES: dict[str, tuple[AttackOptions, ...]] = {"standard": _STANDARD, "thorough": _STANDARD + _MORE}


@dataclass(frozen=True, kw_only=True)
class PerturbOptions:
    """The options of Algorithm 1 (paper §3.1, §4.1).

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    budget: int = _option(50, "B: the most guided steps per image (a number of steps, not a norm bound)")
    step_size: float | Literal["auto"] = _option(
        0.001, "length of one step, in latent units; auto: found on 32 images of the source when a job begins"
    )
    update: Rule = _option(
        "sign",
        "how a step's direction follows from the gradient; nes estimates one from the classifier's outputs; random is "
        "the control",
    )
    queries: int = _option(
        40,
        "queries of the classifier for a step of nes; even",
    )
    objective: Objective = _option(
        "margin",
        "what a step climbs: the best other class's lead over the true one, which does not depend on the "
        "logits' temperature, or the cross-entropy; targeted: the lead of one class over all others",
    )
    target: Target = _option(
        "runner_up",
        "that class of targeted: a class's number, or the likeliest false class of the original (runner_up), the one "
        "after it (third), the next (fourth) or the least likely; images of the class itself go to the runner_up",
    )
    attacks: Literal["one", "standard", "thorough"] | tuple[AttackOptions, ...] = _option(
        "one",
        "how often an image is attacked: one run, the paper's Algorithm 1 with the options above; or several, of which "
        "the worst accepted image is stored: standard (5 attacks), thorough (12), or a list",
    )
    keep: Literal["last", "first"] = _option(
        "last",
        "store the last image that is accepted, or the first at which the objective is above zero: the least change",
    )
    start: Literal["none", "fgsm", "pgd"] = _option(
        "none",
        "encode the original as it is, or after an attack on its pixels (App. E); the stored "
        "original is the source's either way",
    )
    start_epsilon: float = _option(0.003, "largest change of a pixel by that attack, of values from 0 to 1")
    start_noise: float = _option(0.0, "standard deviation of the noise that the first step adds, in latent units")
    reencode: bool = _option(False, "encode the last image anew before each step, the literal g(x_t-1)")
    oracle_rule: Literal["label", "consistent", "none"] = _option(
        "label",
        "accept h(x_t) = y (Algorithm 1), or h(x_t) = h(x) where the oracle itself is weak, or every image (none): a "
        "control without the oracle",
    )
    min_probability: float = _option(0.0, "accept only where the oracle gives that class at least this probability")
    min_margin: float = _option(0.0, "and at least this much more than any other class")
    control: int | Literal["auto"] = _option(
        "auto",
        "rows that also get as many random steps, without asking the classifier; auto: 64, at most 8 % "
        "of the rows, and none if there are fewer than 200",
    )
    seed: int = _option(0, "seeds everything random, together with the example's id")
    slots: int | Literal["auto"] = _option(
        32, "images in flight on each process, or auto: found by timing; changes no result"
    )
    precision: Literal["fp32", "bf16"] = _option("fp32", "of generator and classifier; the oracle always runs in fp32")
    compile: bool = _option(False, "run generator and classifier through torch.compile")

    def __post_init__(self) -> None:
        _check_types(self)
        self._check_attacks()
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
        if self.step_size != "auto" and not (self.step_size > 0 and math.isfinite(self.step_size)):
            raise ValueError(f"step_size must be auto or a positive number, not {self.step_size}")
        _check_target(self.target)
        if not 2 <= self.queries <= _MOST_QUERIES or self.queries % 2:
            raise ValueError(f"queries must be an even number from 2 to {_MOST_QUERIES:,}, not {self.queries}")
        for name in ("min_probability", "min_margin"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be from 0 to less than 1, not {getattr(self, name)}")
            if getattr(self, name) and self.oracle_rule == "none":
                raise ValueError(f"oracle_rule none accepts every image: set {name} to 0")

    def _check_start(self) -> None:
        if not (self.start_noise >= 0 and math.isfinite(self.start_noise)):
            raise ValueError(f"start_noise must not be negative, it is {self.start_noise}")
        if not 0 < self.start_epsilon <= 1:
            raise ValueError(f"start_epsilon must be above 0 and at most 1, it is {self.start_epsilon}")

    def _check_attacks(self) -> None:
        """Expand the name of an ensemble, so that a recipe records its attacks. Raise ValueError if it can't be run."""
        if self.attacks == "one":
            return
        attacks = ENSEMBLES[self.attacks] if isinstance(self.attacks, str) else tuple(self.attacks)
        if not 2 <= len(attacks) <= _MOST_ATTACKS:
            raise ValueError(f"attacks must be one, or a list of 2 to {_MOST_ATTACKS}, not {len(attacks)}")
        object.__setattr__(self, "attacks", attacks)
        for name in _OF_AN_ATTACK:
            if getattr(self, name) != self.__dataclass_fields__[name].default:
                raise ValueError(f"{name} belongs to each attack of a list: leave it out, or set attacks to one")
        if self.reencode:
            raise ValueError("several attacks start from one encoding: leave out reencode, or set attacks to one")

    @property
    def runs(self) -> tuple["PerturbOptions", ...]:
        """The options of each run of Algorithm 1 that an image goes through, in their order."""
        if isinstance(self.attacks, str):
            return (self,)
        runs = []
        for attack in self.attacks:
            run = replace(
                self,
                attacks="one",
                update=attack.update,
                objective=attack.objective,
                target=attack.target,
                step_size=attack.step * self.step,
                start_noise=attack.noise * self.step,
            )
            runs.append(run)
        return tuple(runs)

    @property
    def step(self) -> float:
        """The step size as a number. Raises UserError if a job has yet to find it."""
        if self.step_size == "auto":
            raise UserError("perturb.step_size: auto is found by `fmrgen generate`; give a number here")
        return self.step_size

    @property
    def can_be_controlled(self) -> bool:
        """Whether steps of the first run are guided, and all steps of a row start from one encoding."""
        return self.runs[0].update != "random" and not self.reencode

    @property
    def most_queries(self) -> int:
        """The most images that the classifier is asked about for one example: the original, and in each run the plain
        reconstruction, the image of each step, and the queries of each step."""
        passes = 2 * self.budget if self.reencode else self.budget + 1
        queries = 1
        for run in self.runs:
            queries += passes + self.budget * (self.queries if run.update == "nes" else 0)
        return queries

    def is_controlled(self, position: int, examples: int) -> bool:
        """Return whether the example at `position` of so many gets random steps too; these are spread evenly."""
        if self.control != "auto":
            controls = min(self.control, examples)
        elif self.can_be_controlled and examples >= _FEWEST_CONTROLLED:
            controls = min(_AUTO_CONTROLS, examples * _AUTO_CONTROLS_PERCENT // 100)
        else:
            controls = 0
        return (position + 1) * controls // examples > position * controls // examples


def objectives_of(options: PerturbOptions) -> tuple[str, ...]:
    """Return the objectives of all runs, each once, in the order of the runs."""
    return tuple(dict.fromkeys(run.objective for run in options.runs))
