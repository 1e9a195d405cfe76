"""One split of its parts, as machines without a common file system leave them."""

from collections.abc import Callable, Sequence
from pathlib import Path

from fmrgen.errors import UserError, option
from fmrgen.files import check_writable, sha256_of, write_atomically
from fmrgen.jobs.lifecycle import check_same_code, claimed_alone, finish
from fmrgen.metrics.summary import Summary
from fmrgen.split.reference import parse_reference
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import Provenance, Run, check_not_newer, check_same_job, check_same_version, read_all
from fmrgen.storage.shards import SplitFolder

_COMPUTE = ("fmrgen", "torch", "transformers", "diffusers", "timm")  # libraries whose version can change a row

_Part = tuple[Path, Provenance]


def merge(
    parts: Sequence[str | Path],
    output: str | Path,
    *,
    on_note: Callable[[str], None] = lambda line: None,
) -> dict[str, Summary]:
    """Copies the shards of parts into one folder and finishes the splits that are whole there.

    A shard that several parts hold is taken once, one that is damaged not at all: the sha256 of its shards is on record
    in every part that was made to its end.

    Args:
        parts: folders, `FOLDER[:CONFIG/SPLIT]`, made by the same recipe, from the same examples and with the same
            weights.
        output: the dataset folder for all of them.
        on_note: called with a line for each file that is left out.

    Returns:
        The splits' figures by CONFIG/SPLIT.

    Raises:
        UserError: the parts do not belong together, or two of them hold different files of one shard; or shards are
            missing at the end: what there is has been copied then, and `generate` makes the rest.
    """
    check_writable(Path(output))
    found: dict[tuple[str, str], list[_Part]] = {}
    for root, splits in map(_splits_of, map(str, parts)):
        for place, provenance in splits.items():
            found.setdefault(place, []).append((root, provenance))
    for (config, split), shares in found.items():
        for root, provenance in shares[1:]:
            where, cure = f"{root}:{config}/{split}", f"not a part of {shares[0][0]}'s split"
            check_same_job(where, provenance, shares[0][1], cure)
            check_same_version(where, provenance, shares[0][1], cure)
            check_same_code(where, provenance, shares[0][1], cure)
    summaries, missing = {}, []
    for (config, split), shares in found.items():
        try:
            summaries[f"{config}/{split}"] = _merge(shares, Path(output), config, split, on_note)
        except _IncompleteError as error:
            missing.append(error)
    if missing:
        raise missing[0]
    return summaries


class _IncompleteError(UserError):
    """Some shards of a split are in none of its parts."""


def _splits_of(part: str) -> tuple[Path, dict[tuple[str, str], Provenance]]:
    reference = parse_reference(part)
    root, wanted = Path(reference.repo), (reference.config, reference.split)
    if not root.is_dir():
        raise UserError(f"{part}: no such folder; merge the {option('output')} folders of generate commands")
    found = {place: provenance for place, provenance in read_all(root).items() if wanted in ((None, None), place)}
    for (config, split), provenance in found.items():
        check_not_newer(f"{part}: {config}/{split}", provenance)
    if not found:
        raise UserError(
            f"{part}: contains no perturbed split; merge the {option('output')} folders of generate commands"
        )
    return root, found


def _merge(parts: list[_Part], output: Path, config: str, split: str, on_note: Callable[[str], None]) -> Summary:
    first = parts[0][1]
    runs = [run for _, provenance in parts for run in provenance.runs]
    if (difference := _different_versions(runs)) is not None:
        on_note(f"{output}:{config}/{split}: {difference}")
    found: dict[int, Path] = {}
    for root, provenance in parts:
        folder = SplitFolder.of(SplitPaths(root, config, split), provenance)
        intact, wrong = folder.intact_shards(provenance)
        for error in wrong:
            on_note(f"{error.path}: {error.reason}; it is left out")
        for shard in intact:
            _check_same_file(found.setdefault(shard, folder.shard_path(shard)), folder.shard_path(shard))
    with claimed_alone(output, config, split, first, runs, on_note) as (target, _):
        there = {shard: target.shard_path(shard) for shard in range(target.shards) if target.shard_path(shard).exists()}
        for shard in sorted(found.keys() & there.keys()):
            _check_same_file(there[shard], found[shard])
        for shard in sorted(found.keys() - there.keys()):
            write_atomically(target.shard_path(shard), found[shard].read_bytes())
        if missing := target.shards - len({*there, *found}):
            raise _IncompleteError(
                f"{output}:{config}/{split}: {missing} of {target.shards} shards are in none of the parts; their "
                f"generate command with {option('output')} {output} makes them"
            )
        return finish(target)


def _different_versions(runs: Sequence[Run]) -> str | None:
    """A line where rows were made by different versions of what computes them; None where all are of one."""
    found = []
    for library in _COMPUTE:
        versions = sorted({run.versions[library] for run in runs if run.versions and library in run.versions})
        if len(versions) > 1:
            found.append(f"{library} {' and '.join(versions)}")
    if not found:
        return None
    return (
        f"its parts were made with {', '.join(found)}: rows of the one may differ from the other's in the last digits, "
        "and now and then in a step; the provenance names both"
    )


def _check_same_file(one: Path, other: Path) -> None:
    """Raises UserError where two files of one shard differ: which of them is right can't be known."""
    if one != other and sha256_of(one) != sha256_of(other):
        raise UserError(f"{other}: differs from {one}, though both are the same shard; merge without one of the two")
