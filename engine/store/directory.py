"""Directories that other users of the machine cannot read: histories are about people."""

import contextlib
from pathlib import Path

from ..errors import StoreError

__all__ = ["make_directory"]


def make_directory(path: Path, umask: int) -> None:
    """Create a directory and its missing parents without the permissions in ``umask``; take them from one of ours.

    The parents that were there keep theirs. Raises ``StoreError`` if it cannot be created.
    """
    try:
        _make(path, umask)
    except OSError as error:
        raise StoreError.of_file(error, f"cannot create the directory {path}") from None


def _make(path: Path, umask: int) -> None:
    if not path.parent.is_dir():
        _make(path.parent, umask)
    path.mkdir(mode=0o777 & ~umask, exist_ok=True)
    mode = path.stat().st_mode & 0o777
    if mode & umask:
        # on a directory of another user the engine cannot, and what is in it was theirs to show
        with contextlib.suppress(PermissionError):
            path.chmod(mode & ~umask)
