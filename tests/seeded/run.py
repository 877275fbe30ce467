"""Live through a range of seeds: ``python tests/seeded/run.py FIRST COUNT``; prints the first that fails."""

import gc
import importlib
import logging
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
World = importlib.import_module("seeded.world").World


def main(first: int, count: int) -> None:
    # thousands of engines warn of the faults that they are given
    logging.disable(logging.CRITICAL)
    # what imports left is not looked through again and again
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        for seed in range(first, first + count):
            World(seed, patch).run()
    print(f"{count} seeds from {first} on: nothing wrong")


if __name__ == "__main__":
    main(*map(int, sys.argv[-2:]))
