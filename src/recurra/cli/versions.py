"""Commands over versions: train, versions, rollback."""

from typing import TYPE_CHECKING, Annotated

import typer

from .connect import ConfigFile, Data, Url, opened
from .output import Json, Quiet, progress, say, table, write_json

if TYPE_CHECKING:
    from recurra import Refusal, VersionInfo

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
    wait = once or url is None
    with opened(data, url, config, write=True) as engine, progress("training", quiet=quiet):
        report = engine.train(wait=wait)
    if report is None:
        say("training has started; `recurra versions` shows its verdict", json)
    else:
        say(f"{report.verdict}: {report.reason}", json)
    write_json({"started": True} if report is None else report, json)


def versions(
    refused: Annotated[
        bool, typer.Option("--refused", help="The last candidates that the gate refused, instead.")
    ] = False,
    data: Data = None,
    url: Url = None,
    config: ConfigFile = None,
    json: Json = None,
) -> None:
    """Print all versions with the verdict of their gate, or the candidates that it refused."""
    with opened(data, url, config) as engine:
        listed, refusals = engine.versions(), engine.refusals()
    if json is None and refused:
        _print_refusals(refusals)
    elif json is None:
        _print_versions(listed)
        if refusals:
            say(f"the gate refused candidates, the last one because {refusals[-1].reason}; --refused lists them")
    write_json(refusals if refused else listed, json)


def rollback(
    number: Annotated[int, typer.Argument(metavar="N", help="The version that shall serve.")],
    data: Data = None,
    url: Url = None,
    config: ConfigFile = None,
    json: Json = None,
) -> None:
    """Serve another version."""
    with opened(data, url, config, write=True) as engine:
        listed = engine.rollback(number)
    say(f"version {number} serves", json)
    write_json(listed, json)


def _print_versions(listed: "list[VersionInfo]") -> None:
    if not listed:
        say("no version yet")
        return
    rows = [
        ("*" if info.serving else "", info.number, info.items, info.report.verdict, info.rolled_back or "")
        for info in listed
    ]
    table(rows, ("", "version", "items", "gate", "rolled back"))


def _print_refusals(refusals: "list[Refusal]") -> None:
    if not refusals:
        say("no candidate was refused yet")
        return
    # a first version is compared with a random order, and has no interval
    names = ("newest_seq", "parent", "holdout", "users", "difference", "lower", "required")
    rows = [(*(_shown(getattr(report, name)) for name in names), report.reason) for report in refusals]
    table(rows, ("event", "parent", "held out", "users", "difference", "lower bound", "required", "reason"))


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}" if isinstance(value, float) else f"{value:,}"
