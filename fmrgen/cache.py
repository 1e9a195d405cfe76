"""Where things are kept that can be made or downloaded again."""

import os
from pathlib import Path

FOLDER = "FMRGEN_CACHE"  # variable of the environment


def cache_folder() -> Path:
    """`FMRGEN_CACHE`, or `fmrgen` in the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fmrgen"
    return Path(os.environ.get(FOLDER) or default).expanduser()
