"""The images that a new checkpoint broke: each image is moved to where the old network is right and the new one wrong,
and the reverse, for as long as the oracle sees its class."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from fmrgen.apps.explain.betting import ERROR, drops_of
from fmrgen.apps.release.conditions import compare_on_recipe
from fmrgen.apps.release.flips import mcnemar
from fmrgen.apps.release.sequential_test import Condition, bounds, decide
from fmrgen.config import ComponentConfig
from fmrgen.distributed.launch import Processes
from fmrgen.errors import UserError, option
from fmrgen.jobs.compare import JobProgress, make_splits
from fmrgen.metrics.intervals import Estimate, paired_difference, proportion
from fmrgen.metrics.rows import accepted_as_label, as_label
from fmrgen.recipe.job import Recipe
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
_ORACLE = "oracle"  # the name of the recipe's oracle in the panels
_TURNS = 20  # in which the shards are made if `until_decided`; after each the verdict is computed
_VERDICTS: dict[str, Verdict] = {"fail": "broke more", "pass": "fixed more", "undecided": "no difference"}
_COLUMNS = (
    "id",
    "label",
    "accepted_labels",
    "valid",
    "prediction",
    "loss",
    "judges",
    "latent_shift",
    "control_predictions",
    "original_prediction",
    "reconstruction_prediction",
    "reconstruction_oracle_label",
)


@dataclass(frozen=True)
class Control:
    """The share of control images, at which no step was aimed, on which the networks disagree, in percent.

    Attributes:
        broke: OLD is right and NEW wrong; None if there are no such images.
        fixed: the reverse.
        broke_rows: images that `broke` is a share of.
        fixed_rows: images that `fixed` is a share of.
    """

    broke: Estimate | None
    fixed: Estimate | None
    broke_rows: int
    fixed_rows: int


@dataclass(frozen=True)
class ChangedClass:
    """The originals of one class.

    Attributes:
        name: of the class.
        rows: number of originals.
        broke: the share of these that broke, in percent.
        fixed: the share of these that were fixed, in percent.
    """

    name: str
    rows: int
    broke: Estimate
    fixed: Estimate


@dataclass(frozen=True)
class Changed:
    """An image that one network has right and the other wrong.

    Attributes:
        id: of the original.
        label: the true class.
        answer: the wrong prediction.
        before: the probability of the true class by the network that is right.
        after: the same by the network that is wrong.
        latent_shift: how far its latent was moved.
    """

    id: int
    label: str
    answer: str
    before: float
    after: float
    latent_shift: float

    @property
    def clarity(self) -> float:
        """How sure both networks are: the smaller of `before` and 1 - `after`."""
        return min(self.before, 1 - self.after)


@dataclass(frozen=True)
class Diff:
    """The comparison of two networks on the same originals. Shares are percent of these.

    Attributes:
        verdict: whether NEW broke more than it fixed, by `test`. It is wrong in 5 % of cases at most; if sequential, in
            5 % for either answer.
        rows: originals that were looked at, of `source_rows`.
        source_rows: originals that the recipe has.
        old_accuracy, new_accuracy: on the originals that were looked at.
        broke: the share for which an image was found that OLD has right and NEW wrong.
        fixed: the reverse.
        difference: `broke` minus `fixed`, paired.
        low, high: bounds of the true difference. Exact test: the 95 % interval of `difference`. Sequential test: each
            bound holds with 95 % confidence whenever you stop.
        controls: the same figures on the originals, on plain reconstructions, and after random steps.
        classes: by `broke` minus `fixed`, the largest first.
        pairs: (`broke` or `fixed`, true class, wrong answer, number of images), the most frequent first.
        images: under `broke` and `fixed`, the clearest first.
        test: `exact`: McNemar's, two-sided, over all rows, in any order. `sequential`: by betting, row by row.
        p_value: of the exact test.
        broke_alone, fixed_alone: how many originals only broke, and only were fixed; the test compares these.
        conditions: the comparison on changed originals, the strongest evidence first; empty if none were tried. If NEW
            is worse under one of them, the verdict is `broke more`, whatever the other images show.
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
    job_progress: JobProgress | None = None,
    on_note: Callable[[str], None] = lambda line: None,
) -> Diff:
    """Return what NEW broke and what it fixed, and make two splits of the same originals to show it.

    For `broke`, steps climb NEW's margin of error and OLD has a veto beside the oracle. The first image at which NEW is
    wrong is kept, so the change is small. For `fixed` the two networks swap roles. An earlier run that stopped is
    resumed. Runs on every process of a launch, with the same outcome on each.

    Args:
        recipe: source, generator, oracle and steps; its classifier is ignored.
        output: the dataset folder.
        old: a classifier, as for `evaluate`.
        new: the classifier that will replace it.
        until_decided: test after each part of the shards, and stop once the verdict is clear. The same call without it
            makes the remaining shards and applies the exact test to all rows. The source must be in random order
            (`shuffle_seed`).
        conditions: also compare the two on changed originals (moved, blurred, darker, …), as far as the oracle accepts
            them. These count towards the verdict, and both tests together err in at most 5 % of cases.
        seed: random seed for the order in which the sequential test takes the rows.
        job_progress: returns a progress callback for a split's recipe.
        on_note: called with each note, one line.

    Returns:
        The comparison.

    Raises:
        UserError: a part of the recipe or a classifier can't be used, or the two have the same weights.
    """
    sections = classifier_section(old), classifier_section(new)
    if sections[0] == sections[1]:  # equal weights under two names are found when the first split is begun
        raise UserError("diff: old and new are one network: they have the same weights and settings; name two")
    if until_decided and recipe.source.shuffle_seed is None:
        raise UserError(
            f"{option('until-decided', 'until_decided')}: a verdict on the first rows needs rows in a random order; "
            "set source.shuffle_seed=0"
        )
    turns: list[tuple[int, int] | None] = [None]
    if until_decided:
        turns = [(turn, _TURNS) for turn in range(1, _TURNS + 1)]
    for number, turn in enumerate(turns, start=1):
        recipes = diff_recipes(recipe, *sections)
        make_splits(recipes, output, part=turn, job_progress=job_progress, on_note=on_note)
        folders = split_folders(recipe, output, *sections)
        outcome = _compare(
            _Side(folders[BROKE], turns[:number]),
            _Side(folders[FIXED], turns[:number]),
            seed=seed if until_decided else None,
            error=ERROR / 2 if conditions else ERROR,
        )
        if outcome.verdict != "no difference" or number >= folders[BROKE].shards:
            break
    if not conditions:
        return outcome
    processes = Processes()
    provenance = read_provenance(folders[BROKE].paths)
    work = partial(compare_on_recipe, recipe, provenance, *sections, processes.device, error=ERROR / 2)
    outcome = replace(outcome, conditions=processes.gather(processes.together(work))[0])
    if outcome.worse:
        return replace(outcome, verdict="broke more")
    return outcome


