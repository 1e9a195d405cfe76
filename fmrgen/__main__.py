"""`fmrgen …`, `accelerate launch fmrgen …`, `accelerate launch -m fmrgen …`, `torchrun -m fmrgen …` and
`python -m fmrgen …`.
"""

import os
import signal
import sys
from types import FrameType


def _end(number: int, frame: FrameType | None) -> None:
    if os.environ.get("LOCAL_RANK", "0") == "0":
        os.write(2, b"fmrgen: interrupted\n")
    os._exit(128 + number)


# Until the command listens itself: Ctrl-C in the middle of an import is a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)

from pathlib import Path  # noqa: E402

# `accelerate launch fmrgen` runs this folder as a script and puts it first on the path, where its modules and folders
# would hide those of the same name elsewhere. The package's parent is what belongs there.
# `-m` puts the folder there that one happens to stand in, whose files would be imported instead of libraries, or for
# optional ones that are not installed. Import paths in recipes find it again (fmrgen.config).
_here = Path(__file__).resolve().parent
if sys.path and sys.path[0] and Path(sys.path[0]).resolve() == _here:
    sys.path[0] = str(_here.parent)
elif sys.path and sys.path[0] == os.getcwd() and not sys.flags.safe_path:
    del sys.path[0]

from fmrgen.cli.app import main  # noqa: E402

if __name__ == "__main__":
    main()
