"""``recurra bench query``: how fast recommendations are answered, in process or over HTTP."""

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import faiss
import msgspec
import numpy as np

from ...connectors.http import Client
from ...engine.clock import EventClock
from ...engine.config import Config
from ...engine.engine import Engine
from ...engine.errors import InputError, ServiceError
from ...engine.events import Event
from .fixtures import publish_random
from .load_generator import Load, drive
from .service import running_service

__all__ = ["bench_query"]

_USERS = 2_000
_EVENTS_PER_USER = 30
_START_MS = 1_735_689_600_000
_SPAN_MS = 20 * 86_400_000
# queries whose time on the processor is taken
_CPU_QUERIES = 2_000


def bench_query(
    items: int = 10_000,
    http: bool | str = False,
    connections: int | None = None,
    *,
    seconds: float = 5.0,
    k: int = 10,
    seed: int = 0,
) -> dict[str, Any]:
    """Ask for the lists of random users from ``connections`` threads; return the JSON of ``recurra bench query``.

    In process (the default, one thread) an engine of ``items`` items and 2,000 users is made up, with a version of
    random weights: what an answer costs does not depend on them. ``http`` true asks the same engine through ``recurra
    run`` in a separate process, over 4 connections; an address asks the service that is there, about its users
    ``user-0`` and so on. In process, "cpu_us" is the median time that a query takes of the asking thread's processor,
    "search_us" what is spent of it inside the indexes, "cpu_us_beside_search" the median of the rest. Raises
    ``InputError`` and ``ServiceError``.
    """
    if items < 10 or (connections is not None and connections < 1):
        raise InputError(f"expected at least 10 items and 1 connection, got {items} and {connections}")
    number = connections or (4 if http else 1)
    with ExitStack() as stack:
        if isinstance(http, str):
            asks = [stack.enter_context(Client(http)).recommend for _ in range(number)]
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recurra-bench-")))
            _fill(folder, items, seed)
            if http:
                url, _ = stack.enter_context(running_service(folder))
                asks = [stack.enter_context(Client(url)).recommend for _ in range(number)]
            else:
                asks = [stack.enter_context(Engine(folder, _config(seed), clock=_clock())).recommend] * number
        load = _measure(asks, seconds, k, seed)
        cpu = dict.fromkeys(("cpu_us", "search_us", "cpu_us_beside_search")) if http else _cpu(asks[0], k, seed)
    return {
        "items": items,
        "http": bool(http),
        "connections": number,
        "qps": round(load.qps, 1),
        "p50_ms": round(load.percentile_ms(50), 3),
        "p99_ms": round(load.percentile_ms(99), 3),
        **cpu,
        "queries": len(load.latencies_ms),
        "failed": load.failed,
        "k": k,
        "users": _USERS,
        "seed": seed,
    }


def _measure(asks: list[Callable[..., Any]], seconds: float, k: int, seed: int) -> Load:
    users = np.random.default_rng(seed).integers(_USERS, size=1 << 16).tolist()

    def connection(ask: Callable[..., Any]) -> Callable[[int], Any]:
        return lambda call: ask(f"user-{users[call % len(users)]}", k)

    # every user once: states are folded and kernels compiled before anything is measured
    for user in range(_USERS):
        asks[0](f"user-{user}", k)
    load = drive([connection(ask) for ask in asks], seconds=seconds)
    if load.failed and not len(load.latencies_ms):
        raise ServiceError(f"every query failed: {load.errors[0]}")
    return load


def _cpu(ask: Callable[..., Any], k: int, seed: int) -> dict[str, float]:
    """Return median microseconds of the processor per query: in all, inside the indexes, and the rest."""
    clock, searching = time.thread_time_ns, 0

    def timed(search: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal searching
            start = clock()
            found = search(*args, **options)
            searching += clock() - start
            return found

        return call

    took = np.empty((2, _CPU_QUERIES))
    with ExitStack() as stack:
        for kind in (faiss.IndexFlatIP, faiss.IndexIVFFlat):
            stack.enter_context(patch.object(kind, "search", timed(kind.search)))
        for query, user in enumerate(np.random.default_rng(seed).integers(_USERS, size=_CPU_QUERIES).tolist()):
            searching, start = 0, clock()
            ask(f"user-{user}", k)
            took[:, query] = clock() - start, searching
    cpu, search = took / 1e3
    columns = {"cpu_us": cpu, "search_us": search, "cpu_us_beside_search": cpu - search}
    return {name: round(float(np.median(column)), 1) for name, column in columns.items()}


def _config(seed: int) -> Config:
    config = Config(seed=seed)
    return msgspec.structs.replace(config, training=msgspec.structs.replace(config.training, mode="off"))


def _clock() -> EventClock:
    return EventClock(_START_MS + _SPAN_MS)


def _fill(folder: Path, items: int, seed: int) -> None:
    """Make an engine's directory in which every item has an event, and a version that knows all items."""
    rng = np.random.default_rng(seed)
    count = max(items, _USERS * _EVENTS_PER_USER)
    # popularity like 1 / rank, after one event of every item
    popular = np.minimum(items ** rng.random(count), items - 1).astype(np.int64)
    popular[:items] = np.arange(items)
    users = rng.integers(_USERS, size=count)
    with Engine(folder, _config(seed), clock=_clock()) as engine:
        columns = zip(users.tolist(), popular.tolist(), strict=True)
        events = (
            Event(f"user-{user}", f"item-{item}", _START_MS + place * _SPAN_MS // count)
            for place, (user, item) in enumerate(columns)
        )
        engine.ingest(events)
    publish_random(folder, items, seed, cutoff_seq=count)