def split_folders(
    recipe: Recipe, output: str | Path, old: ComponentConfig, new: ComponentConfig
) -> dict[str, SplitFolder]:
    """Return the folders of the splits `broke` and `fixed`, once they are made.

    Args:
        recipe: as of `diff`.
        output: the dataset folder.
        old: the classifier in use.
        new: the one that is to take its place.
    """
    folders = {}
    for side, split_recipe in zip((BROKE, FIXED), diff_recipes(recipe, old, new), strict=True):
        paths = SplitPaths(Path(output), split_recipe.output.config, split_recipe.output.split)
        folders[side] = SplitFolder.of(paths, read_provenance(paths))
    return folders


def diff_recipes(recipe: Recipe, old: ComponentConfig, new: ComponentConfig) -> list[Recipe]:
    """Return the recipes of `broke` and `fixed`.

    Args:
        recipe: as of `diff`.
        old: the classifier in use.
        new: the one that is to take its place.
    """
    recipe.check_perturbs()
    perturb = replace(recipe.perturb.runs[0], objective="margin", keep="first")
    networks = {"old": old, "new": new}
    recipes = []
    for side, attacked, veto in ((BROKE, "new", "old"), (FIXED, "old", "new")):
        panel = {
            "kind": "ensemble",
            "rule": "veto",
            "names": [_ORACLE, veto],
            "oracles": [recipe.oracle, {"kind": "classifier", "classifier": networks[veto]}],
        }
        # All splits of a config have one oracle, and these two have different panels: so each has a config.
        changed = {
            "classifier": networks[attacked],
            "oracle": oracle_config_of(panel, "diff"),
            "perturb": perturb,
            "description": "",
            "output": recipe.output.renamed(config=f"{recipe.output.config}-{side}", split=attacked),
        }
        recipes.append(recipe.model_copy(update=changed))
    return recipes


