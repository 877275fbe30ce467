"""A program under the preloaded shim: a store meets every fault at its n-th call; prints what went wrong, or nothing.

Usage: ``python scenarios.py FOLDER FIRST_N LAST_N``.
"""

import errno
import mmap
import os
import struct
import sys
from pathlib import Path

from recurra.engine.config import StoreConfig
from recurra.engine.errors import StoreError, StoreFullError
from recurra.engine.events import Event
from recurra.engine.store import Batch, Reader, Store

CONFIG = StoreConfig(anchor=8, tail_events=4, hot_histories=16, batch_events=16, sync_ms=0, log_events=300)
BATCHES = 40
WRITES, SYNCS = 1, 2
FAILS, HALF, DROPS = 1, 2, 3
KINDS = {
    "EIO on a sync": (SYNCS, FAILS, errno.EIO),
    "a sync fails and the unsynced pages are gone": (SYNCS, DROPS, errno.EIO),
    "EIO on a write": (WRITES, FAILS, errno.EIO),
    "no space on a write": (WRITES, FAILS, errno.ENOSPC),
    "half a write, then no space": (WRITES, HALF, errno.ENOSPC),
    "half a write, then EIO": (WRITES, HALF, errno.EIO),
}


def arm(what: int, how: int, number: int, after: int, count: int) -> None:
    with Path(os.environ["FAULT_CONTROL"]).open("r+b") as file, mmap.mmap(file.fileno(), 20) as control:
        control[:] = struct.pack("5i", what, how, number, after, count)


def batch(number: int) -> Batch:
    events = [Event(f"u{(7 * number + k) % 40}", f"i{(number * k) % 97}", 1_000 * number + k) for k in range(16)]
    return Batch.of(events, offsets={"s": number + 1})


def fill(store: Store, until: int) -> None:
    for number in range(store.offsets().get("s", 0), until):
        store.apply(batch(number), 10**9)
        if number % 10 == 9:
            # a flush writes a table and a manifest
            store.compact()


def expected(folder: Path) -> dict[int, str]:
    with Store.open(folder, CONFIG) as store:
        found = {0: store.digest()}
        for number in range(BATCHES):
            fill(store, number + 1)
            found[number + 1] = store.digest()
    return found


def suffer(folder: Path, kind: tuple[int, int, int], after: int, digests: dict[int, str]) -> tuple[str, bool]:
    """Return what is wrong ("" if nothing), and whether the fault was met at all."""
    what, how, number = kind
    store = Store.open(folder, CONFIG)
    acknowledged, met = 0, False
    arm(what, how, number, after, 1)
    try:
        for at in range(1, BATCHES + 1):
            fill(store, at)
            acknowledged = at
    except StoreFullError:
        met = True
        if number != errno.ENOSPC:
            return "EIO was taken for a full disk", met
    except StoreError:
        met = True
        if number == errno.ENOSPC:
            return "a full disk was not recognised", met
    finally:
        arm(0, 0, 0, 0, 0)
    if met:
        wrong = refuses(store)
        if wrong:
            return wrong, met
        store.reopen()
    reached = store.offsets().get("s", 0)
    # sync_ms = 0: every batch was synced before it was acknowledged
    if reached < acknowledged:
        return f"batch {acknowledged} was acknowledged, the store is at {reached}", met
    if store.digest() != digests[reached]:
        return f"another state than after batch {reached}", met
    if store.damage is not None:
        return store.damage, met
    fill(store, BATCHES)
    store.close()
    with Reader.open(folder, CONFIG) as again:
        if again.digest() != digests[BATCHES]:
            return "another state at the end", met
    return "", met


def refuses(store: Store) -> str:
    # a compaction's failure shows at the next write at the latest
    for _ in range(2):
        try:
            store.apply(batch(store.offsets().get("s", 0)), 10**9)
        except StoreError:
            return ""
    return "a store that failed went on writing" if store.failure is not None else ""


def main(folder: Path, first: int, last: int) -> None:
    digests = expected(folder / "expected")
    met = dict.fromkeys(KINDS, 0)
    for name, kind in KINDS.items():
        for after in range(first, last):
            place = folder / f"{name.replace(' ', '-')}-{after}"
            wrong, happened = suffer(place, kind, after, digests)
            met[name] += happened
            if wrong:
                print(f"{name}, after {after} calls: {wrong}")
    for name, count in met.items():
        if not count:
            print(f"{name}: never met")


main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
