"""A split's life in its folder: begun by a job, shared by its processes, finished when all shards are checked.

Its beginning, a file for each run, its shards and the finished provenance are created once, and never rewritten.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fmrgen.distributed.rank import note
from fmrgen.errors import UserError, option
from fmrgen.files import check_inside, json_text, make_folder
from fmrgen.jobs.finished import models_read
from fmrgen.metrics.summary import SUMMARY_COLUMNS, Summary, summarise
from fmrgen.oracles._parts import digests_of_parts
from fmrgen.oracles.base import OracleConfig
from fmrgen.publish.card import check_card, renew_card
from fmrgen.recipe.build import Components
from fmrgen.recipe.job import Recipe
from fmrgen.records import StopReason
from fmrgen.storage.paths import CARD, SplitPaths
from fmrgen.storage.provenance import SCHEMA, Provenance, Run, provenance_to_continue, read_provenance
from fmrgen.storage.schema import OWN_COLUMNS
from fmrgen.storage.shard_claims import ShardClaims
from fmrgen.storage.shards import ShardError, SplitFolder, summary_of
from fmrgen.storage.store import check_creates_once, mirror, send, set_aside
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
        "models_read": models_read(recipe.classifier, recipe.generator, recipe.oracle),
        "code_sha256": code_sha256(recipe),
        "runs": [],
    }
    return Provenance.model_validate(tree)


def claim(folder: SplitFolder, fresh: Provenance, run: Run | None, claims: ShardClaims) -> Provenance:
    """Make the folder ready for this process, check its shards if no other process is at work on it, and take the first
    shard, all before another process can. Return the split's provenance.

    `fresh` is the provenance if this job begins the split. The run of this process is put on record if rows are
    missing. Raises UserError if another recipe's split is in the folder, or processes can't share it.
    """
    paths, store = folder.paths, folder.store
    for folder_of_files in (paths.shards, paths.provenance.parent, paths.picture.parent):
        check_inside(folder_of_files, paths.root)
    for folder_of_files in (paths.provenance.parent, paths.shards):
        make_folder(folder_of_files)
    check_creates_once(store, paths.provenance.parent)
    claims.await_holders()
    with claims.claims.alone(paths.claim):
        mirror(store)
        check_card(paths.root)
        at_work = claims.anyone_at_work()
        provenance = provenance_to_continue(paths, fresh, begun=at_work or claims.is_begun)
        is_new = provenance is fresh or paths.provenance.is_file()
        missing, wrong = bool(claims.missing()), list[ShardError]()
        files = dict(provenance.files)
        is_checked = not at_work and store.is_local  # otherwise shards are checked at the end
        if is_checked:
            intact, wrong = folder.intact_shards(provenance)
            missing = len(intact) < folder.shards
            names = {folder.name_of(shard) for shard in intact}
            files = {name: digest for name, digest in files.items() if name in names}
        changed = ", ".join(changed_code(provenance.code_sha256, fresh.code_sha256))
        if missing and changed:
            raise UserError(
                f"{paths.root}:{paths.name} was started with other code in {changed}; put it back, or choose another "
                f"{option('output')} or {option('output.split')}, or delete it"
            )
        if missing and is_checked:
            _clear_away(folder, wrong)
        if missing or not provenance.is_finished:
            provenance = provenance.model_copy(update={"finished": False, "files": files})
            if is_new:  # first: a claim alone, of a process that is killed now, would say nothing of its job
                forget_records(folder)
                store.create(paths.begun, provenance.encoded)
                store.remove(paths.provenance)
            if run is not None:
                record_run(folder, run, 0)
            claims.reserve()
        elif changed:
            note(f"{paths.root}:{paths.name}: was generated by other code in {changed}; its figures are of that")
        return provenance


def forget_records(folder: SplitFolder) -> None:
    """Remove what an unfinished split has on record, and what was left of it by processes that were killed."""
    records = folder.paths.provenance.parent
    for name in folder.paths.records_among(folder.store.names(records)):
        folder.store.remove(records / name)
    for path in records.glob(f"..{folder.paths.split}.*.json.*.tmp"):
        path.unlink(missing_ok=True)


def _clear_away(folder: SplitFolder, wrong: list[ShardError]) -> None:
    """Set damaged shards aside, and remove leftovers."""
    for error in wrong:
        name = set_aside(folder.store, error.path).name
        note(f"{error.path}: {error.reason}; it is regenerated, and the old file kept as {name}", of_one=True)
    for path in folder.paths.leftovers():
        path.unlink(missing_ok=True)


@contextmanager
def claimed_alone(
    output: Path, config: str, split: str, provenance: Provenance
) -> Iterator[tuple[SplitFolder, Provenance, ShardClaims]]:
    """Claim a split that is to be put together from finished shards of this provenance, while no job is at work on it.

    Yields the split's folder, its provenance, and who works on it. Raises UserError if a job is at work on it, or
    another recipe's split is in it.
    """
    fresh = provenance.model_copy(update={"finished": False, "files": {}, "skipped": []})
    folder = SplitFolder.of(SplitPaths(output, config, split), provenance)
    with closing(ShardClaims(folder, list(range(folder.shards)))) as claims:
        claims.await_holders()
        if claims.anyone_at_work():
            raise UserError(f"{output}:{config}/{split}: another job is working on it; wait until it ends")
        yield folder, claim(folder, fresh, None, claims), claims


def record_run(folder: SplitFolder, run: Run, times: int) -> None:
    """Put a run on record: its start, and how it ended, again if it took up more work after that.

    `times` is how often it was put on record before.
    """
    name = f"run-{re.sub(r'[^0-9]', '', run.started)}-{run.job}"
    record(folder, f"{name}-{times:03d}", {"runs": {name: run.tree}})


def record(folder: SplitFolder, name: str, content: Mapping[str, Any]) -> None:
    """Put something on record of an unfinished split: entries of its provenance."""
    paths, store = folder.paths, folder.store

    def is_finished() -> bool:  # by another process, which needs no record any more, and may have removed this one
        return paths.provenance.name in store.names(paths.provenance.parent)

    if not is_finished():
        try:
            store.create(paths.record(name), json_text(content, strict=True).encode())
        except UserError:
            if not is_finished():
                raise


def finish(folder: SplitFolder, claims: ShardClaims, faults: Counter[str | None] | None = None) -> Summary:
    """Check the whole split, and mark it as finished; then write its picture and its card. Return its figures.

    If the split is finished already, only files that a killed run did not write are written. `faults` counts the rows
    of this run in which each part was not finite. Raises UserError if a row is missing or wrong, or no row has finite
    values.
    """
    paths, store = folder.paths, folder.store
    with claims.claims.alone(paths.claim):
        mirror(store)
        provenance = read_provenance(paths)
        has_all = paths.picture.exists() and (paths.root / CARD).exists()
        if provenance.is_finished and has_all and not store.is_local:
            return summary_of(provenance)
        try:
            for shard in range(folder.shards):
                store.fetch(folder.shard_path(shard))
            if not claims.anyone_at_work():
                for path in paths.leftovers():
                    path.unlink(missing_ok=True)
            return _finish(folder, provenance, faults or Counter())
        except ShardError as error:
            if error.path.exists():  # it may not have been checked at the start
                set_aside(store, error.path)
            raise
        finally:
            if not store.is_local:
                for path in paths.found_shards():
                    path.unlink(missing_ok=True)


def _finish(folder: SplitFolder, provenance: Provenance, faults: Counter[str | None]) -> Summary:
    checked = None
    if not provenance.is_finished:
        checked = folder.check_complete(provenance)
        skipped = checked["skipped"]
        if len(skipped) == folder.examples:
            first = skipped[0]["reason"]
            raise UserError(f"source: all {len(skipped)} images were unreadable and skipped; first: {first}")
    table = folder.read_columns(SUMMARY_COLUMNS)
    columns = {name: table[name].to_numpy() for name in table.column_names}
    is_nonfinite = columns["stop_reason"] == list(StopReason).index(StopReason.NONFINITE)
    if is_nonfinite.all() and not columns["valid"].any():
        raise nonfinite_error(len(table), faults)
    summary = summarise(columns)
    if checked is not None:
        tree = provenance.tree | checked | {"finished": True, "summary": asdict(summary)}
        paths, store = folder.paths, folder.store
        store.create(paths.provenance, Provenance.model_validate(tree).encoded)
        forget_records(folder)
        for name in paths.claims_among(store.names(paths.shards)):  # of no use any more, no part of a dataset
            store.remove(paths.shards / name)
        store.fetch(paths.provenance)
    if checked is not None or not folder.paths.picture.exists():
        from fmrgen.jobs.show import write_picture  # matplotlib, which what only moves files needs not

        write_picture(folder.paths)
        send(folder.store, folder.paths.picture)
    renew_card(folder.store)
    return summary


def nonfinite_error(images: int, faults: Counter[str | None]) -> UserError:
    """Return the error of a job whose images all ended in NaN or infinite values; `faults` counts them by part."""
    part = next((part for part, _ in faults.most_common() if part), None)
    fault = {None: "no finite output or gradient", "gradient": "no finite gradient"}.get(part, "NaN")
    culprit = part if part in ("generator", "classifier", "oracle") else "generator or classifier"
    return UserError(
        f"{culprit}: gives {fault} for every one of {images} images; check its weights and its preprocessing"
    )
