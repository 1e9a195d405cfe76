"""A split's life in its folder: claimed by a job, shared by its processes, finished when all shards are checked."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from fmrgen.distributed.rank import is_first_process
from fmrgen.errors import UserError, option
from fmrgen.files import check_inside
from fmrgen.jobs.finished import models_read
from fmrgen.metrics.summary import SUMMARY_COLUMNS, Summary, summarise
from fmrgen.oracles._parts import digests_of_parts
from fmrgen.oracles.base import OracleConfig
from fmrgen.publish.card import check_card, renew_card
from fmrgen.recipe.build import Components
from fmrgen.recipe.job import Recipe
from fmrgen.records import StopReason
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import (
    SCHEMA,
    Kinship,
    Provenance,
    Run,
    provenance_to_continue,
    read_provenance,
)
from fmrgen.storage.schema import OWN_COLUMNS
from fmrgen.storage.shard_claims import ShardClaims
from fmrgen.storage.shards import ShardError, SplitFolder, summary_of
from fmrgen.trust.code import changed_code, code_sha256
from fmrgen.weights.digest import weights_sha256


def new_provenance(recipe: Recipe, components: Components) -> Provenance:
    """Return the provenance of a split before its first row."""
    labels, oracle = components.source.labels, recipe.oracle
    taken = [name for name in components.source.columns if name in OWN_COLUMNS]
    if taken:
        raise UserError(f"source.columns: {taken[0]} is a column of every split; rename it in the dataset")
    models = ("classifier", "generator", "oracle")
    is_image_text = isinstance(oracle, OracleConfig) and oracle.is_image_text
    tree = {
        "schema": SCHEMA,
        "fingerprint": recipe.fingerprint,
        "recipe": recipe.model_dump(mode="json") | {"description": recipe.description_of(len(components.source))},
        "labels": list(labels.names),
        "groups": None if labels.groups is None else [list(group) for group in labels.groups],
        "source_classes": labels.source_size,
        "source_names": None if labels.source_names is None else list(labels.source_names),
        "examples": len(components.source),
        "image_size": components.generator.image_size,
        "score_column": "clip_score" if is_image_text else "oracle_score",
        "judges": list(components.oracle.member_names),
        "accepts_several": components.source.accepts_several,
        "source_columns": dict(components.source.columns),
        "weights_sha256": {name: weights_sha256(getattr(components, name)) for name in models},
        "oracle_sha256": sorted(digests_of_parts(components.oracle)),
        "models_read": models_read(recipe),
        "code_sha256": code_sha256(recipe),
        "runs": [],
    }
    return Provenance.model_validate(tree)


def claim(
    folder: SplitFolder,
    fresh: Provenance,
    runs: Sequence[Run],
    claims: ShardClaims,
    on_note: Callable[[str], None],
) -> Provenance:
    """Make the folder ready for this process, check its shards if no other process is at work on it, and take the first
    shard, all before another process can.

    Args:
        folder: of the split.
        fresh: the provenance of the split if this job begins it.
        runs: added to the provenance if rows are missing.
        claims: take the first shard.
        on_note: called with a line for each file that is set aside.

    Returns:
        The provenance of the split.

    Raises:
        UserError: another recipe's split is in the folder.
    """
    paths = folder.paths
    check_inside(paths.provenance.parent, paths.root)
    for path in (folder.shard_path(0), paths.picture):
        check_inside(path.parent, paths.root)
    _wait_for_dead_claims(folder, fresh, claims)
    with folder.shared.alone(paths):
        check_card(paths.root)
        at_work = claims.anyone_at_work()
        provenance = provenance_to_continue(paths, fresh, begun=at_work or claims.is_begun)
        missing = not paths.shards.is_dir() or bool(claims.missing())
        files = provenance.files
        if missing:
            _check_same_maker(paths, provenance, fresh)
        if not at_work and folder.shared.is_local:  # otherwise shards are checked at the end
            intact = _intact_shards(folder, provenance, fresh, on_note)
            missing = len(intact) < folder.shards
            files = {name: digest for name, digest in provenance.files.items() if name in intact}
        if missing or not provenance.is_finished:
            # Parts may list the same run: the folder's own record of it stays.
            recorded = {run.id for run in provenance.runs}
            new_runs = {run.id: run for run in runs if run.id not in recorded}
            changes = {"finished": False, "files": files, "runs": [*provenance.runs, *new_runs.values()]}
            provenance = provenance.model_copy(update=changes)
            folder.begin(provenance)
            folder.shared.send()  # first: a claim alone, of a process that is killed now, would say nothing of its job
            claims.reserve()
        elif is_first_process():
            changed = changed_code(provenance.code_sha256, fresh.code_sha256)
            if changed:
                title = f"{paths.root}:{paths.name}"
                on_note(f"{title}: was made by other code in {', '.join(changed)}; its figures are of that")
        return provenance


def _intact_shards(
    folder: SplitFolder, provenance: Provenance, fresh: Provenance, on_note: Callable[[str], None]
) -> set[str]:
    """Return the names of the intact shards; set damaged ones aside, and remove leftovers if any shard is missing."""
    intact, wrong = folder.intact_shards(provenance)
    missing = len(intact) < folder.shards
    if missing:
        _check_same_maker(folder.paths, provenance, fresh)
    for error in wrong:
        name = folder.shared.set_aside(error.path).name
        on_note(f"{error.path}: {error.reason}; it is regenerated, and the old file kept as {name}")
    if missing:
        for path in folder.paths.leftovers():
            path.unlink(missing_ok=True)
    return {folder.name_of(shard) for shard in intact}


def _check_same_maker(paths: SplitPaths, earlier: Provenance, fresh: Provenance) -> None:
    """Raise UserError if the missing rows would be made by other code than the others."""
    title = f"{paths.root}:{paths.name}"
    cure = f"choose another {option('output')} or {option('output.split')}, or delete it"
    check_same_code(title, earlier, fresh, cure)


def check_same_code(where: str, earlier: Provenance, fresh: Provenance, cure: str) -> None:
    """Raise UserError if rows of `fresh` would be made by other code than those of `earlier`.

    Args:
        where: the split, at the beginning of the message.
        earlier: the provenance on record.
        fresh: that of this job.
        cure: at the end of the message.
    """
    changed = changed_code(earlier.code_sha256, fresh.code_sha256)
    if changed:
        raise UserError(f"{where} was started with other code in {', '.join(changed)}; put it back, or {cure}")


def _wait_for_dead_claims(folder: SplitFolder, fresh: Provenance, claims: ShardClaims) -> None:
    """Wait for the time of a lease at most, if claims without shards would keep this job from beginning: a job that was
    killed as it began may have left them, and nothing else."""
    started, patience = time.monotonic(), folder.shared.patience(folder.paths.root)
    while not claims.is_begun and claims.anyone_at_work() and time.monotonic() - started < patience:
        folder.shared.refresh()
        try:
            provenance_to_continue(folder.paths, fresh, begun=True)
        except UserError:
            time.sleep(folder.shared.poll)
        else:
            return


@contextmanager
def claimed_alone(
    output: Path, config: str, split: str, provenance: Provenance, runs: Sequence[Run], on_note: Callable[[str], None]
) -> Iterator[tuple[SplitFolder, Provenance]]:
    """Claim a split of a folder that is to be put together from finished shards, while no job is at work on it.

    Args:
        output: the dataset folder.
        config: of the split.
        split: its name in that.
        provenance: of the shards.
        runs: that made them.
        on_note: called with a line for each file that is set aside.

    Yields:
        The split's folder and provenance.

    Raises:
        UserError: a job is at work on it, or another recipe's split is in it.
    """
    fresh = provenance.model_copy(update={"finished": False, "runs": [], "files": {}, "skipped": []})
    folder = SplitFolder.of(SplitPaths(output, config, split), provenance)
    with closing(ShardClaims(folder, list(range(folder.shards)))) as claims:
        begun, patience = time.monotonic(), folder.shared.patience(output)
        while claims.anyone_at_work():
            if time.monotonic() - begun >= patience:
                raise UserError(f"{output}:{config}/{split}: another job is working on it; wait until it ends")
            time.sleep(folder.shared.poll)
        yield folder, claim(folder, fresh, runs, claims, on_note)


def record_run(folder: SplitFolder, ended: Run) -> None:
    """Replace the record of a run's start by that of its end."""
    with folder.shared.alone(folder.paths):
        provenance = read_provenance(folder.paths)
        runs = [ended if run.id == ended.id else run for run in provenance.runs]
        provenance.model_copy(update={"runs": runs}).write(folder.paths)


