"""A program that fills a store from a fixed stream, resuming at the stored offset; the fault tests kill it.

Usage: ``python worker.py DIRECTORY BATCHES [FILE_SIZE_LIMIT]``. It prints the digest at the end. With a limit on the
size of files it prints the error that stopped it, lifts the limit, reopens the store and goes on.
"""

import resource
import sys

from recurra.engine.config import StoreConfig
from recurra.engine.errors import StoreError, StoreFullError
from recurra.engine.events import Event
from recurra.engine.store import Batch, Store

CONFIG = StoreConfig(anchor=8, tail_events=4, hot_histories=16, batch_events=16, sync_ms=0, log_events=500)


def batch(number: int) -> Batch:
    # ids differ, so that an event applied twice is noticed only by the offsets
    events = [
        Event(f"u{(7 * number + k) % 40}", f"i{(number * k) % 97}", 1_000 * number + k, "play", 1.0, f"{number}.{k}")
        for k in range(16)
    ]
    return Batch.of(events, offsets={"s": number + 1})


def fill(store: Store, batches: int) -> None:
    for number in range(store.offsets().get("s", 0), batches):
        store.apply(batch(number), 10**9)


def main(directory: str, batches: int, limit: int | None) -> None:
    with Store.open(directory, CONFIG) as store:
        if limit is not None:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            try:
                fill(store, batches)
            except StoreFullError as error:
                print(error)
                before = store.digest()
                try:
                    store.apply(batch(store.offsets()["s"]), 10**9)
                except StoreError as refusal:
                    print(refusal)
                try:
                    store.reopen()
                except StoreFullError as still:
                    print(still)
                print("still readable" if store.digest() == before else "lost")
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
                store.reopen()
                print("same after reopening" if store.digest() == before else "changed by reopening")
        fill(store, batches)
        print(store.digest())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
