"""The command that says what works here: doctor."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .connect import require_store
from .output import Json, say, size, write_json

__all__ = ["add_to"]

_SIGNS = {True: "ok", False: "FAILS", None: "-"}


def add_to(app: typer.Typer) -> None:
    """Add the command of this subject."""
    app.command(epilog="Example: recurra doctor --data recurra-data --json -")(doctor)


def doctor(
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Measure this store too.")] = None,
    json: Json = None,
) -> None:
    """Show what is installed, which backends work here, and how large a store's users are."""
    from .checks import Finding, machine, run_checks, store_figures

    path = None if data is None else require_store(data)
    findings: list[Finding] = []

    def report(finding: Finding) -> None:
        findings.append(finding)
        say(f"{_SIGNS[finding.ok]:<6} {finding.name:<15} {finding.words}", json)

    # first, while this process is still small: what the store needs is to be seen
    figures = {} if path is None else store_figures(path)
    report(machine())
    well = run_checks(report)
    if figures:
        say(f"{'':6} {'store':<15} {_words(figures)}", json)
    checks = [{"name": finding.name, "ok": finding.ok, "words": finding.words} for finding in findings]
    write_json({"ok": well, "checks": checks, **figures}, json)
    if not well:
        raise typer.Exit(1)


def _words(figures: dict[str, Any]) -> str:
    state, history = size(figures["hot_user_bytes"]), size(figures["hot_history_bytes"])
    return (
        f"{figures['users']:,} users; in memory, a hot one has {state} of state and {history} of history; on disk, "
        f"a user has {figures['cold_user_bytes']:.0f} bytes; with the store open this process has "
        f"{size(figures['rss_bytes'])}"
    )
