"""Pretrained parts from a folder, an asset or the Hub, with errors that a user can act on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fmrgen.errors import UserError, one_line
from fmrgen.hub.timeouts import bound_requests
from fmrgen.trust.recipes import LARGEST_INPUT, shapes_a_network
from fmrgen.weights.assets import resolve_path
from fmrgen.weights.download import downloaded, is_address

HUB_FILE = "hf:"  # how a reference to one file on the Hub begins


def from_pretrained(
    loader: Any, reference: str, key: str, revision: str | None = None, trust_remote_code: bool = False, **options: Any
) -> Any:
    """Return `loader.from_pretrained(reference)`, running code from the repo only if it is trusted.

    The loader is a class of transformers or diffusers; `reference` is a folder, an asset or a repo on the Hub, and
    `revision` a commit, branch or tag there. Raises UserError, starting with `key`, if there is nothing to load, or it
    can't be reached.
    """
    bound_requests()
    options |= {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        with _no_progress_bar():
            return loader.from_pretrained(resolve_path(reference), **options)
    except Exception as error:  # a broken or foreign folder can fail anywhere in the libraries
        raise UserError(f"{key}: {reference} can't be loaded: {one_line(error)}") from error


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Turn off transformers' own bar, since weights are read in a moment, and restore the caller's setting after."""
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging

    # If the environment turns the Hub's bars off, turning all on again only raises a warning.
    shown = logging.is_progress_bar_enabled() and not are_progress_bars_disabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def pretrained_model(loader: Any, reference: str, key: str, revision: str | None = None, **options: Any) -> Any:
    """Return a model as `from_pretrained` does, but a weight that the files lack is an error, not a random weight."""
    if not options.get("trust_remote_code"):
        _check_config_loads_nothing(loader, reference, key, revision)
    model, loaded = from_pretrained(loader, reference, key, revision, output_loading_info=True, **options)
    for problem in ("missing_keys", "mismatched_keys"):
        keys = sorted(map(str, loaded.get(problem) or []))
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise UserError(f"{key}: {reference} lacks weights of a {type(model).__name__}: {keys[0]}{more}")
    return model


def image_processor(reference: str, key: str, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """Return the image processor of a model, whose parameters are as those of `from_pretrained`.

    Raises UserError if it can't be loaded, or makes larger images than networks take.
    """
    from transformers import AutoImageProcessor

    processor = from_pretrained(AutoImageProcessor, reference, key, revision, trust_remote_code)
    settings = processor.to_dict()
    for name in ("size", "crop_size", "pad_size"):
        sides = settings.get(name)
        for side in sides.values() if isinstance(sides, dict) else ():
            if isinstance(side, int | float) and side > LARGEST_INPUT:
                raise UserError(
                    f"{key}: {reference} resizes images to {side} px; networks take at most {LARGEST_INPUT}"
                )
    return processor


def _check_config_loads_nothing(loader: Any, reference: str, key: str, revision: str | None) -> None:
    """Raise UserError for a config that makes timm load weights from elsewhere; transformers would pass it on."""
    if not loader.__module__.startswith("transformers."):
        return
    from transformers import PreTrainedConfig

    try:
        config, _ = PreTrainedConfig.get_config_dict(resolve_path(reference), revision=revision)
        if config.get("trust_remote_code"):
            raise ValueError("its config asks to run third-party code")
        for name in ("model_args", "backbone_kwargs"):
            shapes_a_network(config.get(name) or {})
    except Exception as error:  # a broken or foreign folder can fail anywhere in the libraries
        raise UserError(f"{key}: {reference} can't be loaded: {one_line(error)}") from error


def local_file(reference: str, key: str) -> Path:
    """Return a file of this machine, downloaded once if need be.

    `reference` is a path, `asset:…`, an address that `weights.download` fetches, or `hf:OWNER/REPO/FILE`, at another
    commit, branch or tag than the main one `hf:OWNER/REPO/FILE@REVISION`. Raises UserError, starting with `key`, if
    there is none.
    """
    if is_address(reference):
        return downloaded(reference, key)
    if reference.startswith(HUB_FILE):
        repo, file, revision = parts_of_hub_file(reference, key)
        return _file_of_hub(repo, [file], key, revision, reference)
    path = Path(resolve_path(reference))
    if not path.is_file():
        raise UserError(f"{key}: no such file as {reference}")
    return path


def parts_of_hub_file(reference: str, key: str) -> tuple[str, str, str | None]:
    """Return repo, file and revision of `hf:OWNER/REPO/FILE[@REVISION]`. Raises UserError, starting with `key`."""
    address, _, revision = reference.removeprefix(HUB_FILE).partition("@")
    owner, repo, file = [*address.split("/", 2), "", ""][:3]
    if not file:
        raise UserError(f"{key}: {reference} must be hf:OWNER/REPO/FILE or hf:OWNER/REPO/FILE@REVISION")
    return f"{owner}/{repo}", file, revision or None


def file_of_model(model: str, names: Sequence[str], key: str, revision: str | None = None) -> Path:
    """Return the first of the files `names` that a folder, an asset or a repo of the Hub has.

    `revision` is a commit, branch or tag on the Hub. Raises UserError, starting with `key`, if it has none of them, or
    can't be reached.
    """
    folder = Path(resolve_path(model))
    if not folder.is_dir():
        return _file_of_hub(model, names, key, revision, model)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{key}: {model} is not a model's folder: it has no {' or '.join(names)}")


def _file_of_hub(repo: str, names: Sequence[str], key: str, revision: str | None, reference: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    bound_requests()
    for name in names:
        try:
            return Path(hf_hub_download(repo, name, revision=revision))
        except LocalEntryNotFoundError as error:  # the Hub can't be reached
            if name == names[-1]:
                raise UserError(f"{key}: {reference} can't be downloaded: {one_line(error)}") from None
        except EntryNotFoundError:
            continue
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise UserError(f"{key}: {reference} can't be downloaded: {one_line(error)}") from None
    raise UserError(f"{key}: {repo} on the Hub has no {' or '.join(names)}")