class _Side:
    """The rows of one of the two splits: images that the attacked network has wrong, and the other one right."""

    def __init__(self, folder: SplitFolder, turns: Sequence[tuple[int, int] | None]) -> None:
        self.provenance: Provenance = read_provenance(folder.paths)
        tables = []
        for turn in turns:
            tables.append(folder.read_columns(_COLUMNS, own_shards(folder.shards, turn)))
        table = pa.concat_tables(tables)
        columns = {name: table[name].to_numpy() for name in table.column_names if name != "judges"}
        columns["turn"] = np.repeat(np.arange(len(turns)), [len(turn_table) for turn_table in tables])
        # The other network is the last judge of the panel.
        verdicts = [judges[-1] for judges in table["judges"].to_pylist()]
        columns["other_label"] = np.array([verdict["label"] for verdict in verdicts])
        columns["other_probability"] = np.array([verdict["probability"] for verdict in verdicts])
        self.columns = accepted_as_label(columns)
        self.columns["other_label"] = as_label(
            self.columns["other_label"], self.columns["label"], self.columns.get("accepted_labels")
        )

    @property
    def is_found(self) -> np.ndarray:
        """Whether an image was found for each original, bool [N]."""
        columns = self.columns
        label = columns["label"]
        other_right = columns["other_label"] == label
        return columns["valid"].astype(bool) & other_right & (columns["prediction"] != label)

    @property
    def in_reconstructions(self) -> np.ndarray:
        """Whether the attacked network has each plain reconstruction wrong, of those that the oracle accepts, [N]."""
        columns = self.columns
        label = columns["label"]
        return (columns["reconstruction_oracle_label"] == label) & (columns["reconstruction_prediction"] != label)

    @property
    def by_chance(self) -> np.ndarray:
        """Whether the attacked network is wrong after random steps, of the rows for which such were taken, [M]."""
        wrong = []
        for predictions, label in zip(self.columns["control_predictions"], self.columns["label"], strict=True):
            if len(predictions) > 1:
                wrong.append(predictions[-1] != label)
        return np.array(wrong, dtype=bool)

    def images(self, names: Sequence[str]) -> list[Changed]:
        """Return the images that were found, the clearest first; `names` are those of the classes."""
        columns = self.columns
        images = []
        for row in np.flatnonzero(self.is_found):
            image = Changed(
                id=int(columns["id"][row]),
                label=names[columns["label"][row]],
                answer=names[columns["prediction"][row]],
                before=float(columns["other_probability"][row]),
                after=float(np.exp(-columns["loss"][row])),
                latent_shift=float(columns["latent_shift"][row]),
            )
            images.append(image)
        return sorted(images, key=lambda image: -image.clarity)


