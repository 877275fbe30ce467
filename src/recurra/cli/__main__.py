"""``python -m recurra.cli``."""

from .app import main

main()
