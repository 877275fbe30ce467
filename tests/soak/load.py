"""Load on a service: events of thousands of users on a topic, and queries whose answers are checked."""

import contextlib
import json
import random
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

import confluent_kafka as ck
import httpx

PARTITIONS = 4
POISON = (b"", b"{", b'{"user":"u1"}', b'{"user":"u1","item":"i1","time":-1}', b"\xff\xfe")


class Producer:
    """Writes events to a topic at a rate, and remembers each partition's payloads in the order of their offsets.

    The first ``backlog`` are written as fast as the broker takes them, and none of them is late: a busy user would have
    events by then that push it out of the history.
    """

    def __init__(
        self, address: str, topic: str, *, users: int, items: int, rate: float, seed: int, backlog: int = 0
    ) -> None:
        self.logs: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        # per user: (offset, item, time) of every event, in order
        self.events: dict[str, list[tuple[int, str, int]]] = {}
        self.lock = threading.Lock()
        self.failure: str | None = None
        self._topic, self._users, self._items, self._rate = topic, users, items, rate
        self._backlog = backlog
        self._last: dict[str, int] = {}
        self._began = False
        self._rng = random.Random(seed)
        self._producer = ck.Producer({"bootstrap.servers": address, "enable.idempotence": True, "log_level": 0})
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="producer")
        self._thread.start()

    def partition(self, user: str) -> int:
        """Return the partition of a user's events."""
        return zlib.crc32(user.encode()) % PARTITIONS

    def stop(self) -> None:
        """Write no more, and wait until the broker has everything."""
        self._stopped.set()
        self._thread.join()
        if self._producer.flush(60):
            self.failure = "the broker did not take the last events"

    @property
    def sent(self) -> int:
        """Messages that the broker has acknowledged."""
        return sum(map(len, self.logs))

    def _run(self) -> None:
        for number in range(self._backlog):
            self._write()
            if number % 1_000 == 0:
                self._producer.flush(60)
        began, written = time.monotonic(), 0
        self._began = True
        while not self._stopped.wait(0.02):
            due = int((time.monotonic() - began) * self._rate) - written
            # a frozen broker is caught up with slowly
            for _ in range(min(due, 200)):
                self._write()
            written += min(due, 200)
            self._producer.poll(0)

    def _write(self) -> None:
        rng = self._rng
        # a few users are busy, all are active
        user, time_ms = f"u{int(self._users * rng.random() ** 2)}", 0
        # half of the items follow from the one before, so that there is something that a version can learn
        number = int(self._items * rng.random() ** 1.5)
        if rng.random() < 0.5:
            number = (7 * self._last.get(user, 0) + 1) % self._items
        self._last[user] = number
        item: str | None = f"i{number}"
        if rng.random() < 0.002:
            payload, item = rng.choice(POISON), None
        else:
            late_ms = rng.randrange(60_000) if rng.random() < 0.03 and self._began else 0
            time_ms = time.time_ns() // 1_000_000 - late_ms
            payload = json.dumps({"user": user, "item": item, "time": time_ms}).encode()

        def delivered(error: Any, message: Any) -> None:
            with self.lock:
                log = self.logs[message.partition()]
                if error is not None or message.offset() != len(log):
                    self.failure = f"message {message.offset()} where {len(log)} was expected: {error}"
                log.append(payload)
                if item is not None:
                    self.events.setdefault(user, []).append((message.offset(), item, time_ms))

        with contextlib.suppress(BufferError):
            self._producer.produce(self._topic, payload, partition=self.partition(user), on_delivery=delivered)


class Queries:
    """Asks for lists at a rate, and checks each against the events that were applied before it was asked for.

    An own event is in the history and out of the list from the moment when its offset is passed; what a user had never
    comes back; an answer has one version, and versions only grow.
    """

    def __init__(
        self, producer: Producer, topic: str, url: Callable[[], str | None], *, rate: float, seed: int
    ) -> None:
        self.wrong: list[str] = []
        self.asked = self.checked = self.failed = 0
        self.seconds: list[float] = []
        self._producer, self._topic, self._url = producer, topic, url
        self._rate, self._rng = rate, random.Random(seed)
        self._version = self._rolled_back = 0
        self._lengths: dict[str, int] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="queries")
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(timeout=5) as http:
            while not self._stopped.wait(1 / self._rate):
                url = self._url()
                if url is None:
                    continue
                try:
                    self._ask(http, url)
                except (httpx.HTTPError, ValueError, KeyError):
                    # it is being killed, or stopped
                    self.failed += 1

    def _ask(self, http: httpx.Client, url: str) -> None:
        with self._producer.lock:
            users = list(self._producer.events)
        if not users:
            return
        user = self._rng.choice(users)
        health = http.get(f"{url}/health").json()
        passed = health["source"]["offsets"].get(f"{self._topic}/{self._producer.partition(user)}", 0)
        began = time.monotonic()
        response = http.get(f"{url}/v1/users/{user}/recommendations")
        self.seconds.append(time.monotonic() - began)
        self.asked += 1
        response.raise_for_status()
        answer = response.json()
        with self._producer.lock:
            # the same item at the same millisecond is a repeat, which is applied once
            had = {(item, at) for offset, item, at in self._producer.events[user] if offset < passed}
        again = {item for item, _ in had} & set(answer["items"])
        if again:
            self.wrong.append(f"{user} had {sorted(again)} before offset {passed}, and gets it again")
        # without a version only the memories answer; a version that was worse is taken back
        version, back = answer["version"], health["training"]["rolled_back"]
        if version == 0 and answer["source"] == "mix":
            self.wrong.append(f"an answer of the model, and of no version: {answer}")
        if 0 < version < self._version and back == self._rolled_back:
            self.wrong.append(f"version {version} after {self._version}")
        self._version, self._rolled_back = version or self._version, back
        if had:
            kept = [event["item"] for event in http.get(f"{url}/v1/users/{user}/history").json()["events"]]
            if len(kept) < min(len(had), 256):
                self.wrong.append(f"{user} has {len(kept)} events, {len(had)} were applied")
            if len(kept) < self._lengths.get(user, 0):
                self.wrong.append(f"{user} had {self._lengths[user]} events, and has {len(kept)}")
            self._lengths[user] = len(kept)
            self.checked += 1
