"""The command that checks a directory: verify."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .connect import ConfigFile, require_store
from .output import Json, say, write_json

if TYPE_CHECKING:
    from recurra.engine.verify import Damage

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command of this subject."""
    app.command(epilog="Example: recurra verify --data recurra-data --repair")(verify)


def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="Put aside what is damaged; the next start builds it again.")
    ] = False,
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="The engine's directory.")] = None,
    config: ConfigFile = None,
    json: Json = None,
) -> None:
    """Check every checksum and record of a directory that no engine has open; ends with 1 if something is damaged."""
    import recurra
    from recurra.engine import verify as engine

    path = require_store(data)
    found = engine.verify(path, recurra.load_config(config))
    for each in found:
        say(f"DAMAGED {each.part}: {each.problem}; it {each.remedy}", json)
    quarantine = None
    if not found:
        say(f"{path} is sound: all checksums and records of the store, caches and versions", json)
    elif repair:
        quarantine = engine.repair(path, found)
        _explain(found, quarantine, json)
    else:
        say("nothing was changed; --repair puts the damaged parts aside", json)
    write_json({"ok": not found, "damage": found, "quarantine": quarantine and str(quarantine)}, json)
    if found and not repair:
        raise typer.Exit(1)


def _explain(found: "list[Damage]", quarantine: Path | None, json: str | None) -> None:
    if quarantine is not None:
        say(f"put aside in {quarantine}; delete it when you do not need it any more", json)
    if any(each.kind == "store" for each in found):
        say(
            "the next `recurra run` with the same --source reads the source from its beginning and builds the store "
            "again; what the source no longer has, and events that came over HTTP or in process, cannot be built "
            "again: send them again, or restore a copy of the directory instead",
            json,
        )
