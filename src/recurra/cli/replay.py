"""The command that plays a data set as a stream: replay."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import CatalogueFile, one_of, read_catalogue
from .output import Json, Quiet, duration, progress, say, say_catalogue, table, write_json

if TYPE_CHECKING:
    from recurra import FieldNames
    from recurra.simulations.datasets import Stream

__all__ = ["add_to"]

_SYNTHETIC_EVENTS = 20_000
_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def add_to(app: typer.Typer) -> None:
    """Add the command of this subject."""
    app.command(epilog="Example: recurra replay ml-100k.inter --seed 1 --json result.json --report report/")(replay)


def replay(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="A file of events, a directory with one, or a generated synthetic:KIND."),
    ],
    format: Annotated[str, typer.Option(metavar="NAME", help="auto, inter, dat, csv, parquet or jsonl.")] = "auto",
    catalogue: CatalogueFile = None,
    warm: Annotated[
        float, typer.Option(metavar="SHARE", help="Share that is learnt before any event is ranked.")
    ] = 0.2,
    shuffle_ties: Annotated[
        int | None, typer.Option(metavar="SEED", help="Put events of the same time in a random order first.")
    ] = None,
    repeats: Annotated[bool, typer.Option("--repeats", help="The user's own items stay candidates.")] = False,
    every: Annotated[int, typer.Option(metavar="K", help="Rank every K-th event; all are learnt.")] = 1,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Only the first N events.")] = None,
    via: Annotated[str, typer.Option(metavar="memory|kafka://...", help="How events reach the engine.")] = "memory",
    speed: Annotated[str, typer.Option(metavar="max|X", help="X times as fast as the events' time.")] = "max",
    label_delay: Annotated[
        str, typer.Option(metavar="DURATION", help="Learn an event only after so much event time: 30s, 10m, 2h, 1d.")
    ] = "0s",
    train: Annotated[str, typer.Option(metavar="auto|off", help="Train as the stream goes on.")] = "auto",
    strategy: Annotated[
        str | None, typer.Option(metavar="NAME", help="How training keeps what it knew: replay, distill, a+b, ...")
    ] = None,
    query_time: Annotated[str, typer.Option(metavar="on|off", help="Use the time of the query.")] = "on",
    baselines: Annotated[str, typer.Option(metavar="all|none|a,b", help="What to compare with.")] = "all",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads that may compute.")] = 1,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="A recurra.toml.")] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep the engine's directory here.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write a page with plots and the JSON.")] = None,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Replay a data set as a stream: every event is ranked, then learnt (protocol preq-v1)."""
    import recurra
    from recurra.simulations.replay import replay as run_replay
    from recurra.simulations.synthetic import kind_of

    from .signals import terminable

    one_of("--query-time", query_time, ("on", "off"))
    settings = recurra.load_config(config)
    stream = _stream(path, format, settings.events, shuffle_ties, limit, seed)
    beside = None if kind_of(str(path)) is not None else path
    records = read_catalogue(beside, catalogue, settings.events)
    with terminable(), progress(stream.name, quiet=quiet) as bar:
        result = run_replay(
            stream,
            catalogue=records,
            config=settings,
            data_dir=data,
            warm=warm,
            repeats=repeats,
            every=every,
            via=via,
            speed=speed,
            label_delay_ms=_duration_ms("--label-delay", label_delay),
            train=train,
            strategy=strategy,
            query_time=query_time == "on",
            baselines=baselines,
            seed=seed,
            threads=threads,
            progress=lambda done, total, now: bar(done, total, f"{stream.name}, HR@10 {now['hr@10']:.3f}"),
        )
    if report is not None:
        from recurra.simulations.report import write_report

        say(f"wrote {write_report(result, report)}", json)
    write_json(result, json)
    if json != "-":
        _print_result(result)


def _stream(
    path: Path, format: str, fields: "FieldNames", shuffle_ties: int | None, limit: int | None, seed: int
) -> "Stream":
    from recurra.simulations.datasets import load
    from recurra.simulations.synthetic import kind_of, stream

    kind = kind_of(str(path))
    if kind is not None:
        return stream(kind, _SYNTHETIC_EVENTS if limit is None else limit, seed)
    return load(path, format, fields=fields, shuffle_ties=shuffle_ties, limit=limit)


def _duration_ms(flag: str, text: str) -> int:
    """Return a time span in ms; raises ``InputError`` naming the flag."""
    from recurra.engine.errors import InputError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if found is None:
        raise InputError(f"{flag} expects a time span such as 30s, 10m, 2h or 1d, got {text!r}")
    return round(float(found[1]) * _UNITS_MS[found[2]])


def _print_result(result: dict[str, Any]) -> None:
    say(
        f"{result['dataset']}: {result['events']:,} events of {result['users']:,} users and {result['items']:,} items, "
        f"{result['evaluated']:,} ranked ({result['protocol']}) in {duration(result['seconds'])}, "
        f"peak memory {result['peak_rss_mb']:,.0f} MB"
    )
    say_catalogue(result)
    rows = [("recurra", *_figures(result["recurra"]))]
    rows += [(f"  {name} alone", *_figures(figures)) for name, figures in result["components"].items()]
    for name, figures in result["baselines"].items():
        rows.append((f"{name} (of {figures['n']:,} events)" if "n" in figures else name, *_figures(figures)))
    if "truth" in result:
        rows.append(("the truth: the upper bound", *_figures(result["truth"])))
    table(rows, ("", "HR@10", "HR@20", "NDCG@10", "MRR"))
    if result["drift"]:
        say(f"drift found after {', '.join(f'{position + 1:,}' for position in result['drift'])} events")


def _figures(figures: dict[str, float]) -> tuple[str, ...]:
    return tuple(f"{figures[name]:.4f}" for name in ("hr@10", "hr@20", "ndcg@10", "mrr"))
