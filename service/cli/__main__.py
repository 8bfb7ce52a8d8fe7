"""``python -m service.cli``: the same as ``twinset``."""

from service.cli import main

main()
