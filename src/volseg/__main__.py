"""``python -m volseg`` is ``volseg``."""

import gc
import os
import sys

from volseg.cli import main
from volseg.cli.streams import open_missing


def run() -> None:
    """Run a command as a process of its own."""
    open_missing()
    try:
        main()
    except SystemExit as ended:
        gc.freeze()  # the system takes back all that is left, sooner than Python (decision 0076)
        from volseg.engine.pool import running

        if not running():
            raise
        # a block was left, because it hangs or nobody wanted to wait for it: were Python to end as
        # usual, its thread would be torn out of a library, and the process end by a signal
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1)


if __name__ == "__main__":
    run()
