"""Images made against two networks: each original is moved to where OLD is right and NEW wrong, and the reverse, for as
long as the oracle sees its class."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from fmrgen.apps.explain.betting import ERROR, bounds, drops_of, log_capital
from fmrgen.apps.release.evidence import BROKE, FIXED, Evidence, evidence_of
from fmrgen.config import ComponentConfig
from fmrgen.errors import UserError, option
from fmrgen.jobs.compare import JobProgress, make_splits
from fmrgen.metrics.gradients import has_masked_gradient
from fmrgen.metrics.intervals import Estimate, proportion
from fmrgen.metrics.rows import accepted_as_label, as_label
from fmrgen.recipe.job import Recipe
from fmrgen.recipe.sections import oracle_config_of
from fmrgen.results.own_splits import rows_of
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import Provenance, read_provenance
from fmrgen.storage.shard_claims import own_shards
from fmrgen.storage.shards import SplitFolder

Test = Literal["exact", "sequential"]
_ORACLE = "oracle"  # the name of the recipe's oracle in the panels
_TURNS = 20  # in which the shards are made if `until_decided`; after each the evidence is tested
# Points by which trainings of one recipe that differ in their seed alone may be apart: see docs/results/diff.md.
_OF_ANOTHER_SEED = 10.0
_CLEAR = ERROR / 2 / 8  # a p-value that is below it counts, whatever the other seven lines of a diff show
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
class Made:
    """What images made against two networks show. Shares are percent of the originals.

    Attributes:
        rows: originals that were looked at, of `source_rows`.
        source_rows: originals that the recipe has.
        controls: the same on plain reconstructions, and after random steps.
        classes: by broke minus fixed, the largest first.
        pairs: (`broke` or `fixed`, true class, wrong answer, number of images), the most frequent first.
        images: under `broke` and `fixed`, the clearest first.
        test: `exact`: over all rows, in any order. `sequential`: by betting, row by row.
        masked: the networks, `OLD` or `NEW`, whose gradient is masked, so that images made against them say little.
    """

    rows: int
    source_rows: int
    controls: dict[str, Control]
    classes: list[ChangedClass]
    pairs: list[tuple[str, str, str, int]]
    images: dict[str, list[Changed]]
    test: Test
    masked: list[str]


def make_images(
    recipe: Recipe,
    output: str | Path,
    old: ComponentConfig,
    new: ComponentConfig,
    *,
    margin: float,
    until_decided: bool,
    seed: int,
    job_progress: JobProgress | None,
    on_note: Callable[[str], None],
) -> tuple[Made, Evidence]:
    """Make two splits of the same originals to show what NEW broke and what it fixed, or resume them.

    For `broke`, steps climb NEW's margin of error and OLD has a veto beside the oracle. The first image at which NEW is
    wrong is kept, so the change is small. For `fixed` the two networks swap roles. Runs on every process of a launch,
    with the same outcome on each.

    Args:
        recipe: source, generator, oracle and steps; its classifier is ignored.
        output: the dataset folder.
        old: the classifier in use.
        new: the one that is to take its place.
        margin: points that NEW may lose.
        until_decided: test after each part of the shards, and stop once this evidence alone is enough. The same call
            without it makes the remaining shards and tests all rows exactly.
        seed: random seed for the order in which the sequential test takes the rows.
        job_progress: returns a progress callback for a split's recipe.
        on_note: called with each note, one line.

    Raises:
        UserError: a part of the recipe or a classifier can't be used, or the two have the same weights.
    """
    if until_decided and recipe.source.shuffle_seed is None:
        raise UserError(
            f"{option('until-decided', 'until_decided')}: a verdict on the first rows needs rows in a random order; "
            "set source.shuffle_seed=0"
        )
    turns: list[tuple[int, int] | None] = [None]
    if until_decided:
        turns = [(turn, _TURNS) for turn in range(1, _TURNS + 1)]
    recipes = diff_recipes(recipe, old, new)
    for number, turn in enumerate(turns, start=1):
        summaries = make_splits(recipes, output, part=turn, job_progress=job_progress, on_note=on_note)
        folders = split_folders(recipe, output, old, new)
        broke, fixed = (_Side(folders[side], turns[:number]) for side in (BROKE, FIXED))
        _align(broke, fixed)
        evidence = _evidence(broke, fixed, margin, seed if until_decided else None)
        is_no_worse = evidence.drop.ends[1] < evidence.margin
        if evidence.p_worse <= _CLEAR or is_no_worse or number >= folders[BROKE].shards:
            break
    masked = []
    for name, side, summary in zip(("NEW", "OLD"), (broke, fixed), summaries, strict=True):
        if has_masked_gradient(summary, side.provenance.judged_steps):
            masked.append(name)
    return _made(broke, fixed, "sequential" if until_decided else "exact", masked), evidence


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


def _align(broke: _Side, fixed: _Side) -> None:
    """Reduce both splits to the originals that both have."""
    ids = np.intersect1d(broke.columns["id"], fixed.columns["id"])
    if not len(ids):
        raise UserError("diff: there is no original that both splits have")
    for side in (broke, fixed):
        side.columns = rows_of(side.columns, ids)


def _evidence(broke: _Side, fixed: _Side, margin: float, seed: int | None) -> Evidence:
    """Return the evidence; with a seed by betting, on rows in a random order of that seed within each turn."""
    worse, better = broke.is_found, fixed.is_found
    images = "originals moved until the two disagree"
    evidence = evidence_of("made", images, worse, better, margin, _OF_ANOTHER_SEED)
    if seed is None:
        return evidence
    random = np.random.default_rng(seed)
    turn = broke.columns["turn"]
    order = [random.permutation(np.flatnonzero(turn == number)) for number in np.unique(turn)]
    drops = drops_of(worse, better)[np.concatenate(order)]
    low, high = bounds(drops, ERROR / 2)
    return replace(
        evidence,
        drop=Estimate(evidence.drop.value, 100 * low, 100 * high),
        p_worse=_p_by_betting(log_capital(drops, evidence.margin / 100)[0]),
        p_better=_p_by_betting(log_capital(drops, -_OF_ANOTHER_SEED / 100)[1]),
    )


def _p_by_betting(capital: np.ndarray) -> float:
    """Return a p-value that holds whenever one stops: one over the most that a gambler had (Ville)."""
    return math.exp(-max(0.0, float(capital.max())))


def _made(broke: _Side, fixed: _Side, test: Test, masked: list[str]) -> Made:
    names, label = list(broke.provenance.labels), broke.columns["label"]
    images = {BROKE: broke.images(names), FIXED: fixed.images(names)}
    return Made(
        rows=len(label),
        source_rows=broke.provenance.examples,
        controls={
            "plain reconstructions": _control(broke.in_reconstructions, fixed.in_reconstructions),
            "as many random steps": _control(broke.by_chance, fixed.by_chance),
        },
        classes=_changed_classes(broke.is_found, fixed.is_found, label, names),
        pairs=_pair_counts(images),
        images=images,
        test=test,
        masked=masked,
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


def _control(broke: np.ndarray, fixed: np.ndarray) -> Control:
    return Control(proportion(broke), proportion(fixed), len(broke), len(fixed))


def _share(hits: np.ndarray) -> Estimate:
    """Return the share of hits; raise UserError if there are no rows."""
    share = proportion(hits)
    if share is None:
        raise UserError("diff: there is no original that both splits have")
    return share
