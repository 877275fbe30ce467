"""Commands of the service: run, init."""

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from .connect import DEFAULT_DATA
from .logs import log_live, timestamp
from .options import one_of
from .output import say
from .signals import stop_on_signal

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this subject."""
    app.command(epilog="Example: recurra run --source kafka://127.0.0.1:9092/plays --data recurra-data")(run)
    app.command(epilog="Example: recurra init && recurra run --config recurra.toml")(init)


def run(
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A recurra.toml; `recurra init` writes one.")
    ] = None,
    data: Annotated[Path, typer.Option(metavar="DIR", help="The engine's directory.")] = Path(DEFAULT_DATA),
    source: Annotated[
        str,
        typer.Option(metavar="SOURCE", help="kafka://HOST:PORT/TOPIC, a FILE, - (JSON lines on standard input), none."),
    ] = "none",
    group: Annotated[str | None, typer.Option(help="Kafka consumer group; it only reports the lag.")] = None,
    api: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where to serve HTTP, or off.")] = None,
    train: Annotated[str | None, typer.Option(metavar="auto|off", help="Whether to train in the background.")] = None,
) -> None:
    """Run the engine as a service until SIGTERM: take in events, learn, answer queries."""
    import msgspec

    import recurra
    from recurra.engine import check_free

    settings = recurra.load_config(config)
    if group is not None:
        settings = msgspec.structs.replace(settings, kafka=msgspec.structs.replace(settings.kafka, group=group))
    if train is not None:
        mode = one_of("--train", train, ("auto", "off"))
        settings = msgspec.structs.replace(settings, training=msgspec.structs.replace(settings.training, mode=mode))
    log_live()
    address = _address(api, settings.api.host, settings.api.port)
    # before the imports of the engine, which take seconds
    check_free(data / "store")
    from recurra.connectors.http import Listener

    listener = None if address is None else Listener(*address)
    if listener is not None:
        listener.start()
    from recurra.connectors.kafka import CLOSING
    from recurra.connectors.service import run_service

    stopped = threading.Event()
    run_service(
        data,
        settings,
        source=source,
        api=listener,
        stopped=stopped,
        say=_log,
        opened=lambda: stop_on_signal(stopped),
    )
    # a client that still waits for its broker would crash while the interpreter is taken down; all else is closed
    if any(thread.name == CLOSING for thread in threading.enumerate()):
        sys.stderr.flush()
        os._exit(0)


def init(
    path: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to write it.")] = Path("recurra.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented recurra.toml with every setting at its default."""
    from recurra.engine.errors import ConfigError

    if path.exists() and not force:
        raise ConfigError(f"{path} is there already; --force replaces it")
    from .template import config_text

    # passwords will be written into it
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(config_text())
    say(f"wrote {path}; start with: recurra run --config {path}")


def _address(text: str | None, host: str, port: int) -> tuple[str, int] | None:
    from recurra.engine.errors import ConfigError

    if text is None:
        return host, port
    if text == "off":
        return None
    name, colon, number = text.rpartition(":")
    if not colon or not name or not number.isdecimal() or int(number) > 65_535:
        raise ConfigError(f"--api expects HOST:PORT or off, got {text!r}")
    return name.strip("[]"), int(number)


def _log(text: str) -> None:
    # a log on a full disk, or a pipe that nobody reads any more, must not end the service
    with contextlib.suppress(OSError):
        typer.echo(f"{timestamp()} {text}", err=True)