def record_kinship(folder: SplitFolder, kinship: Kinship) -> None:
    """Record in a split's provenance how near its classifier and oracle are."""
    with folder.shared.alone(folder.paths):
        read_provenance(folder.paths).model_copy(update={"kinship": kinship}).write(folder.paths)


def record_slope(folder: SplitFolder, slope: float) -> None:
    """Record in a split's provenance how steep its classifier is along its gradient, as a share of what that says."""
    with folder.shared.alone(folder.paths):
        read_provenance(folder.paths).model_copy(update={"slope": slope}).write(folder.paths)


def finish(folder: SplitFolder, faults: Counter[str | None] | None = None) -> Summary:
    """Check the whole split, and mark it as finished; then write its picture and its card.

    If the split is finished already, only files that a killed run did not write are written.

    Args:
        folder: of the split.
        faults: in how many rows of this run each part was not finite.

    Returns:
        The split's figures.

    Raises:
        UserError: a row is missing or wrong, or no row has finite values.
    """
    with folder.shared.alone(folder.paths):
        provenance = read_provenance(folder.paths)
        if provenance.is_finished and not folder.shared.is_local:
            folder.shared.forget(folder.paths)
            return summary_of(provenance)
        with folder.shared.files(folder.paths):
            try:
                return _finish(folder, provenance, faults)
            except ShardError as error:
                if error.path.exists():  # it may not have been checked at the start
                    folder.shared.set_aside(error.path)
                raise


