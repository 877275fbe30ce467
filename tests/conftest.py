"""Fixtures that every part of the suite shares."""

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"
_GOLDEN = Path(__file__).resolve().parent / "golden"


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Return the path of a real data file beside the repository, or skip with a reason."""

    def find(name: str) -> Path:
        path = _SHARED / "data" / name
        if not path.exists():
            pytest.skip(f"real data {name} is not beside the repository")
        return path

    return find


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Path]:
    """Return the path of a file of golden vectors, or skip with a reason: three of the five are optional."""
    further = Path(os.environ.get("RECURRA_GOLDEN", _SHARED / "golden"))

    def find(name: str) -> Path:
        for folder in (_GOLDEN, further):
            if (folder / name).exists():
                return folder / name
        pytest.skip(f"golden vectors {name} are optional, and not in RECURRA_GOLDEN (see tests/golden/README.md)")

    return find


def pytest_collection_finish() -> None:
    """Keep what imports made, half a million objects, out of every later search for cycles."""
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let go of all of it: libraries that look for leaks at the end would print them after the summary."""
    gc.unfreeze()
