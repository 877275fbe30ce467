"""``recurra bench hostile``: what clients that mean harm take from those who ask for lists, and from liveness."""

import contextlib
import http.client
import itertools
import multiprocessing
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from ...connectors.http import Client
from ...engine.clock import SystemClock
from ...engine.config import Config
from ...engine.engine import Engine
from ...engine.errors import BusyError, ServiceError
from ...engine.events import Item
from .fixtures import made_events, publish_random
from .load_generator import Load, drive
from .service import running_service

__all__ = ["bench_hostile"]

_USERS = 2_000
_EVENTS = 60_000
_BODY_BYTES = 8 << 20
_TIMEOUT_S = 60.0
# lists asked for a second by the client that is measured, and looks at liveness
_RATE = 10.0
_LOOKS = 10.0


def bench_hostile(
    items: int = 100_000,
    *,
    filters: int = 4,
    bodies: int = 60,
    trainings: int = 45,
    seconds: float = 20.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Ask for lists and liveness at a steady rate, in peace and then under attack; return the JSON.

    A service of ``items`` items with records, in a process of its own, is asked by one client. Attacked it is by
    ``filters`` clients that send the dearest filters that are allowed, each one new, ``bodies`` that leave bodies of
    8 MiB unfinished, and ``trainings`` that ask for trainings and wait. Raises ``ServiceError`` if a query fails.
    """
    with tempfile.TemporaryDirectory(prefix="recurra-bench-") as name:
        folder = Path(name)
        _fill(folder, items, seed)
        with running_service(folder) as (url, process):
            # every state folded, every kernel compiled, the columns of filters made
            with Client(url, timeout_s=_TIMEOUT_S) as client:
                for user in range(_USERS):
                    client.recommend(f"user-{user}")
                _filter_once(client)
            quiet = _measure(url, seconds)
            before = _resident_bytes(process)
            counts: dict[str, int] = {}
            with _attacked(url, filters, bodies, trainings, counts):
                time.sleep(1.0)
                attacked = _measure(url, seconds)
                grown = _resident_bytes(process) - before
    return {
        "items": items,
        "hostile": {"filters": filters, "bodies": bodies, "trainings": trainings},
        "quiet": quiet,
        "attacked": attacked,
        "query_p99_ratio": round(attacked["query_p99_ms"] / quiet["query_p99_ms"], 2),
        "grown_mb": round(grown / 1e6, 1),
        "hostile_answers": counts,
        "seconds": seconds,
        "seed": seed,
    }


def _fill(folder: Path, items: int, seed: int) -> None:
    config = Config(seed=seed)
    config = msgspec.structs.replace(config, training=msgspec.structs.replace(config.training, mode="off"))
    with Engine(folder, config, clock=SystemClock()) as engine:
        engine.ingest(
            Item(f"item-{row}", f"Title {row} of a thing", (f"c{row % 50}",), attributes={"price": row / 7})
            for row in range(items)
        )
        engine.ingest(made_events(_EVENTS, _USERS, items, seed))
    publish_random(folder, min(items, _EVENTS), seed, cutoff_seq=_EVENTS)


def _dearest(number: int) -> str:
    # attributes with each other, two of them, and the rest searches of texts
    parts = ["title == item", f"[title] == {number}", *[f"'{number} {part}' in title" for part in range(17)]]
    return " or ".join(parts)


def _filter_once(client: Client) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            client.recommend("user-0", where=_dearest(-1))
            return
        except BusyError:
            # the catalogue is read meanwhile
            if time.monotonic() > deadline:
                raise


def _measure(url: str, seconds: float) -> dict[str, float]:
    stop = threading.Event()
    looked: list[Load] = []

    def look() -> None:
        looked.append(drive([lambda _: _get(url, "/livez")], rate=_LOOKS, stop=stop))

    thread = threading.Thread(target=look)
    thread.start()
    with Client(url, timeout_s=_TIMEOUT_S) as client:
        asked = drive([lambda call: client.recommend(f"user-{call % _USERS}")], seconds=seconds, rate=_RATE)
    stop.set()
    thread.join()
    live = looked[0]
    if asked.failed or live.failed:
        raise ServiceError(f"requests failed: {(asked.errors + live.errors)[0]}")
    return {
        "query_p50_ms": round(asked.percentile_ms(50), 2),
        "query_p99_ms": round(asked.percentile_ms(99), 2),
        "livez_p50_ms": round(live.percentile_ms(50), 2),
        "livez_p99_ms": round(live.percentile_ms(99), 2),
        "queries": len(asked.latencies_ms),
        "looks": len(live.latencies_ms),
    }


@contextlib.contextmanager
def _attacked(url: str, filters: int, bodies: int, trainings: int, counts: dict[str, int]) -> Iterator[None]:
    """Attack during the block from a process of its own, whose threads do not delay those that measure."""
    processes = multiprocessing.get_context("spawn")
    begun, stop, answers = processes.Event(), processes.Event(), processes.Queue()
    attacker = processes.Process(target=_attack, args=(url, filters, bodies, trainings, begun, stop, answers))
    attacker.start()
    try:
        if not begun.wait(_TIMEOUT_S):
            raise ServiceError("the attacking process did not start")
        yield
    finally:
        stop.set()
        counts.update(answers.get(timeout=2 * _TIMEOUT_S))
        attacker.join(_TIMEOUT_S)


def _attack(url: str, filters: int, bodies: int, trainings: int, begun: Any, stop: Any, answers: Any) -> None:
    numbers, counts, lock = itertools.count(), Counter[str](), threading.Lock()

    def note(kind: str, status: int) -> None:
        with lock:
            counts[f"{kind} {status}"] += 1

    def filtering() -> None:
        while not stop.is_set():
            path = f"/v1/users/user-1/recommendations?where={quote(_dearest(next(numbers)), safe='')}"
            note("filter", _get(url, path))

    def unfinished() -> None:
        while not stop.is_set():
            note("body", _leave_body(url, stop))

    def training() -> None:
        while not stop.is_set():
            note("training", _get(url, "/v1/train?wait=true", "POST"))
            stop.wait(1.0)

    kinds: list[tuple[Callable[[], None], int]] = [(filtering, filters), (unfinished, bodies), (training, trainings)]
    threads = [threading.Thread(target=work, daemon=True) for work, count in kinds for _ in range(count)]
    for thread in threads:
        thread.start()
    begun.set()
    for thread in threads:
        thread.join()
    answers.put(dict(counts))


def _get(url: str, path: str, method: str = "GET") -> int:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _leave_body(url: str, stop: Any) -> int:
    """Send all of a body but its last byte and wait for what comes; return the status of the answer, 0 for none."""
    place = urlsplit(url)
    with contextlib.suppress(OSError), socket.create_connection((place.hostname, place.port), timeout=1.0) as sock:
        head = f"POST /v1/events HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: {_BODY_BYTES}\r\n\r\n"
        with contextlib.suppress(OSError):
            sock.sendall(head.encode())
            sock.sendall(b" " * (_BODY_BYTES - 1))
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                line = sock.recv(64)
                return int(line.split()[1]) if line else 0
    return 0


def _resident_bytes(process: int) -> int:
    fields = Path(f"/proc/{process}/status").read_text().split("VmRSS:")[1].split()
    return 1024 * int(fields[0])