def _finish(folder: SplitFolder, provenance: Provenance, faults: Counter[str | None] | None) -> Summary:
    checked = None
    if not provenance.is_finished:
        checked = folder.check_complete(provenance)
        if len(checked.skipped) == folder.examples:
            first = checked.skipped[0].reason
            raise UserError(f"source: all {len(checked.skipped)} images were unreadable and skipped; first: {first}")
    loss, score = "loss", provenance.score_column
    table = folder.read_columns(list(dict.fromkeys([*SUMMARY_COLUMNS, loss, score])))
    columns = {name: table[name].to_numpy() for name in table.column_names}
    is_nonfinite = columns["stop_reason"] == list(StopReason).index(StopReason.NONFINITE)
    if is_nonfinite.all() and not columns["valid"].any():
        stored: Counter[str | None] = Counter()  # NaN of the originals, by the part that gave them
        stored["classifier"] = int(np.isnan(columns[loss]).sum())
        stored["oracle"] = int(np.isnan(columns[score]).sum())
        raise nonfinite_error(len(table), faults or +stored)
    summary = summarise({name: columns[name] for name in SUMMARY_COLUMNS if name in columns})
    if checked is not None:
        tree = provenance.tree | {"finished": True, "summary": asdict(summary)}
        tree |= checked._asdict() | {"skipped": [entry.model_dump() for entry in checked.skipped]}
        Provenance.model_validate(tree).write(folder.paths)
        shards = folder.paths.shards
        for name in folder.paths.claims_among(folder.shared.names(shards)):  # of no use any more, no part of a dataset
            folder.shared.remove(shards / name)
    if checked is not None or not folder.paths.picture.exists():
        from fmrgen.jobs.show import write_picture  # matplotlib, which what only moves files needs not

        write_picture(folder.paths)
    renew_card(folder.paths.root)
    return summary


def nonfinite_error(images: int, faults: Counter[str | None]) -> UserError:
    """Return the error of a job whose images all ended in NaN or infinite values; `faults` counts them by part."""
    parts = [part for part, _ in faults.most_common() if part]
    culprit, fault = "generator or classifier", "no finite output or gradient"
    if parts:
        fault = "no finite gradient" if parts[0] == "gradient" else "NaN"
        if parts[0] in ("generator", "classifier", "oracle"):
            culprit = parts[0]
    return UserError(
        f"{culprit}: gives {fault} for every one of {images} images; check its weights and its preprocessing"
    )
