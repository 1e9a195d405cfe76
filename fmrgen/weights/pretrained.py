"""Pretrained parts from a folder, an asset or the Hub, with errors that a user can act on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fmrgen.errors import UserError, one_line
from fmrgen.hub.timeouts import bound_requests
from fmrgen.trust.recipes import LARGEST_INPUT, shapes_a_network
from fmrgen.weights.assets import resolve_path


def from_pretrained(
    loader: Any, reference: str, what: str, revision: str | None = None, trust_remote_code: bool = False, **options: Any
) -> Any:
    """`loader.from_pretrained(reference)`, running code from the repo only where it is trusted.

    Raises UserError, starting with `what`, where there is nothing to load or it can't be reached.
    """
    bound_requests()
    options |= {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        with _without_a_bar():
            return loader.from_pretrained(resolve_path(reference), **options)
    except Exception as error:  # a broken or foreign folder can fail anywhere in the libraries
        raise UserError(f"{what}: {reference} can't be loaded: {one_line(error)}") from error


@contextmanager
def _without_a_bar() -> Iterator[None]:
    """Weights are read in a moment, without a bar of transformers' own for each model; its setting is the caller's."""
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging

    # Where the environment turns the Hub's bars off, turning all on again only makes a warning.
    shown = logging.is_progress_bar_enabled() and not are_progress_bars_disabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def pretrained_model(loader: Any, reference: str, what: str, revision: str | None = None, **options: Any) -> Any:
    """`from_pretrained` for a model: a weight that the files lack is an error too, not a random weight."""
    if not options.get("trust_remote_code"):
        _check_config_loads_nothing(loader, reference, what, revision)
    model, loaded = from_pretrained(loader, reference, what, revision, output_loading_info=True, **options)
    for problem in ("missing_keys", "mismatched_keys"):
        if keys := sorted(map(str, loaded.get(problem) or [])):
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise UserError(f"{what}: {reference} lacks weights of a {type(model).__name__}: {keys[0]}{more}")
    return model


def image_processor(reference: str, what: str, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The image processor of a model. Raises UserError, also for one that makes larger images than networks take."""
    from transformers import AutoImageProcessor

    processor = from_pretrained(AutoImageProcessor, reference, what, revision, trust_remote_code)
    settings = processor.to_dict()
    sides = [settings.get(name) for name in ("size", "crop_size", "pad_size")]
    for side in (value for entry in sides if isinstance(entry, dict) for value in entry.values()):
        if isinstance(side, int | float) and side > LARGEST_INPUT:
            raise UserError(f"{what}: {reference} resizes images to {side} px; networks take at most {LARGEST_INPUT}")
    return processor


def _check_config_loads_nothing(loader: Any, reference: str, what: str, revision: str | None) -> None:
    """Raises UserError where a config has timm load weights from elsewhere: transformers would pass it on."""
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
        raise UserError(f"{what}: {reference} can't be loaded: {one_line(error)}") from error


def local_file(reference: str, what: str) -> Path:
    """A file given as a path, as `asset:…`, or as `hf:owner/repo/path/in/repo` on the Hub (downloaded once).

    Raises UserError, starting with `what`, where it is not there.
    """
    if reference.startswith("hf:"):
        owner, repo, file = [*reference.removeprefix("hf:").split("/", 2), "", ""][:3]
        if not file:
            raise UserError(f"{what}: {reference} must be hf:owner/repo/file")
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        bound_requests()
        try:
            return Path(hf_hub_download(f"{owner}/{repo}", file))
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise UserError(f"{what}: {reference} can't be downloaded: {one_line(error)}") from None
    path = Path(resolve_path(reference))
    if not path.is_file():
        raise UserError(f"{what}: no such file as {reference}")
    return path
