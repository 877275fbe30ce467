"""A writer beside many readers that ask without a pause: it waits for its turn, and no longer."""

import threading
import time
from pathlib import Path

import recurra
from recurra import Event

START_MS = 1_700_000_000_000


def test_a_writer_is_not_kept_waiting_by_tight_readers(tmp_path: Path) -> None:
    base = recurra.Config()
    # histories that are read from the disk hold the store's lock for longest
    config = recurra.Config(
        training=type(base.training)(mode="off"), store=type(base.store)(hot_histories=64, batch_events=64)
    )
    with recurra.open(tmp_path, config) as engine:
        engine.ingest(Event(f"u{i % 500}", f"m{i * 7 % 2_000}", START_MS + i) for i in range(5_000))
        engine.recommend("u1")
        stop = threading.Event()
        answers = [0] * 16

        def ask(place: int) -> None:
            while not stop.is_set():
                engine.recommend(f"u{(place + answers[place]) % 500}")
                answers[place] += 1

        readers = [threading.Thread(target=ask, args=(place,)) for place in range(len(answers))]
        for reader in readers:
            reader.start()
        waits: list[float] = []
        end_s = time.monotonic() + 3
        while time.monotonic() < end_s:
            began_s = time.monotonic()
            engine.ingest([Event("writer", f"m{len(waits)}", START_MS + 10**6 + len(waits))])
            waits.append(time.monotonic() - began_s)
        stop.set()
        for reader in readers:
            reader.join()
        assert max(waits) < 2
        assert len(waits) > 20
        assert min(answers) > 0
