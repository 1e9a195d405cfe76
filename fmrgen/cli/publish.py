"""The commands that bring splits and results to the Hub."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from cyclopts import Parameter

from fmrgen.cli import display, options
from fmrgen.errors import UserError


def push(
    folder: str,
    repo: str,
    /,
    *,
    public: options.Public = False,
    replace: options.Replace = False,
    revision: str | None = None,
    without_images: bool = False,
    results: Annotated[str | None, Parameter(metavar="CLASSIFIER")] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Push finished splits to the Hub.

    Existing content is kept. Run the same command again to resume.

    Example: fmrgen push out you/digits-fmr

    Args:
        folder: A dataset folder, for all its finished splits, or one split, DIR:CONFIG/SPLIT; with --results the
            folder of an evaluation.
        repo: A dataset repo on the Hub, created if missing; with --results a model's repo.
        revision: A branch or pull request (refs/pr/3), not main.
        without_images: Push no images, only what `fmrgen rebuild` needs to restore them from the originals.
        results: Propose the results of this classifier to its model's repo, by a pull request.
    """
    is_split = replace or revision is not None
    if results is not None and (is_split or public or without_images):
        raise UserError("--results: can't be combined with the other options of push")
    if without_images and is_split:
        raise UserError("--without-images: can't be combined with the other options of push")
    display.quiet_libraries(quiet)
    if results is not None:
        from fmrgen.publish.eval_results import push_results

        proposed = push_results(Path(folder), repo, results)
        display.print_outcome(proposed._asdict(), [proposed], as_json=as_json, quiet=quiet)
    elif without_images:
        from fmrgen.delta.card import push_delta
        from fmrgen.delta.rebuild import make_delta

        with TemporaryDirectory() as place:
            make_delta(folder, place)
            url = push_delta(Path(place), repo, public=public)
        display.print_outcome({"url": url}, [url], as_json=as_json, quiet=quiet)
    else:
        push_splits(folder, repo, public, replace, revision, quiet, as_json)


def push_splits(
    folder: str, repo: str, public: bool, replace: bool, revision: str | None, quiet: bool, as_json: bool = False
) -> None:
    """Push, and print where the splits are."""
    from fmrgen.publish.push import push as run

    display.quiet_libraries(quiet)
    with display.hub_progress(not quiet):
        pushed = run(folder, repo, public=public, replace=replace, revision=revision)
    display.print_outcome(pushed, display.pushed_lines(pushed), as_json=as_json, quiet=quiet)


def rebuild(
    delta: str,
    /,
    *,
    source: Annotated[str, Parameter(metavar="RECIPE")],
    output: options.Output = Path("out"),
    quiet: options.Quiet = False,
) -> None:
    """Restore splits without images from your own originals.

    Example: fmrgen rebuild you/digits-fmr --source mnist-lenet --output out

    Args:
        delta: A repo that `fmrgen push --without-images` filled, OWNER/NAME[@REVISION], or a copy of it in a folder.
        source: The recipe whose source has the originals, or {kind: …}.
        output: The dataset folder.
    """
    from fmrgen.files import check_writable
    from fmrgen.hub.client import check_repo_name
    from fmrgen.recipe.job import load_source
    from fmrgen.split.reference import deltas_of

    if not Path(delta).is_dir():
        check_repo_name(delta.partition("@")[0])
    elif not deltas_of(Path(delta)):
        raise UserError(f"{delta}: contains no split without images; push one with --without-images")
    load_source(source)
    check_writable(output)

    from fmrgen.delta.rebuild import rebuild as run
    from fmrgen.progress.bars import progress_shown

    display.quiet_libraries(quiet)
    with progress_shown(not quiet):
        rebuilt = run(delta, source, output)
    for split in rebuilt:
        display.print_line(f"{output}:{split}")
