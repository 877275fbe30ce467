"""The commands, and what happens to their errors."""

import gc
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from . import bench, demo, doctor, evaluate, queries, replay, run, verify, versions
from .logs import Notes

__all__ = ["main"]

# shown by every command: how to see where an error that is our own came from
_TRACEBACK = "RECURRA_TRACEBACK"
# imports make half a million objects that stay: looked through for cycles as often as by default, they take seconds
_COLLECT_AFTER = 50_000

app = typer.Typer(
    name="recurra",
    help="A recommendation engine for event streams: current to the last event, learning while it serves.",
    epilog="Start here: recurra demo",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"recurra {version('recurra')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the release.")
    ] = False,
) -> None:
    del version


for part in (demo, run, replay, evaluate, queries, versions, verify, doctor):
    part.add_to(app)
app.add_typer(bench.app, name="bench", short_help=bench.app.info.help)
for group in (app, bench.app):
    for command in group.registered_commands:
        # a list of commands would cut a first sentence that it has to shorten
        command.short_help = (command.callback.__doc__ or "").partition("\n")[0] if command.callback else None


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 done, 1 it failed and said why, 2 it was not understood, 130 interrupted."""
    gc.set_threshold(_COLLECT_AFTER)
    notes = Notes.install()
    for stream in (sys.stdout, sys.stderr):
        # a title that the terminal cannot show is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(args=arguments, prog_name="recurra")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get(_TRACEBACK):
            raise
        _fail(error, notes)
    finally:
        notes.show()
        # what is left goes with the process; looking through it five times more would take up to seconds. Triton's
        # binding would print a list of it as leaks
        if "triton" not in sys.modules:
            gc.freeze()
    sys.exit(0)


def _fail(error: Exception, notes: Notes) -> NoReturn:
    # imported here so that `recurra --help` does not load the engine
    from recurra.engine.errors import RecurraError

    if isinstance(error, RecurraError):
        message = str(error)
    elif isinstance(error, OSError):
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    else:
        message = f"an error of recurra's own: {type(error).__name__}: {error} ({_TRACEBACK}=1 shows where)"
    notes.drop_what_is_in(message)
    print(f"recurra: {message}", file=sys.stderr)
    sys.exit(1)
