"""``python -m recurra.simulations.bench.store``: what the store's format costs, beside the formats it was chosen over.

The same stream goes through the store with different sizes of the tail block (0: every event rewrites the user's whole
record), and through a bare RocksDB with one key per event. Numbers are medians over the last half of the stream, when
histories are long; CPU time counts all threads, bytes written count write-ahead log, flushes and compactions.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rocksdict import Options, Rdict, WriteBatch

from ...engine.config import StoreConfig
from ...engine.store import Batch, Store

__all__ = ["bench_store"]

_START_MS = 1_700_000_000_000
_READS = 500


def bench_store(*, users: int = 2_000, events_per_user: int = 150, batch: int = 512, seed: int = 0) -> dict[str, Any]:
    """Return the cost per event of every format, in microseconds and bytes."""
    stream = _Stream(users, users * events_per_user, batch, seed)
    formats = {f"tail_{size}": _through_store(stream, size) for size in (0, 8, 16, 32)}
    return {
        "users": users,
        "events": stream.events,
        "batch": batch,
        "formats": formats | {"key_per_event": _key_per_event(stream)},
        "single": _through_store(_Stream(users, 20_000, 1, seed), 16),
    }


class _Stream:
    """Random users and items, increasing times, with ratings and event ids: nothing that compresses by chance."""

    def __init__(self, users: int, events: int, batch: int, seed: int) -> None:
        draw = np.random.default_rng(seed)
        self.users, self.events, self.batch = users, events, batch
        self.user = draw.integers(0, users, events)
        self.item = draw.integers(0, 20_000, events)
        self.weight = draw.normal(size=events).astype(np.float32)
        self.hash = draw.integers(1, 2**63, events).astype(np.uint64)
        self._user_ids = [f"user {row}" for row in range(users)]
        self._item_ids = [f"item {row}" for row in range(20_000)]

    def parts(self) -> list[slice]:
        return [slice(first, first + self.batch) for first in range(0, self.events, self.batch)]

    def times_ms(self, part: slice) -> np.ndarray[Any, np.dtype[np.int64]]:
        return _START_MS + 977 * np.arange(self.events)[part]

    def columns(self, part: slice) -> Batch:
        count = len(self.user[part])
        return Batch(
            [self._user_ids[row] for row in self.user[part]],
            [self._item_ids[row] for row in self.item[part]],
            self.times_ms(part),
            [None] * count,
            self.weight[part],
            self.hash[part],
            np.zeros(count, np.int32),
            offsets={"stream": part.stop},
        )


def _through_store(stream: _Stream, tail_events: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        config = StoreConfig(tail_events=tail_events, hot_histories=4_096)
        with Store.open(Path(folder) / "store", config) as store:
            batches = [stream.columns(part) for part in stream.parts()]
            measured = _measured(stream, lambda number: store.apply(batches[number], 2 * _START_MS))
            measured["cold_user_bytes"] = store.stats()["cold_user_bytes"]
        with Store.open(Path(folder) / "store", config) as store:
            started = time.perf_counter()
            for row in range(0, stream.users, max(1, stream.users // _READS)):
                store.history(row)
            reads = len(range(0, stream.users, max(1, stream.users // _READS)))
            measured["cold_read_us"] = 1e6 * (time.perf_counter() - started) / reads
    return {name: round(value, 2) for name, value in measured.items()}


def _key_per_event(stream: _Stream) -> dict[str, float]:
    """One key per event and one for the user's header; ids, log and checks left out, so this is a lower bound."""
    counts = [0] * stream.users
    with tempfile.TemporaryDirectory() as folder:
        options = Options(raw_mode=True)
        database = Rdict(str(Path(folder) / "database"), options)
        parts = stream.parts()

        def write(number: int) -> None:
            part, batch = parts[number], WriteBatch(raw_mode=True)
            columns = (
                stream.user[part],
                stream.item[part],
                stream.times_ms(part),
                stream.weight[part],
                stream.hash[part],
            )
            for user, item, time_ms, weight, digest in zip(*columns, strict=True):
                counts[user] += 1
                key = int(user).to_bytes(4, "big")
                event = np.int32(item).tobytes() + int(time_ms).to_bytes(6, "little") + weight.tobytes()
                batch.put(b"E" + key + counts[user].to_bytes(6, "big"), event + b"\0\0" + digest.tobytes())
                batch.put(b"H" + key, counts[user].to_bytes(20, "big"))
            database.write(batch)

        measured = _measured(stream, write)
        # key, value and RocksDB's own eleven bytes, for every event and the header
        kept = stream.events / stream.users
        measured["cold_user_bytes"] = kept * (11 + 24 + 11) + 5 + 20 + 11
        database.close()
        database = Rdict(str(Path(folder) / "database"), options)
        started = time.perf_counter()
        rows = range(0, stream.users, max(1, stream.users // _READS))
        for row in rows:
            prefix = b"E" + row.to_bytes(4, "big")
            for key, _ in database.items(from_key=prefix):
                if not bytes(key).startswith(prefix):  # type: ignore[arg-type]
                    break
        measured["cold_read_us"] = 1e6 * (time.perf_counter() - started) / len(rows)
        database.close()
    return {name: round(value, 2) for name, value in measured.items()}


def _measured(stream: _Stream, step: Any) -> dict[str, float]:
    """Run all batches; measure the last half."""
    number = len(stream.parts())
    for first in range(number // 2):
        step(first)
    walls = []
    cpu, written = time.process_time(), _written_bytes()
    for last in range(number // 2, number):
        started = time.perf_counter()
        step(last)
        walls.append(time.perf_counter() - started)
    events = stream.events - (number // 2) * stream.batch
    return {
        "us_per_event": 1e6 * float(np.median(walls)) / stream.batch,
        "cpu_us_per_event": 1e6 * (time.process_time() - cpu) / events,
        "written_bytes_per_event": (_written_bytes() - written) / events,
    }


def _written_bytes() -> int:
    """Bytes this process has written so far (Linux; elsewhere 0)."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--events-per-user", type=int, default=150)
    parser.add_argument("--batch", type=int, default=512)
    chosen = parser.parse_args()
    result = bench_store(users=chosen.users, events_per_user=chosen.events_per_user, batch=chosen.batch)
    print(json.dumps(result, indent=2))
