"""Commands over versions: train, versions, rollback."""

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from .output import Json, Quiet, progress, say, table, write_json
from .target import ConfigFile, Data, Url, opened

if TYPE_CHECKING:
    from recurra import VersionInfo

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this subject."""
    app.command(epilog="Example: recurra train --once --data recurra-data")(train)
    app.command(epilog="Example: recurra versions --url http://127.0.0.1:8000 --json -")(versions)
    app.command(epilog="Example: recurra rollback 3 --data recurra-data")(rollback)


def train(
    once: Annotated[
        bool, typer.Option("--once", help="Wait for the result; without it a service only starts.")
    ] = False,
    data: Data = None,
    url: Url = None,
    config: ConfigFile = None,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Train a version on what was learnt so far; it serves if it passes the gate."""
    import recurra

    wait = once or url is None
    with opened(data, url, config, write=True) as engine, progress("training", quiet=quiet):
        report: object = engine.train(wait=wait) if isinstance(engine, recurra.Client) else engine.train()
    say(_words(report) if wait else "training has started; `recurra versions` shows what came of it", json)
    write_json(report, json)


def versions(data: Data = None, url: Url = None, config: ConfigFile = None, json: Json = None) -> None:
    """Print all published versions and what their gate said."""
    with opened(data, url, config) as engine:
        listed = engine.versions()
    if json is None:
        _print_versions(listed)
    write_json(listed, json)


def rollback(
    number: Annotated[int, typer.Argument(metavar="N", help="The version that shall serve.")],
    data: Data = None,
    url: Url = None,
    config: ConfigFile = None,
    json: Json = None,
) -> None:
    """Serve another version."""
    with opened(data, url, config, write=True) as engine:
        engine.rollback(number)
        listed = engine.versions()
    say(f"version {number} serves", json)
    write_json(listed, json)


def _words(report: object) -> str:
    # over HTTP the report comes as an object without its type
    told: dict[str, Any] = report if isinstance(report, dict) else msgspec.to_builtins(report)
    return f"{told['verdict']}: {told['reason']}"


def _print_versions(listed: "list[VersionInfo]") -> None:
    if not listed:
        say("no version was published yet")
        return
    rows = [("*" if info.current else "", info.number, info.items, info.report.get("verdict")) for info in listed]
    table(rows, ("", "version", "items", "gate"))
