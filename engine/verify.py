"""Offline check of an engine's directory, and what puts aside the parts that are damaged."""

import shutil
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from .config import Config
from .errors import VersionError
from .owner import kept_free
from .store import Damage, verify_store
from .versions import VersionStore

__all__ = ["Damage", "repair", "verify"]

_QUARANTINE = "quarantine"


def verify(data: str | Path, config: Config | None = None) -> list[Damage]:
    """Check everything under ``data``: the store with its caches, and the versions; changes nothing.

    Every checksum is verified, every record decoded and compared with the others. Returns what is damaged, an empty
    list if nothing is. Raises ``StoreInUseError`` while an engine has the directory open, ``StoreError`` if there is
    none, ``StoreFormatError`` and ``ConfigError`` for a store of another release or configuration.
    """
    data, config = Path(data), config or Config()
    with kept_free(data / "store"):
        return [*verify_store(data / "store", config.store), *_versions(data / "models")]


def repair(data: str | Path, damage: Iterable[Damage]) -> Path | None:
    """Put aside what `verify` found, under ``data/quarantine``; returns that directory, None if nothing had to move.

    The next start then builds the rest again: the store by reading its sources from their beginning, caches and
    versions from the store. Raises ``StoreInUseError`` while an engine has the directory open.
    """
    data = Path(data)
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    quarantine = data / _QUARANTINE / now
    found = list(damage)
    with kept_free(data / "store"):
        # a store that moves takes what is inside it along
        for path in sorted({Path(each.path) for each in found}):
            if path.exists():
                target = quarantine / path.relative_to(data)
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                shutil.move(path, target)
        if any(each.kind == "version" for each in found):
            _serve_what_is_left(VersionStore(data / "models"))
    return quarantine if quarantine.exists() else None


def _versions(path: Path) -> Iterator[Damage]:
    kept = VersionStore(path)
    for number in kept.list():
        try:
            kept.load(number)
        except VersionError as error:
            folder = str(path / f"{number:06d}")
            yield Damage("version", f"version {number}", folder, str(error), "is left out; the newest one left serves")
    _, problem = kept.to_serve()
    if problem is not None:
        file = str(path / "current.json")
        yield Damage("version", "serving version", file, problem, "gives way to the newest version")


def _serve_what_is_left(kept: VersionStore) -> None:
    if kept.to_serve()[1] is None:
        return
    if numbers := kept.list():
        kept.set_current(numbers[-1])
    else:
        (kept.path / "current.json").unlink(missing_ok=True)