def _compare(broke: _Side, fixed: _Side, *, seed: int | None, error: float) -> Diff:
    """Return the comparison by the rows that both splits have.

    With a seed the test is sequential, with rows in a random order of that seed within each turn.
    """
    ids = np.intersect1d(broke.columns["id"], fixed.columns["id"])
    for side in (broke, fixed):
        side.columns = rows_of(side.columns, ids)
    names, label = list(broke.provenance.labels), broke.columns["label"]
    worse, better = broke.is_found, fixed.is_found
    new_right = broke.columns["original_prediction"] == label  # each split has the answers of the attacked network
    old_right = fixed.columns["original_prediction"] == label
    difference = paired_difference(worse, better)
    p_value = None
    if seed is None:
        verdict, p_value, difference = exact_verdict(worse, better, error)
        low, high = difference.ends
    else:
        verdict, low, high = _sequential_verdict(worse, better, broke.columns["turn"], seed, error)
    images = {BROKE: broke.images(names), FIXED: fixed.images(names)}
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
        classes=_changed_classes(worse, better, label, names),
        pairs=_pair_counts(images),
        images=images,
        test="exact" if seed is None else "sequential",
        p_value=p_value,
        broke_alone=int((worse & ~better).sum()),
        fixed_alone=int((better & ~worse).sum()),
    )


def _changed_classes(
    worse: np.ndarray, better: np.ndarray, label: np.ndarray, names: Sequence[str]
) -> list[ChangedClass]:
    """Return the classes that occur, by the share that broke minus the share that was fixed, the largest first."""
    classes = []
    for number, name in enumerate(names):
        members = label == number
        if members.any():
            classes.append(ChangedClass(name, int(members.sum()), _share(worse[members]), _share(better[members])))
    return sorted(classes, key=lambda changed: changed.fixed.value - changed.broke.value)


def _pair_counts(images: Mapping[str, Sequence[Changed]]) -> list[tuple[str, str, str, int]]:
    """Return (side, true class, wrong answer, number of images), the most frequent first."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for side, changed in images.items():
        counts.update((side, image.label, image.answer) for image in changed)
    return [(*pair, count) for pair, count in counts.most_common()]


def exact_verdict(worse: np.ndarray, better: np.ndarray, error: float = ERROR) -> tuple[Verdict, float, Estimate]:
    """Return the verdict of McNemar's exact test, two-sided, which does not depend on the order of the rows.

    Args:
        worse: whether each original broke, bool [N].
        better: whether it was fixed, bool [N].
        error: the probability of calling equal networks different.

    Returns:
        The verdict, its p-value, and the share that broke minus the share that was fixed. Its interval is
        `paired_difference`'s, stretched to 0 if the test finds no difference, so that the two never disagree.
    """
    broke_alone = int((worse & ~better).sum())
    fixed_alone = int((better & ~worse).sum())
    p_value = mcnemar(broke_alone, fixed_alone)
    difference = paired_difference(worse, better)
    if p_value <= error:
        verdict: Verdict = "broke more" if broke_alone > fixed_alone else "fixed more"
        return verdict, p_value, difference
    low, high = difference.ends
    return "no difference", p_value, Estimate(difference.value, min(0.0, low), max(0.0, high))


def _sequential_verdict(
    worse: np.ndarray, better: np.ndarray, turn: np.ndarray, seed: int, error: float
) -> tuple[Verdict, float, float]:
    """Return the verdict by betting, and the bounds of the difference in percent."""
    random = np.random.default_rng(seed)
    order = []
    for number in np.unique(turn):
        order.append(random.permutation(np.flatnonzero(turn == number)))
    differences = drops_of(worse, better)[np.concatenate(order)]
    low, high = bounds(differences)
    return _VERDICTS[decide(differences, 0.0, error)[0]], 100 * low, 100 * high


def _control(broke: np.ndarray, fixed: np.ndarray) -> Control:
    return Control(proportion(broke), proportion(fixed), len(broke), len(fixed))


def _share(hits: np.ndarray) -> Estimate:
    """Return the share of hits; raise UserError if there are no rows."""
    share = proportion(hits)
    if share is None:
        raise UserError("diff: there is no original that both splits have")
    return share
