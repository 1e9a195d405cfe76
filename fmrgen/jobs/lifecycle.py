"""A split in the making: a folder taken for it by one job alone, and its end, when it is proved whole."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fmrgen.errors import UserError
from fmrgen.files import held, refuse_outside
from fmrgen.hub.card import refuse_unreadable_card, renew_card
from fmrgen.metrics import SUMMARY_COLUMNS, Summary, summarise
from fmrgen.records import StopReason
from fmrgen.report.show import write_picture
from fmrgen.storage.provenance import claim, features_of, is_finished
from fmrgen.storage.shards import SplitFolder, Tally, put_aside

_MEASURES = ("loss", "clip_score")


@dataclass
class Taken:
    """A folder taken by this process: the split's provenance, and what was right in it by shard."""

    provenance: dict[str, Any]
    sound: dict[int, Tally]


def take(
    folder: SplitFolder,
    fresh: dict[str, Any],
    runs: list[dict[str, Any]],
    locks: ExitStack,
    on_note: Callable[[str], None],
) -> Taken:
    """Takes the folder, for as long as `locks` are held, and looks what is in it; what is wrong is put aside and noted.

    `fresh` is the provenance of a split that is begun here, `runs` are added to it where something is to be done.
    Raises UserError where another job is at work on the folder, or another recipe's split is in it.
    """
    where = f"{folder.root}:{folder.config}/{folder.split}"
    busy = f"{where}: another job is at work on it; wait until it ends, or choose another --output"
    refuse_outside(folder.provenance_path.parent, folder.root)
    locks.enter_context(held(folder.lock_path, busy))
    for path in (folder.shard_path(0), folder.picture_path):
        refuse_outside(path.parent, folder.root)
    refuse_unreadable_card(folder.root)
    provenance = claim(folder, fresh)
    digests = dict(provenance.get("files", {}))  # of an earlier end, whether or not something was remade since
    sound, wrong = folder.sound_shards(features_of(provenance), provenance["fingerprint"], digests)
    for error in wrong:
        on_note(f"{error.path}: {error.reason}; it is made anew, the file is kept as {put_aside(error.path).name}")
    if len(sound) < folder.shards or not is_finished(provenance):
        # Parts tell of the same runs: of several records of one, the folder's own stays.
        known = {(run.get("job"), run["started"]): run for run in [*runs, *provenance["runs"]]}
        provenance["runs"] += [run for run in known.values() if run not in provenance["runs"]]
        names = {folder.name_of(shard) for shard in sound}
        provenance |= {"finished": False, "files": {n: digest for n, digest in digests.items() if n in names}}
        folder.remove_leftovers()
        folder.begin(provenance)
    return Taken(provenance, {shard: found.tally for shard, found in sound.items()})


def complete(folder: SplitFolder, provenance: dict[str, Any], faults: Counter[str | None] | None = None) -> Summary:
    """Checks the whole split, marks `provenance` finished and writes the picture and the card; of a split that is
    finished only what a killed run did not write. `faults` counts what was not finite in the rows of this run.

    Raises UserError where a row is missing or wrong, and where no row is worth anything.
    """
    checked = None
    if not is_finished(provenance):
        checked = folder.check_complete(features_of(provenance), provenance["fingerprint"])
        if len(checked.skipped) == folder.examples:
            first = checked.skipped[0].reason
            raise UserError(f"source: all {len(checked.skipped)} images were unreadable and skipped; first: {first}")
    table = folder.read_columns([*dict.fromkeys([*SUMMARY_COLUMNS, *_MEASURES, "stop_reason"])])
    columns = {name: table[name].to_numpy() for name in table.column_names}
    if (columns["stop_reason"] == list(StopReason).index(StopReason.NONFINITE)).all() and not columns["valid"].any():
        told = {"classifier": columns["loss"], "oracle": columns["clip_score"]}  # of the originals
        stored: Counter[str | None] = Counter({part: int(np.isnan(values).sum()) for part, values in told.items()})
        raise nothing_finite(len(table), faults or +stored)
    summary = summarise({name: columns[name] for name in SUMMARY_COLUMNS})
    if checked is not None:
        provenance |= checked._asdict() | {"skipped": [entry._asdict() for entry in checked.skipped]}
        provenance |= {"summary": asdict(summary), "finished": True}
        folder.write_provenance(provenance)
    if checked is not None or not folder.picture_path.exists():
        write_picture(folder.root, folder.config, folder.split)
    renew_card(folder.root)
    return summary


def nothing_finite(images: int, faults: Counter[str | None]) -> UserError:
    """The error of a job in which all of `images` images ended for want of numbers; `faults` counts what was none."""
    part = next((part for part, _ in faults.most_common() if part), None)
    which = part if part in ("generator", "classifier", "oracle") else "generator or classifier"
    what = "no finite gradient" if part == "gradient" else "NaN" if part else "no finite output or gradient"
    return UserError(f"{which}: gives {what} for every one of {images} images; check its weights and its preprocessing")
