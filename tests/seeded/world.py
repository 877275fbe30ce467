"""Engine, source and applier in one thread, with a model of the broker, of the disk and of the clock around them.

A seed decides what happens: which messages come, which calls fail and how, when the process is killed, when the power
goes. Whenever the source waits for the broker, the store is compared with a plain model of it, the auditor's. At the
end all faults stop, and everything that was ever written must be there.
"""

import json
import random
import shutil
import zlib
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any

import pytest

from recurra.connectors.audit_model import Expected, Ledger, decode
from recurra.connectors.kafka import source as kafka_source
from recurra.connectors.kafka.options import KafkaAddress
from recurra.connectors.kafka.source import KafkaSource
from recurra.engine import engine as engine_module
from recurra.engine.clock import EventClock
from recurra.engine.config import Config, FastConfig, KafkaConfig, MixConfig, StateConfig, StoreConfig, TrainingConfig
from recurra.engine.engine import Engine
from recurra.engine.errors import RecurraError, StoreError, StoreFullError
from recurra.engine.metrics import Metrics

from .broker import GAP, Broker
from .disk import Disk

NOW_MS = 1_700_000_000_000
USERS, ITEMS, PARTITIONS, MESSAGES, STEPS = 7, 12, 2, 60, 24
CONFIG = Config(
    store=StoreConfig(anchor=4, tail_events=2, hot_histories=8, batch_events=8, sync_ms=10**9, log_events=60),
    states=StateConfig(hot_users=8),
    fast=FastConfig(pair_entries=1 << 10, contexts=8, neighbours=8, error_events=8, snapshot_events=40),
    mix=MixConfig(budget=0.0, sample=0.2),
    training=TrainingConfig(mode="off"),
    kafka=KafkaConfig(catalogue_topic="items"),
)
POISON = (b"", b"{", b"null", b'{"user":"u1"}', b'{"user":"u1","item":"i1","time":-1}', b"\xff\xfe", b'{"user":[]}')


class Killed(BaseException):
    """The process is gone; what it had not written is lost."""


class Letters:
    """Dead letters in memory: those that were flushed outlive the process."""

    def __init__(self, fault: Any) -> None:
        self.kept: list[bytes | None] = []
        self._waiting: list[bytes | None] = []
        self._fault = fault

    def write(self, source: str, position: int, payload: bytes | None, reason: str) -> None:
        del source, position, reason
        self._waiting.append(payload)

    def flush(self) -> None:
        self._fault("letters")
        self.kept += self._waiting
        self._waiting = []

    def close(self) -> None:
        self._waiting = []


