"""Pretrained parts from a folder, an asset or the Hub, with errors that a user can act on."""

from typing import Any

from fmrgen.assets import resolve_path
from fmrgen.errors import UserError


def from_pretrained(loader: Any, reference: str, what: str, revision: str | None = None, **options: Any) -> Any:
    """`loader.from_pretrained(reference)`, never running code from the repo.

    Raises UserError, starting with `what`, where there is nothing to load or it can't be reached.
    """
    try:
        return loader.from_pretrained(resolve_path(reference), revision=revision, trust_remote_code=False, **options)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split("\n\n")[0].split())
        raise UserError(f"{what}: {reference} can't be loaded: {reason[:300]}") from None
