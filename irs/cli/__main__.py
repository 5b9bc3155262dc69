"""``python -m irs.cli`` is ``irs``."""

from irs.cli import main

main()