class Stopped:
    """The event that stops the source; waiting for it passes the time of this world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def wait(self, seconds: float) -> bool:
        self._world.now_s += seconds
        self._world.step(polling=False)
        return self._set


class World:
    """One run of one seed."""

    def __init__(self, seed: int, patch: pytest.MonkeyPatch) -> None:
        self.seed = seed
        self.now_s = 0.0
        self._rng = random.Random(seed)
        self._calm = False
        self._steps = 0
        self._full = self._broken = self._ended = 0
        self._told: list[str] = []
        self._disk = Disk(self._fault)
        self._broker = Broker({"events": PARTITIONS, "items": 1}, lambda: self.step(polling=True))
        self._letters = Letters(self._fault)
        self._models = [_Model() for _ in range(PARTITIONS)]
        self._bad: list[bytes] = []
        self._folder = Path(mkdtemp(prefix="recurra-world-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self._engine: Engine | None = None
        self._compared: object = None
        self._complete = False
        self._stopped = Stopped(self)
        patch.setattr(kafka_source, "time", SimpleNamespace(monotonic=lambda: self.now_s))
        # its work is a step of this world; the others take longer than everything else here
        patch.setattr(engine_module, "Housekeeper", _NoThread)
        patch.setattr(engine_module, "threadpool_limits", lambda limit: None)
        patch.setattr(engine_module, "Metrics", lambda: _METRICS)

    def run(self) -> None:
        """Live through it; raises ``AssertionError`` with the seed and what had happened."""
        try:
            while not self._complete:
                self._life()
            self._final()
        except AssertionError as error:
            raise AssertionError(f"seed {self.seed} after {self._told}: {error}") from error
        finally:
            self._drop()
            shutil.rmtree(self._folder)

    def step(self, *, polling: bool) -> None:
        """Let time pass: one thing may happen. Between two batches everything is compared with the model."""
        self._steps += 1
        self.now_s += 0.3
        if polling:
            self._compare()
        if self._steps > STEPS:
            self._heal()
        chance = self._rng.random()
        if self._calm:
            if polling and self._caught_up():
                self._complete = True
                self._stopped.set()
        elif chance < 0.3:
            self._produce()
        elif chance < 0.36:
            self._tell("broker", down=not self._broker.down)
            self._broker.down = not self._broker.down
        elif chance < 0.42:
            self._full = self._rng.randrange(1, 6)
            self._tell("full", calls=self._full)
        elif chance < 0.46:
            self._broken = self._rng.randrange(1, 3)
            self._tell("broken", calls=self._broken)
        elif polling and chance < 0.52:
            self._tell("stop")
            self._stopped.set()
        elif polling and chance < 0.7:
            self._keep_house()
        elif chance < 0.75:
            self._die()

    def _life(self) -> None:
        """Open the engine and read until the source ends; whatever ended it, the next life begins where it was."""
        self._stopped = Stopped(self)
        try:
            self._engine = engine = self._open()
            source = KafkaSource(engine, KafkaAddress("model:1", "events"), CONFIG, self._letters, client=self._broker)
            source.run(self._stopped)  # type: ignore[arg-type]
            engine.close()
        except Killed:
            pass
        except (RecurraError, OSError) as error:
            # a fault that only a person can deal with ends the service; here the person starts it again
            self._tell("ended", error=str(error)[:60])
            # one may still come of a fault before
            self._ended += self._calm
            self._steps += 1
            if self._ended > 1:
                raise AssertionError(f"nothing fails any more, and yet: {error}") from error
        finally:
            self._drop()

    def _open(self) -> Engine:
        return Engine(self._folder, CONFIG, clock=EventClock(NOW_MS * 2), database=self._disk.open)

    def _drop(self) -> None:
        """End what a killed process cannot hold on to: its lock, its thread."""
        if self._engine is not None:
            engine, self._engine = self._engine, None
            engine._store._owner.release()  # type: ignore[attr-defined]
        self._letters.close()

    def _fault(self, call: str) -> None:
        """Fail a call of the disk, if a fault is due there."""
        if self._calm:
            return
        if call in ("write", "written", "sync") and self._rng.random() < 0.01:
            self._die()
        if self._full and call in ("write", "sync", "room", "letters"):
            self._full -= 1
            if call == "letters":
                raise OSError(28, "No space left on device")
            raise StoreFullError("No space left on device")
        if self._broken and call in ("read", "written", "sync", "open"):
            self._broken -= 1
            raise StoreError("Input/output error")

    def _die(self) -> None:
        if self._rng.random() < 0.4:
            kept = self._rng.random()
            self._tell("power", kept=round(kept, 2))
            self._disk.lose_power(kept)
        else:
            self._tell("kill")
        self._steps += 1
        raise Killed

    def _heal(self) -> None:
        self._calm = True
        self._broker.down = False
        self._full = self._broken = 0

    def _produce(self) -> None:
        for _ in range(self._rng.randrange(1, 12)):
            if sum(map(self._broker.end, [("events", part) for part in range(PARTITIONS)])) >= MESSAGES:
                return
            self._message()

    def _message(self) -> None:
        rng, number = self._rng, self._rng.randrange(USERS)
        user, partition = f"u{number}", zlib.crc32(b"%d" % number) % PARTITIONS
        kind = rng.random()
        if kind < 0.08:
            payload = rng.choice(POISON)
            self._bad.append(payload)
        elif kind < 0.12:
            payload = GAP
        elif kind < 0.15:
            payload = json.dumps({"user": user, "forget": True}).encode()
        elif kind < 0.2:
            record = {"item": f"i{rng.randrange(ITEMS + 3)}", "title": "t", "available": rng.random() < 0.8}
            self._broker.append("items", 0, json.dumps(record).encode())
            return
        else:
            record = {"user": user, "item": f"i{rng.randrange(ITEMS)}", "time": NOW_MS + rng.randrange(60)}
            if rng.random() < 0.3:
                record |= {"id": f"e{rng.randrange(40)}", "type": rng.choice(("view", "buy")), "weight": 0.5}
            payload = json.dumps(record).encode()
        self._broker.append("events", partition, payload)

    def _keep_house(self) -> None:
        assert self._engine is not None
        try:
            self._engine._keep_house()
        except StoreError as error:
            self._tell("housekeeping", error=str(error)[:40])

    def _compare(self) -> None:
        """Compare every user of the store with the model, and ask for a list."""
        engine = self._engine
        assert engine is not None
        if engine.health().problems.get("store"):
            # what memory holds is settled when the store is opened again
            return
        offsets = engine.offsets()
        if self._compared == (engine, offsets):
            return
        self._compared = (engine, offsets)
        expected: dict[str, Expected] = {}
        for partition, model in enumerate(self._models):
            offset = offsets.get(f"kafka:id-of-events/{partition}", 0)
            assert offset <= self._broker.end(("events", partition))
            expected |= model.at(offset, self._broker.logs["events"][partition])
        found = {record.user: Expected(record.n, record.history, set(record.seen)) for record in engine._store.export()}
        assert found == expected
        for place, reported in self._broker.reported.items():
            assert reported <= self._broker.end(place)
        self._ask(engine, expected)

    def _ask(self, engine: Engine, expected: dict[str, Expected]) -> None:
        user = f"u{self._rng.randrange(USERS)}"
        broken, self._broken = self._broken, 0
        items = engine.recommend(user, 5).items
        self._broken = broken
        assert len(set(items)) == len(items)
        if user in expected:
            assert not set(items) & expected[user].seen
            assert [entry.item for entry in engine.history(user)] == [entry[0] for entry in expected[user].history]

    def _caught_up(self) -> bool:
        assert self._engine is not None
        offsets = self._engine.offsets()
        places = [("events", partition) for partition in range(PARTITIONS)] + [("items", 0)]
        return all(
            offsets.get(f"kafka:id-of-{name}/{part}", 0) == self._broker.end((name, part)) for name, part in places
        )

    def _final(self) -> None:
        """Everything that was written is there, every bad message is a letter, and health says ok."""
        self._engine = engine = self._open()
        assert self._caught_up()
        self._compare()
        health = engine.health()
        assert health.status == "ok", health.problems
        left = list(self._letters.kept)
        for payload in self._bad:
            assert payload in left, f"no letter for {payload!r}"
        records: dict[str, dict[str, Any]] = {}
        for message in self._broker.logs["items"][0]:
            record = json.loads(message or b"null")
            records[record["item"]] = record
        for item, record in records.items():
            row = engine._store.items.row(item)
            assert row is not None
            kept = engine._store.items.record(row)
            assert kept is not None
            assert kept.available == record["available"]

    def _tell(self, what: str, **more: object) -> None:
        self._told.append(f"{self._steps}:{what}" + "".join(f" {name}={value}" for name, value in more.items()))


class _NoThread:
    failure = None

    def __init__(self, interval_s: float, work: object) -> None:
        pass

    def close(self) -> None:
        pass


class _Model:
    """What one partition says of its users, up to an offset."""

    def __init__(self) -> None:
        self._offset = 0
        self._ledger = Ledger(CONFIG.store.anchor)

    def at(self, offset: int, log: list[bytes | None]) -> dict[str, Expected]:
        if offset < self._offset:
            self._offset, self._ledger = 0, Ledger(CONFIG.store.anchor)
        for payload in log[self._offset : offset]:
            fact = None if payload == GAP else decode(payload, _NAMES)
            if fact is not None:
                self._ledger.apply(fact)
        self._offset = offset
        return self._ledger.users


_METRICS = Metrics()
_NAMES = {name: name for name in ("user", "item", "time", "type", "weight", "id", "forget")}
