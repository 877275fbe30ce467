"""Options that commands share, and checks of the values that options take."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from recurra import FieldNames
    from recurra.connectors.catalogue import Catalogue

__all__ = ["CatalogueFile", "one_of", "read_catalogue"]

CatalogueFile = Annotated[
    str | None,
    typer.Option("--catalogue", metavar="FILE|none", help="Records of the items; else a file beside the events."),
]


def one_of(flag: str, value: str, allowed: tuple[str, ...]) -> str:
    """Return ``value`` if it is allowed; raises ``ConfigError`` naming the flag."""
    from recurra.engine.errors import ConfigError

    if value not in allowed:
        raise ConfigError(f"{flag} expects {' or '.join(allowed)}, got {value!r}")
    return value


def read_catalogue(events: Path | None, value: str | None, fields: "FieldNames") -> "Catalogue | None":
    """Return the catalogue that ``--catalogue`` names, or the one beside ``events``; None for ``none`` and for no file.

    ``events`` is None for a stream that is in no file. Raises ``InputError``.
    """
    from recurra.simulations.datasets import load_catalogue

    return None if value == "none" else load_catalogue(events, value, fields=fields)
