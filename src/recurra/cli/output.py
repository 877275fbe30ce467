"""Output of the commands: text for a person, JSON for a program, progress on a terminal."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["Json", "Progress", "Quiet", "duration", "progress", "say", "say_catalogue", "size", "table", "write_json"]

Json = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - is standard output.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]

# reports how much of the whole is done and what is happening: (done, total, words)
Progress = Callable[[int, int, str], None]


def say(text: str, json: str | None = None) -> None:
    """Print text for a person; on standard error if standard output is for JSON."""
    typer.echo(text, err=json == "-")


def say_catalogue(result: Mapping[str, Any]) -> None:
    """Print which catalogue a replay or an evaluation read, if it read one."""
    name = result.get("settings", {}).get("catalogue")
    if name is None:
        return
    without, refused = result["items_without_record"], result["records_refused"]
    lines = f", {refused:,} lines refused" if refused else ""
    say(f"catalogue {name}: {result['records_used']:,} records used, {without:,} items without one{lines}")


def table(rows: Sequence[Sequence[object]], header: Sequence[str], json: str | None = None) -> None:
    """Print rows in columns; numbers to the right."""
    cells = [list(header)] + [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    right = [all(isinstance(row[column], int | float) for row in rows) for column in range(len(header))]
    for row in cells:
        line = (
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        )
        say("  ".join(line).rstrip(), json)


def write_json(value: Any, target: str | None) -> None:
    """Write a result where ``--json`` says; None writes nothing."""
    if target is None:
        return
    # imported here so that `recurra --help` stays quick
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    # JSON is UTF-8 whatever the locale says
    data = text.encode() + b"\n"
    if target == "-":
        typer.echo(data, nl=False)
    else:
        Path(target).write_bytes(data)


@contextmanager
def progress(words: str, *, quiet: bool = False) -> Iterator[Progress]:
    """Show a bar on standard error while long work runs; nothing with ``quiet`` or where there is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield _silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(words, total=None)
        yield lambda done, total, text: bar.update(task, completed=done, total=total or None, description=text or words)


def _silent(_done: int, _total: int, _text: str) -> None:
    pass


def size(count_bytes: float) -> str:
    """Return a number of bytes in words."""
    for unit in ("bytes", "KiB", "MiB"):
        if abs(count_bytes) < 1024:
            return f"{count_bytes:.0f} {unit}" if unit == "bytes" else f"{count_bytes:.1f} {unit}"
        count_bytes /= 1024
    return f"{count_bytes:.1f} GiB"


def duration(seconds: float) -> str:
    """Return a time span in words."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
