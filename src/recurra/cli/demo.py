"""The command that shows everything at once: demo."""

import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import Json, Quiet, say, write_json
from .signals import stop_on_signal, terminable

if TYPE_CHECKING:
    from recurra.connectors.http import DemoFigures

__all__ = ["add_to"]

_EVENTS = 20_000
# live events a second: quick enough to watch it learn, slow enough to leave the machine usable
_RATE = 250.0
_RATE_TO_EXIT = 500.0
_LINE_S = 1.0


def add_to(app: typer.Typer) -> None:
    """Add the command of this subject."""
    app.command(epilog="Example: recurra demo --port 8000     or, as a check: recurra demo --exit --json -")(demo)


def demo(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Where to serve the page; 0 takes a free port.")] = 8000,
    events: Annotated[
        int | None, typer.Option(min=1, metavar="N", help=f"Stop the stream after N events. [--exit: {_EVENTS}]")
    ] = None,
    leave: Annotated[bool, typer.Option("--exit", help="End after the events, with a summary.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the generated catalogue and stream.")] = 0,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Run everything on a generated stream: engine, training, API and a live page."""
    from recurra.connectors.http import Listener

    listener = Listener("127.0.0.1", port)
    try:
        say("starting the engine; the first start compiles its kernels and takes longer ...", json)
        with terminable(), tempfile.TemporaryDirectory(prefix="recurra-demo-") as folder:
            result = _play(listener, folder, events, leave, seed, json, quiet)
    finally:
        listener.close()
    if leave:
        _print_summary(result, json)
        write_json(result, json)


def _play(
    listener: Any, folder: str, events: int | None, leave: bool, seed: int, json: str | None, quiet: bool
) -> dict[str, Any]:
    import recurra
    from recurra.connectors.http import create_app
    from recurra.engine.clock import EventClock
    from recurra.simulations.demo import Demo, demo_config

    clock = EventClock()
    stopped = threading.Event()
    line = _Line(quiet=quiet)
    with recurra.open(folder, demo_config(seed), clock=clock) as engine:
        # a start that compiles for minutes ends at once
        stop_on_signal(stopped)
        demo = Demo(engine, clock, seed=seed)
        listener.start(create_app(engine, live=demo))
        say(f"recurra is at {listener.url}  (API: {listener.url}/docs, metrics: {listener.url}/metrics)", json)
        demo.play(
            events or (_EVENTS if leave else None),
            rate=_RATE_TO_EXIT if leave else _RATE,
            stopped=stopped,
            progress=lambda now: line.show(now, engine.version),
        )
        line.end()
        if not leave and not stopped.is_set():
            say("the stream has ended; the page stays until Ctrl-C", json)
            stopped.wait()
        return demo.summary()


class _Line:
    """One line on the terminal that is rewritten about once a second."""

    def __init__(self, *, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._next_s = 0.0
        self._last: tuple[float, int] | None = None
        self._open = False

    def show(self, now: "DemoFigures", version: int) -> None:
        moment_s = time.monotonic()
        if not self._shown or moment_s < self._next_s:
            return
        before_s, before = self._last or (moment_s - now.seconds, 0)
        rate = (now.played - before) / max(1e-9, moment_s - before_s)
        self._last, self._next_s = (moment_s, now.played), moment_s + _LINE_S
        text = (
            f"{now.played:>8,} events {rate:>7,.0f}/s   HR@10 {now.recurra['hr@10']:.3f} "
            f"(popularity {now.popularity['hr@10']:.3f})   version {version}"
        )
        sys.stderr.write(f"\r\x1b[2K{text}")
        sys.stderr.flush()
        self._open = True

    def end(self) -> None:
        if self._open:
            sys.stderr.write("\n")
            self._open = False


def _print_summary(result: dict[str, Any], json: str | None) -> None:
    say(f"{result['events']:,} events in {result['seconds']:.0f} s, {result['judged']:,} of them judged:", json)
    for name in ("recurra", "popularity"):
        say(f"  {name:<11} HR@10 {result[name]['hr@10']:.3f}   NDCG@10 {result[name]['ndcg@10']:.3f}", json)
