"""What a new checkpoint broke: each image is moved to where the old network is right and the new one wrong, and the
reverse, for as long as the oracle sees its class."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from scipy.stats import binomtest

from fmrgen.apps.release.conditions import compare_on_recipe
from fmrgen.config import ComponentConfig
from fmrgen.distributed.launch import Processes, together
from fmrgen.errors import UserError, option
from fmrgen.jobs.compare import JobProgress, no_progress
from fmrgen.jobs.generate import make_split
from fmrgen.metrics.intervals import Estimate, interval_ends, paired_difference, proportion
from fmrgen.metrics.rows import accepted_as_label, as_label
from fmrgen.metrics.sequential_test import ERROR, Condition, bounds, decide
from fmrgen.recipe.job import OutputConfig, Recipe
from fmrgen.recipe.objects import AnyClassifier, classifier_section
from fmrgen.recipe.sections import oracle_config_of
from fmrgen.results.own_splits import rows_of
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import Provenance, read_provenance
from fmrgen.storage.shard_claims import own_shards
from fmrgen.storage.shards import SplitFolder

Verdict = Literal["broke more", "fixed more", "no difference"]
Test = Literal["exact", "sequential"]
BROKE, FIXED = "broke", "fixed"
_ORACLE = "oracle"  # what the recipe's oracle is called in the panels
_TURNS = 20  # in which the shards are made, where it is to stop once it is decided
_VERDICTS: dict[str, Verdict] = {"fail": "broke more", "pass": "fixed more", "undecided": "no difference"}
_COLUMNS = (
    *("id", "label", "accepted_labels", "valid", "prediction", "loss", "judges", "latent_shift", "control_predictions"),
    *("original_prediction", "reconstruction_prediction", "reconstruction_oracle_label"),
)


@dataclass(frozen=True)
class Control:
    """On how many of so many images that no step was aimed at the two disagree, in percent."""

    broke: Estimate | None
    fixed: Estimate | None
    broke_rows: int
    fixed_rows: int


@dataclass(frozen=True)
class ChangedClass:
    """A class: of how many of its originals an image was found, in percent."""

    name: str
    rows: int
    broke: Estimate
    fixed: Estimate


@dataclass(frozen=True)
class Changed:
    """An image that one network has right and the other wrong; `answer` is the wrong one.

    `before` and `after` are the probabilities of the true class, by the one that is right and by the other.
    """

    id: int
    label: str
    answer: str
    before: float
    after: float
    latent_shift: float

    @property
    def clarity(self) -> float:
        """How sure both are: the smaller of what one gives the true class and the other keeps from it."""
        return min(self.before, 1 - self.after)


@dataclass(frozen=True)
class Diff:
    """What became of two networks on the same originals. Shares are percent of these.

    Attributes:
        verdict: whether NEW broke more than it fixed. By `test`, which is wrong in 5 % of cases at most; `sequential`
            in 5 % for either answer.
        rows: originals that were looked at, of `source_rows`.
        source_rows: originals that the recipe has.
        old_accuracy, new_accuracy: on these.
        broke: of how many an image was found that OLD has right and NEW wrong.
        fixed: the reverse.
        difference: `broke` less `fixed`, paired.
        low, high: bounds of the difference in the long run. Exact test: the 95 % interval of `difference`. Sequential:
            each holds with 95 %, whenever one looks.
        controls: the same of images as they are (`originals`), of plain reconstructions, and after random steps.
        classes: the one first in which most more broke than were fixed.
        pairs: (`broke` or `fixed`, true class, wrong answer) → images, the most first.
        images: under `broke` and `fixed`, the clearest first.
        test: `exact`: McNemar's, two-sided, over all rows, in any order. `sequential`: by betting, row by row.
        p_value: of the exact test.
        broke_alone, fixed_alone: how many originals only broke, and only were fixed, which is what the test compares.
        conditions: how both fare on changed originals, the strongest evidence first; none where these were not tried.
            Where NEW is worse under one of them the verdict is `broke more`, whatever the other images say.
    """

    verdict: Verdict
    rows: int
    source_rows: int
    old_accuracy: Estimate
    new_accuracy: Estimate
    broke: Estimate
    fixed: Estimate
    difference: Estimate
    low: float
    high: float
    controls: dict[str, Control]
    classes: list[ChangedClass]
    pairs: list[tuple[str, str, str, int]]
    images: dict[str, list[Changed]]
    test: Test
    p_value: float | None
    broke_alone: int
    fixed_alone: int
    conditions: list[Condition] = field(default_factory=list)

    @property
    def worse(self) -> list[Condition]:
        """The conditions under which NEW is significantly worse."""
        return [condition for condition in self.conditions if condition.is_worse]


def diff(
    recipe: Recipe,
    output: str | Path,
    *,
    old: AnyClassifier,
    new: AnyClassifier,
    until_decided: bool = False,
    conditions: bool = False,
    seed: int = 0,
    job_progress: JobProgress = no_progress,
    on_note: Callable[[str], None] = lambda line: None,
) -> Diff:
    """What NEW broke and what it fixed, as two splits of the same originals.

    In `broke` steps climb NEW's margin of error, OLD has a veto beside the oracle, and the first image at which NEW is
    wrong is kept, so that it is the least change; in `fixed` the two change places. Goes on where an earlier run
    stopped. Runs on every process of a launch, with the same outcome on each.

    Args:
        recipe: source, generator, oracle and steps; its classifier is passed over.
        output: the dataset folder.
        old: a classifier, as for `evaluate`.
        new: the one that is to take its place.
        until_decided: looks each time a share of the shards is made, and leaves the others once the verdict is clear,
            by a sequential test; the same call without it makes them too, and tests all rows at once, exactly. The
            source has to be in a random order (`shuffle_seed`).
        conditions: compare the two on changed originals too (moved, blurred, darker, …), as far as the oracle accepts
            them. The verdict takes them in, and the errors of both tests together are at most 5 %.
        seed: of the order in which the sequential test takes the rows.
        job_progress: returns a progress callback for a split's recipe.
        on_note: called with a line on what was found or is left to do.

    Raises:
        UserError: a part of the recipe or a classifier can't be used, or the two have the same weights.
    """
    sections = classifier_section(old), classifier_section(new)
    if sections[0] == sections[1]:  # under two names it is found where the first split is begun
        raise UserError("diff: old and new are one network: they have the same weights and settings; name two")
    if until_decided and recipe.source.shuffle_seed is None:
        raise UserError(
            f"{option('until-decided', 'until_decided')}: a verdict on the first rows needs rows in a random order; "
            "set source.shuffle_seed=0"
        )
    turns = [(turn, _TURNS) for turn in range(1, _TURNS + 1)] if until_decided else [None]
    for number, turn in enumerate(turns, start=1):
        for made in diff_recipes(recipe, *sections):
            with job_progress(made) as on_progress:
                make_split(made, output, part=turn, on_progress=on_progress, on_note=on_note)
        folders = list(split_folders(recipe, output, *sections).values())
        broke, fixed = (_Side(folder, turns[:number]) for folder in folders)
        found = _found(broke, fixed, seed=seed if until_decided else None, error=ERROR / 2 if conditions else ERROR)
        if found.verdict != "no difference" or number >= folders[0].shards:
            break
    if not conditions:
        return found
    processes = Processes()
    provenance = read_provenance(folders[0].paths)
    work = partial(compare_on_recipe, recipe, provenance, *sections, processes.device, error=ERROR / 2)
    found = replace(found, conditions=processes.gather(together(processes, work))[0])
    return replace(found, verdict="broke more") if found.worse else found


def split_folders(
    recipe: Recipe, output: str | Path, old: ComponentConfig, new: ComponentConfig
) -> dict[str, SplitFolder]:
    """The folders of the splits `broke` and `fixed`, once they are made."""
    made = (of.output for of in diff_recipes(recipe, old, new))
    paths = {side: SplitPaths(Path(output), of.config, of.split) for side, of in zip((BROKE, FIXED), made, strict=True)}
    return {side: SplitFolder.of(of, read_provenance(of)) for side, of in paths.items()}


def diff_recipes(recipe: Recipe, old: ComponentConfig, new: ComponentConfig) -> list[Recipe]:
    """The recipes of `broke` and `fixed`."""
    perturb = replace(recipe.perturb, objective="margin", keep="first")
    found = []
    for side, climbed, kept in ((BROKE, new, old), (FIXED, old, new)):
        own, other = ("new", "old") if kept is old else ("old", "new")
        panel = {
            "kind": "ensemble",
            "rule": "veto",
            "names": [_ORACLE, other],
            "oracles": [recipe.oracle, {"kind": "classifier", "classifier": kept}],
        }
        changed = {
            "classifier": climbed,
            "oracle": oracle_config_of(panel, "diff"),
            "perturb": perturb,
            "description": "",
            # A config is of one oracle, and here they are two panels.
            "output": OutputConfig.model_validate(
                recipe.output.model_dump() | {"config": f"{recipe.output.config}-{side}", "split": own}
            ),
        }
        found.append(recipe.model_copy(update=changed))
    return found


class _Side:
    """One of the two splits: the images that its own classifier, which was climbed, has wrong, and the other right."""

    def __init__(self, folder: SplitFolder, turns: Sequence[tuple[int, int] | None]) -> None:
        self.provenance: Provenance = read_provenance(folder.paths)
        of_turns = [folder.read_columns(_COLUMNS, own_shards(folder.shards, turn)) for turn in turns]
        table = pa.concat_tables(of_turns)
        verdicts = table["judges"].to_pylist()
        columns = {name: table[name].to_numpy() for name in table.column_names if name != "judges"}
        columns["turn"] = np.repeat(np.arange(len(turns)), [len(of_turn) for of_turn in of_turns])
        columns["kept_label"] = np.array([of_row[-1]["label"] for of_row in verdicts])
        columns["kept_probability"] = np.array([of_row[-1]["probability"] for of_row in verdicts])
        of = accepted_as_label(columns)
        of["kept_label"] = as_label(of["kept_label"], of["label"], of.get("accepted_labels"))
        self.columns = of

    @property
    def found(self) -> np.ndarray:
        """Of which originals there is an image."""
        of = self.columns
        return of["valid"].astype(bool) & (of["kept_label"] == of["label"]) & (of["prediction"] != of["label"])

    @property
    def in_reconstructions(self) -> np.ndarray:
        of = self.columns
        return (of["reconstruction_oracle_label"] == of["label"]) & (of["reconstruction_prediction"] != of["label"])

    @property
    def by_chance(self) -> np.ndarray:
        """Of the rows of which random steps were taken, whether its classifier is wrong after them."""
        of = self.columns
        taken = zip(of["control_predictions"], of["label"], strict=True)
        return np.array([steps[-1] != label for steps, label in taken if len(steps) > 1], dtype=bool)

    def images(self, names: Sequence[str]) -> list[Changed]:
        of = self.columns
        found = [
            Changed(
                int(of["id"][row]),
                names[of["label"][row]],
                names[of["prediction"][row]],
                float(of["kept_probability"][row]),
                float(np.exp(-of["loss"][row])),
                float(of["latent_shift"][row]),
            )
            for row in np.flatnonzero(self.found)
        ]
        return sorted(found, key=lambda one: -one.clarity)


def _found(broke: _Side, fixed: _Side, *, seed: int | None, error: float) -> Diff:
    """What both splits say; with a seed by the sequential test, with rows in a random order of it within each turn."""
    ids = np.intersect1d(broke.columns["id"], fixed.columns["id"])
    for side in (broke, fixed):
        side.columns = rows_of(side.columns, ids)
    names, label = list(broke.provenance.labels), broke.columns["label"]
    worse, better = broke.found, fixed.found
    old_right, new_right = (side.columns["original_prediction"] == label for side in (fixed, broke))
    difference = paired_difference(worse, better)
    p_value = None
    if seed is None:
        verdict, p_value, difference = exact_verdict(worse, better, error)
        low, high = interval_ends(difference)
    else:
        verdict, low, high = _sequential_verdict(worse, better, broke.columns["turn"], seed, error)
    images = {BROKE: broke.images(names), FIXED: fixed.images(names)}
    counted = Counter((side, one.label, one.answer) for side, of in images.items() for one in of)
    classes = [
        ChangedClass(name, int(rows.sum()), _share(worse[rows]), _share(better[rows]))
        for name, rows in ((name, label == place) for place, name in enumerate(names))
        if rows.any()
    ]
    return Diff(
        verdict=verdict,
        rows=len(ids),
        source_rows=broke.provenance.examples,
        old_accuracy=_share(old_right),
        new_accuracy=_share(new_right),
        broke=_share(worse),
        fixed=_share(better),
        difference=difference,
        low=round(low, 1),
        high=round(high, 1),
        controls={
            "originals": _control(old_right & ~new_right, new_right & ~old_right),
            "plain reconstructions": _control(broke.in_reconstructions, fixed.in_reconstructions),
            "as many random steps": _control(broke.by_chance, fixed.by_chance),
        },
        classes=sorted(classes, key=lambda one: one.fixed.value - one.broke.value),
        pairs=[(*pair, count) for pair, count in counted.most_common()],
        images=images,
        test="exact" if seed is None else "sequential",
        p_value=p_value,
        broke_alone=int((worse & ~better).sum()),
        fixed_alone=int((better & ~worse).sum()),
    )


def exact_verdict(worse: np.ndarray, better: np.ndarray, error: float = ERROR) -> tuple[Verdict, float, Estimate]:
    """The verdict of McNemar's exact test, two-sided, which no order of the rows changes.

    Args:
        worse: whether each original broke, bool [N].
        better: whether it was fixed, bool [N].
        error: the probability of calling equal networks different.

    Returns:
        The verdict, its p-value, and the share that broke less the share that was fixed. Its interval is
        `paired_difference`'s, stretched to 0 where the test sees no difference, so that the two never disagree.
    """
    broke_alone, fixed_alone = int((worse & ~better).sum()), int((better & ~worse).sum())
    changed = broke_alone + fixed_alone
    p_value = float(binomtest(broke_alone, changed, 0.5).pvalue) if changed else 1.0
    difference = paired_difference(worse, better)
    if p_value <= error:
        return ("broke more" if broke_alone > fixed_alone else "fixed more"), p_value, difference
    low, high = interval_ends(difference)
    return "no difference", p_value, Estimate(difference.value, min(0.0, low), max(0.0, high))


def _sequential_verdict(
    worse: np.ndarray, better: np.ndarray, turn: np.ndarray, seed: int, error: float
) -> tuple[Verdict, float, float]:
    """The verdict by betting, and the bounds of the difference in percent."""
    random = np.random.default_rng(seed)
    order = np.concatenate([random.permutation(np.flatnonzero(turn == at)) for at in np.unique(turn)])
    differences = (worse.astype(np.int8) - better.astype(np.int8))[order]
    low, high = bounds(differences)
    return _VERDICTS[decide(differences, 0.0, error)[0]], 100 * low, 100 * high


def _control(broke: np.ndarray, fixed: np.ndarray) -> Control:
    return Control(proportion(broke), proportion(fixed), len(broke), len(fixed))


def _share(hits: np.ndarray) -> Estimate:
    found = proportion(hits)
    if found is None:
        raise UserError("diff: there is no original that both splits have")
    return found
