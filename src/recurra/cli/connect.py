"""Connection of a command: ``--data DIR`` opens a store, ``--url URL`` speaks to a service."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from recurra import Recommender

__all__ = ["DEFAULT_DATA", "ConfigFile", "Data", "Url", "opened", "require_store"]

DEFAULT_DATA = "recurra-data"

Data = Annotated[Path | None, typer.Option("--data", metavar="DIR", help=f"The engine's directory. [{DEFAULT_DATA}]")]
Url = Annotated[str | None, typer.Option("--url", metavar="URL", help="Speak to a running service instead.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="A recurra.toml.")]


@contextmanager
def opened(
    data: Path | None, url: str | None, config: Path | None = None, *, write: bool = False
) -> Iterator["Recommender"]:
    """Open what the flags name; for reading only unless ``write``, so that a store in use can be read."""
    import msgspec

    import recurra
    from recurra.engine import check_free
    from recurra.engine.errors import ConfigError

    if url is not None:
        if data is not None:
            raise ConfigError("--data and --url exclude each other: give one of them")
        with recurra.Client(url) as client:
            yield client
        return
    path = require_store(data)
    settings = recurra.load_config(config)
    if write:
        os.umask(settings.store.hidden_bits)
        check_free(path / "store")
    # a command does what it is asked, and starts nothing beside it
    training = msgspec.structs.replace(settings.training, mode="off")
    with recurra.open(path, msgspec.structs.replace(settings, training=training), read_only=not write) as engine:
        yield engine


def require_store(data: Path | None) -> Path:
    """Return the store's directory; raises ``ConfigError`` if there is none, rather than make an empty one."""
    from recurra.engine.errors import ConfigError

    path = data or Path(DEFAULT_DATA)
    if not path.is_dir():
        raise ConfigError(f"no store at {path}: give the directory of `recurra run` with --data, or --url")
    return path
