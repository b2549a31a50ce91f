"""``python -m volseg`` is ``volseg``."""

from volseg.cli import main

main()
