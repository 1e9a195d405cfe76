"""Originals that a split does not hold, from the source that it was made of."""

from collections.abc import Callable, Iterator
from functools import partial

from fmrgen.errors import UserError, option
from fmrgen.evaluation.images import batches_of_examples
from fmrgen.evaluation.measured import MeasuredSplit
from fmrgen.image_files import resize
from fmrgen.labels import plain
from fmrgen.recipe.build import build_source
from fmrgen.recipe.job import load_source
from fmrgen.recipe.sections import SourceOnly
from fmrgen.sources.base import RawExample, Source, SourceConfig
from fmrgen.split.classify import Batch
from fmrgen.split.rows import Split
from fmrgen.trust.recipes import UntrustedError, untrusted_config


def originals_reader(
    measured: MeasuredSplit, user_source: str | SourceConfig | None, trust: bool, batch_size: int
) -> Callable[[], Iterator[Batch]] | None:
    """Return what reads the originals of a split that has none from its source; None, and a note, where it can't.

    The source is `user_source`, which the user named, else the one in the provenance; `trust` says whether that may run
    code. Raises UserError if a source that the user named can't be used, or is not the one that the split was generated
    from.
    """
    notes = measured.notes
    config = _source_section(user_source, measured.split, trust, notes)
    if config is None:
        return None
    if "id" not in measured.columns:
        raise UserError(
            f"{measured.split.name}: has no column of distinct ids, so its originals can't be found in a source"
        )
    height, width = measured.images["image"].first.shape[:2]
    if height != width:
        raise UserError(
            f"{measured.split.name}: its images are not square, so its originals can't be reproduced from a source"
        )
    try:
        source = build_source(config)
    except UserError as error:
        if user_source is not None:
            raise
        notes.append(
            f"SA and FMR are not available: there is no column original, and {error}; pass another {option('source')}"
        )
        return None
    finish = partial(resize, size=height, fit=source.fit)
    return lambda: batches_of_examples(_examples_of_rows(source, measured), batch_size, "original", finish)


def _source_section(
    user_source: str | SourceConfig | None, split: Split, trust: bool, notes: list[str]
) -> SourceConfig | None:
    if user_source is not None:
        return load_source(user_source) if isinstance(user_source, str) else user_source
    if split.provenance is None:
        notes.append(
            f"SA and FMR are not available: there is no column original and no provenance; pass {option('source')}"
        )
        return None
    tree = {"source": split.provenance.recipe.source.tree}
    title = "the originals' source in the provenance"
    cure = f"if you trust it, pass {option('trust', 'trust=True')}"
    try:
        return untrusted_config(SourceOnly, tree, title, trust=trust, cure=cure).source
    except UntrustedError as error:
        notes.append(f"SA and FMR are not available: there is no column original, and {error}")
        return None
    except UserError as error:
        raise UserError(f"{split.name}: {error}") from None


def _examples_of_rows(source: Source, measured: MeasuredSplit) -> Iterator[tuple[int, RawExample]]:
    """Yield each row of a split with its example. Raises UserError if a row has none, or one of another class."""
    row_of = {int(example_id): row for row, example_id in enumerate(measured.columns["id"])}
    for example in source.read(0, len(source)):
        row = row_of.pop(example.id, None)
        if row is None:
            continue
        label = int(measured.columns["label"][row])
        theirs, ours = source.labels.names[example.label], measured.labels.names[label]
        is_same = example.label == label  # labels without names are numbers of the source's classes
        if measured.split.labels:
            is_same = plain(theirs) == plain(ours)
        if not is_same:
            raise UserError(
                f"source: id {example.id} is a {theirs!r} there and a {ours!r} in {measured.split.name}; it is "
                "another source"
            )
        yield row, example
        if not row_of:
            return
    if row_of:
        more = f" and {len(row_of) - 1} more ids" if len(row_of) > 1 else ""
        raise UserError(f"source: id {next(iter(row_of))}{more} of {measured.split.name} are not in it")
