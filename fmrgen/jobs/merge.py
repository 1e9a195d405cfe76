"""One split of its parts, as machines without a common file system leave them."""

from collections.abc import Callable, Sequence
from pathlib import Path

from fmrgen.errors import UserError, option
from fmrgen.files import check_writable, sha256_of, write_atomically
from fmrgen.jobs.lifecycle import check_same_code, claimed_alone, finish
from fmrgen.metrics.summary import Summary
from fmrgen.split.reference import parse_reference
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import Provenance, Run, check_same_job, read_all
from fmrgen.storage.shards import SplitFolder

_COMPUTE = ("fmrgen", "torch", "transformers", "diffusers", "timm")  # libraries whose version can change a row

_Part = tuple[Path, Provenance]


def merge(
    parts: Sequence[str | Path],
    output: str | Path,
    *,
    on_note: Callable[[str], None] = lambda line: None,
) -> dict[str, Summary]:
    """Copy the shards of parts into one folder, and finish the splits that are complete there.

    A shard that several parts hold is copied once; a damaged shard is left out. Every finished part records the sha256
    of its shards.

    Args:
        parts: folders, `FOLDER[:CONFIG/SPLIT]`, made by the same recipe, from the same examples and with the same
            weights.
        output: the dataset folder for all of them.
        on_note: called with a line for each file that is left out.

    Returns:
        The splits' figures by CONFIG/SPLIT.

    Raises:
        UserError: the parts do not belong together, two of them hold different files of one shard, or shards are
            missing. In the last case the others have been copied, and `generate` makes the rest.
    """
    check_writable(Path(output))
    parts_of: dict[tuple[str, str], list[_Part]] = {}
    for part in parts:
        root, splits = _splits_of(str(part))
        for place, provenance in splits.items():
            parts_of.setdefault(place, []).append((root, provenance))
    for (config, split), split_parts in parts_of.items():
        first_root, first = split_parts[0]
        for root, provenance in split_parts[1:]:
            title, cure = f"{root}:{config}/{split}", f"not a part of {first_root}'s split"
            check_same_job(title, provenance, first, cure)
            check_same_code(title, provenance, first, cure)
    summaries, missing = {}, []
    for (config, split), split_parts in parts_of.items():
        try:
            summaries[f"{config}/{split}"] = _merge(split_parts, Path(output), config, split, on_note)
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
    splits = {}
    for place, provenance in read_all(root).items():
        if wanted in ((None, None), place):
            splits[place] = provenance
    if not splits:
        raise UserError(
            f"{part}: contains no perturbed split; merge the {option('output')} folders of generate commands"
        )
    return root, splits


def _merge(parts: list[_Part], output: Path, config: str, split: str, on_note: Callable[[str], None]) -> Summary:
    first = parts[0][1]
    runs: list[Run] = []
    for _, provenance in parts:
        runs += provenance.runs
    difference = _different_versions(runs)
    if difference is not None:
        on_note(f"{output}:{config}/{split}: {difference}")
    sources: dict[int, Path] = {}  # of shards
    for root, provenance in parts:
        folder = SplitFolder.of(SplitPaths(root, config, split), provenance)
        intact, wrong = folder.intact_shards(provenance)
        for error in wrong:
            on_note(f"{error.path}: {error.reason}; it is left out")
        for shard in intact:
            path = folder.shard_path(shard)
            _check_same_file(sources.setdefault(shard, path), path)
    with claimed_alone(output, config, split, first, runs, on_note) as (target, _):
        existing = {shard for shard in range(target.shards) if target.shard_path(shard).exists()}
        for shard in sorted(sources.keys() & existing):
            _check_same_file(target.shard_path(shard), sources[shard])
        for shard in sorted(sources.keys() - existing):
            write_atomically(target.shard_path(shard), sources[shard].read_bytes())
        missing = target.shards - len(existing | sources.keys())
        if missing:
            raise _IncompleteError(
                f"{output}:{config}/{split}: {missing} of {target.shards} shards are in none of the parts; their "
                f"generate command with {option('output')} {output} makes them"
            )
        return finish(target)


def _different_versions(runs: Sequence[Run]) -> str | None:
    """Return a note if rows were made by different versions of what computes them."""
    differences = []
    for library in _COMPUTE:
        versions = sorted({run.versions[library] for run in runs if run.versions and library in run.versions})
        if len(versions) > 1:
            differences.append(f"{library} {' and '.join(versions)}")
    if not differences:
        return None
    return (
        f"its parts were made with {', '.join(differences)}: rows of the one may differ from the other's in the last "
        "digits, and now and then in a step; the provenance names both"
    )


def _check_same_file(first: Path, second: Path) -> None:
    """Raise UserError if two files of one shard differ: which of them is right can't be known."""
    if first != second and sha256_of(first) != sha256_of(second):
        raise UserError(f"{second}: differs from {first}, though both are the same shard; merge without one of the two")
