"""A finished split of the very same job is recognised by its files, in a second: no model is built."""

import logging
from dataclasses import replace
from pathlib import Path

from fmrgen.config import ComponentConfig, sections_in
from fmrgen.distributed.launcher import launched_precision
from fmrgen.distributed.rank import note
from fmrgen.errors import UserError
from fmrgen.files import fingerprint, sha256_of
from fmrgen.metrics.cautions import cautions
from fmrgen.metrics.summary import Summary
from fmrgen.recipe.job import Recipe
from fmrgen.storage.paths import CARD, SplitPaths
from fmrgen.storage.provenance import Provenance, read_provenance
from fmrgen.storage.shards import summary_of
from fmrgen.trust.code import runs_code_of_others
from fmrgen.weights.assets import resolve_path
from fmrgen.weights.download import is_address
from fmrgen.weights.pretrained import HUB_FILE, parts_of_hub_file
from fmrgen.weights.remote import cached_commit


def finished_summary(recipe: Recipe, output: str | Path) -> Summary | None:
    """Return the figures of a finished split if this very job made it, as far as files tell; None if it must be built.

    The recipe, the files that its models are loaded from, and the number and labels of the source's examples are
    compared, and the names, sizes and times of the shards. Code of others can depend on anything, so it is always
    built. `verify` is the check of every byte.
    """
    paths = SplitPaths(Path(output), recipe.output.config, recipe.output.split)
    if not paths.provenance.is_file():
        return None
    recipe = with_recorded_step(recipe.in_precision(launched_precision()), paths)
    try:
        provenance = read_provenance(paths)
        is_of_recipe = provenance.is_finished and provenance.fingerprint == recipe.fingerprint
        if not is_of_recipe or not _is_untouched(paths, provenance) or provenance.models_read is None:
            return None
        if provenance.models_read != models_read(recipe.classifier, recipe.generator, recipe.oracle):
            return None
        source = recipe.source.build()
    except (UserError, OSError):  # which the job itself reports
        return None
    if len(source) != provenance.examples or tuple(source.labels.names) != tuple(provenance.labels):
        return None
    summary = summary_of(provenance)
    note(f"{output}:{paths.name}: is complete; there is nothing to do", logging.INFO)
    for caution in cautions(summary, steps=provenance.judged_steps):
        note(caution)
    return summary


def with_recorded_step(recipe: Recipe, paths: SplitPaths) -> Recipe:
    """Return the recipe with the step size that its split has, if it asks for `auto` and has a split."""
    if recipe.perturb.step_size != "auto" or not paths.is_on_record:
        return recipe
    step = float(read_provenance(paths).recipe.tree["perturb"]["step_size"])
    return recipe.model_copy(update={"perturb": replace(recipe.perturb, step_size=step)})


def models_read(*sections: ComponentConfig) -> str | None:
    """Return a digest of the files and commits that models are loaded from; None if files can't tell."""
    if any(runs_code_of_others(section) for section in sections):
        return None
    digests: list[str] = []
    for _, config in sections_in(sections):
        places, model, read = config.PLACES or (), config.hub_model(), []
        if model is not None:
            read.append(_commit(model.repo, model.revision))
        for reference in (getattr(config, key) for key in places):
            if reference is not None and (model is None or reference != model.repo):
                read += _contents(reference)
        has_random_weights = not read and any(key != "mask" for key in places)
        digests += [""] if has_random_weights else read
    return None if "" in digests else fingerprint(digests)


def _contents(reference: str) -> list[str]:
    """Return digests of what a reference names; "" for what is not on this machine."""
    if is_address(reference):  # downloaded once, and kept
        return [reference]
    if reference.startswith(HUB_FILE):
        repo, _, revision = parts_of_hub_file(reference, "")
        return [_commit(repo, revision)]
    path = Path(resolve_path(reference))
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [sha256_of(file) for file in files if file.is_file()] or [""]


def _commit(repo: str, revision: str | None) -> str:
    """Return the commit of a model's repo that the Hub's cache has for a revision; "" if it has none."""
    folder = cached_commit(repo, revision)
    return folder.name if folder.is_dir() else ""


def _is_untouched(paths: SplitPaths, provenance: Provenance) -> bool:
    """Return whether all files of a finished split are there, and no shard was written after it was finished."""
    shards = [(paths.root / name).stat() for name in provenance.files]
    is_unchanged = sum(shard.st_size for shard in shards) == provenance.download_size
    finished = paths.provenance.stat().st_mtime_ns
    is_older = all(shard.st_mtime_ns <= finished for shard in shards)
    return is_unchanged and is_older and paths.picture.is_file() and (paths.root / CARD).is_file()
