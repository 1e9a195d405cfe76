"""`accelerate launch fmrgen …`, `accelerate launch -m fmrgen …`, `torchrun -m fmrgen …` and `python -m fmrgen …`."""

import sys
from pathlib import Path

# `accelerate launch fmrgen` runs this folder as a script and puts it first on the path, where its modules (datasets,
# statistics) would hide those of the same name elsewhere. The package's parent is what belongs there.
_here = Path(__file__).resolve().parent
if sys.path and sys.path[0] and Path(sys.path[0]).resolve() == _here:
    sys.path[0] = str(_here.parent)

from fmrgen.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
