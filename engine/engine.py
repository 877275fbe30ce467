"""Engine: store, caches, training and answers behind one thread-safe object."""

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, overload

import torch
from prometheus_client import CollectorRegistry
from threadpoolctl import threadpool_limits

from .background import Housekeeper, Repair, Training
from .clock import Clock, SystemClock
from .config import Config, check_opening
from .devices import device_of
from .errors import ClosedError, ConfigError, StoreError, VersionError
from .events import Event, Forget, Item, check_id, check_inputs
from .ingest import Ingest, Refused, Writing
from .metrics import Metrics
from .model import check_streams
from .monitoring.judge import QualityMonitor
from .query import Queries
from .results import (
    Alarm,
    DriftHealth,
    Health,
    HistoryEntry,
    IngestReport,
    MixWeights,
    Recommendation,
    Record,
    Refusal,
    Scores,
    TrainReport,
    VersionInfo,
)
from .serving.caches import Caches
from .serving.switch import Switch
from .store import Database, Reader, Rocks, Store, make_directory
from .training import Trainer
from .versions import VersionStore

__all__ = ["Engine", "open"]


def open(  # the name that people know from files and databases
    path: str | Path, config: Config | None = None, *, clock: Clock | None = None, read_only: bool = False
) -> "Engine":
    """Open the engine whose directory is ``path``, creating it if it is not there.

    ``read_only`` opens it beside a running engine: it answers from what was committed when it was opened. Raises
    ``ConfigError`` if the configured model cannot serve, ``StoreInUseError`` if another process writes the directory,
    ``StoreFormatError``, ``StoreCorruptError``, ``StoreError``.

    >>> import recurra
    >>> with recurra.open("doctest-data") as engine:
    ...     engine.health().status
    'ok'
    """
    check_opening(path, config)
    try:
        return Engine(path, config or Config(), clock=clock or SystemClock(), read_only=read_only)
    except MemoryError as error:
        raise ConfigError(f"no room in memory for what [store], [states] and [fast] ask for: {error}") from None


class Engine:
    """A recommendation engine over one directory; all methods may be called from any thread.

    The directory holds ``store/`` (the durable truth and snapshots of caches) and ``models/`` (versions). Use
    ``recurra.open`` and close it, or use it as a context manager.

    >>> import recurra
    >>> with recurra.open("doctest-engine") as engine:
    ...     report = engine.ingest([recurra.Event("ann", "m1", 1_000), recurra.Event("bob", "m2", 2_000)])
    ...     engine.recommend("ann", k=10).items
    ['m2']
    """

    def __init__(
        self, path: str | Path, config: Config, *, clock: Clock, read_only: bool = False, database: Database = Rocks
    ) -> None:
        """Use `open`; ``database`` opens the store's database (tests inject faults there)."""
        check_streams(config.model)
        device_of(config.states.device, name="states.device")
        device_of(config.training.device, name="training.device")
        # two spinning thread pools on few cores cost ten times, and a step's products are too small to share
        torch.set_num_threads(config.threads)
        threadpool_limits(1)
        self.path = Path(path)
        self.config = config
        self.read_only = read_only
        self._metrics = Metrics()
        self._write = threading.RLock()
        self._closed = False
        store_path = self.path / "store"
        kept = config.store
        if read_only:
            store = Reader.open(store_path, kept, database=database)
        else:
            store = Store.open(store_path, kept, clock=clock, database=database)
        self._store: Reader = store
        try:
            if not read_only:
                make_directory(self.path / "models", kept.hidden_bits)
            self._versions = VersionStore(self.path / "models")
            self._caches = Caches(self._store, config, self._metrics)
            self._caches.recover()
            self._switch = Switch(self._store, self._caches, self._versions, config, self._metrics, self._write)
            self._switch.to_newest()
            self._queries = Queries(self._store, self._caches, clock, config, self._metrics)
            self._monitor = QualityMonitor(self._caches, self._queries, config, self._metrics)
            self._writing: Writing | None = None
            if isinstance(store, Store):
                ingest = Ingest(store, self._caches, self._queries, self._monitor, clock, config, self._metrics)
                self._writing = Writing(store, ingest)
        except BaseException:
            self._store.close()
            raise
        drift = self._monitor.drift
        self._training = Training(
            self._new_trainer, self._switch, self._store, self.sync, drift, self._metrics, config.training, clock
        )
        self._repair = Repair(self.reopen)
        self._housekeeper: Housekeeper | None = None
        if not read_only:
            self._housekeeper = Housekeeper(config.store.sync_ms / 1000, self._keep_house)
            if config.training.mode == "auto":
                self._training.start(self._switch.trained_seq)

    @property
    def registry(self) -> CollectorRegistry:
        """The Prometheus registry of this engine."""
        return self._metrics.registry

    @property
    def version(self) -> int:
        """The number of the version that serves; 0 while there is none."""
        return self._switch.serving_number

    def ingest(self, events: Iterable[Event | Forget | Item], *, durable: bool = False) -> IngestReport:
        """Apply events, catalogue items and forget requests in their order.

        Returns when they are in the write-ahead log, which survives ``kill -9``; with ``durable`` when they are on the
        device, which survives a power loss. Raises ``InputError`` if one is not acceptable, and nothing is applied;
        ``StoreError`` and its kin if they could not be written. A repeat of an event changes nothing, so a call that
        failed is safe to repeat.
        """
        report = self.apply([Record(value, "", 0) for value in check_inputs(events)])
        if durable:
            self.sync()
        return report

    def apply(self, records: Sequence[Record], *, refused: Refused | None = None) -> IngestReport:
        """Apply the records of a source together with their offsets; for connectors.

        Micro-batches are cut anywhere between two records; each is atomic with the offsets of its records. For an
        event too far in the future ``refused(index, reason)`` is called before anything moves past it. On a
        ``StoreError`` the records from ``offsets()`` on were not applied.
        """
        with self._write:
            self._check_open()
            report = self._writable().ingest.apply(records, refused)
            if (reason := self._switch.undo()) is not None:
                self._training.on_rollback(reason)
        self._metrics.count(report)
        self._training.wake_if_due()
        return report

    def offsets(self) -> dict[str, int]:
        """Return the next offset of every source: where its connector has to go on."""
        return self._store.offsets()

    def synced_offsets(self) -> dict[str, int]:
        """Return the offsets that are on the device: what may be reported to a consumer group."""
        return self._writable().store.synced_offsets()

    def source_info(self) -> dict[str, bytes]:
        """Return what connectors stored about their sources."""
        return self._store.source_info()

    def set_source_info(self, source: str, info: bytes, *, offset: int | None = None) -> None:
        """Store a small fact about a source (its topic id, say), and where it starts."""
        with self._write:
            self._check_open()
            self._writable().ingest.note_source(source, info, offset)

    def recommend(
        self,
        user: str,
        k: int = 10,
        *,
        at: int | None = None,
        where: str | None = None,
        explain: bool = False,
        gone: Callable[[], bool] | None = None,
    ) -> Recommendation:
        """Return the best ``k`` items for a user, without those the user had and those not available.

        ``at`` is the time of the query in ms (now if None); ``where`` limits the items: ``"'Drama' in categories"``.
        Unknown users get popular items. Fewer than ``k`` items come back only if fewer are allowed. ``gone`` is asked
        now and then whether to give a filter up. Raises ``InputError`` and, for a slow filter, ``BusyError``.
        """
        self._check_open()
        with self._metrics.query_seconds.time():
            answer = self._queries.recommend(user, k, at_ms=at, where=where, explain=explain, gone=gone)
        self._metrics.answers.labels(answer.source).inc()
        return answer

    def similar(
        self, item: str, k: int = 10, *, where: str | None = None, gone: Callable[[], bool] | None = None
    ) -> Recommendation:
        """Return the ``k`` items nearest to an item; see `recommend`. Raises ``UnknownItemError``."""
        self._check_open()
        return self._queries.similar(item, k, where=where, gone=gone)

    def history(self, user: str) -> list[HistoryEntry]:
        """Return the kept events of a user, oldest first; raises ``UnknownUserError``."""
        self._check_open()
        return self._queries.history(user)

    def scores(self, user: str, at: int) -> Scores:
        """Return every part's scores of all items for a user as of ``at`` ms, before the next event."""
        self._check_open()
        return self._queries.scores(user, at)

    def item_row(self, item: str) -> int | None:
        """Return the row of an item in the arrays of ``scores``; None for an unknown item."""
        return self._store.items.row(item)

    def forget(self, user: str) -> bool:
        """Erase everything that is kept of a user, durably; False if there was nothing."""
        check_id(user, "user")
        with self._write:
            self._check_open()
            known = user in self._store.users
            self.apply([Record(Forget(user), "", 0)])
            self.sync()
        return known

    @overload
    def train(self, *, wait: Literal[True] = ..., active_users: int | None = ...) -> TrainReport: ...

    @overload
    def train(self, *, wait: bool = ..., active_users: int | None = ...) -> TrainReport | None: ...

    def train(self, *, wait: bool = True, active_users: int | None = None) -> TrainReport | None:
        """Train a candidate now, and serve it if it passes the gate.

        Without ``wait`` it goes on in the background: None is returned, and `health` says how it ended.
        ``active_users`` bounds how many states are folded before the switch (None: as many as are hot); the rest is
        folded when touched. Raises ``TrainingError``, ``VersionError`` or ``StoreError``; the version that serves
        then stays.
        """
        self._check_open()
        self._writable()
        if wait:
            return self._training.once(active_users=active_users)
        self._training.begin()
        return None

    def versions(self) -> list[VersionInfo]:
        """Return the versions that were promoted and are still kept, oldest first."""
        kept, serving = self._versions, self.version
        facts = [kept.facts(number) for number in kept.list()]
        return [
            VersionInfo(one.number, one.number == serving, one.items, one.report, kept.rolled_back(one.number))
            for one in facts
        ]

    def refusals(self) -> list[Refusal]:
        """Return the reports of the last candidates that the gate refused, oldest first."""
        return list(self._versions.refusals())

    def alarms(self) -> list[Alarm]:
        """Return the last alarms of drift since the engine was opened, oldest first."""
        return list(self._monitor.drift.alarms)

    @property
    def training_due(self) -> Literal["drift", "events", "time"] | None:
        """Why a training should start now; by itself the engine starts it in ``training.mode`` auto."""
        return self._training.due()

    def rollback(self, number: int) -> list[VersionInfo]:
        """Serve version ``number`` from now on, an older one or again a newer one; returns all versions.

        Raises ``VersionError`` if it is missing or damaged.
        """
        with self._write:
            self._check_open()
            if self.read_only:
                raise VersionError("the engine was opened for reading; roll back on the one that writes")
        if self._switch.by_hand(number):
            self._training.count_rollback()
        return self.versions()

    def health(self) -> Health:
        """Return the state of the engine, with its problems by part."""
        store, drift, alarms = self._store, self._monitor.drift, self.alarms()
        housekeeping = None if self._housekeeper is None else self._housekeeper.failure
        problems = {
            "store": store.failure,
            "damage": store.damage,
            "training": self._training.failure,
            "loading": self._switch.failure,
            "housekeeping": housekeeping,
        }
        found = {part: problem for part, problem in problems.items() if problem}
        return Health(
            status="degraded" if found else "ok",
            version=self.version,
            users=store.users.active,
            items=len(store.items),
            events=store.next_seq,
            training=self._training.health(),
            drift=DriftHealth(dict(drift.counts), alarms[-1] if alarms else None),
            problems=found,
        )

    def mix_weights(self) -> MixWeights:
        """Return the evidence for every part of the mixture (decayed NDCG@10), and the learnt weights."""
        with self._caches.lock:
            return self._caches.mix.weights()

    def digest(self) -> str:
        """Return the SHA-256 over the canonical records of all users."""
        return self._store.digest()

    def sync(self) -> None:
        """Bring everything applied so far to the device."""
        self._writable().store.sync()

    def reopen(self) -> None:
        """Open the store again after a failed write, once its cause (a full disk, say) is gone."""
        with self._write:
            self._check_open()
            store = self._writable().store
            if store.failure is None:
                return  # another caller was faster
            store.reopen()
        self._training.restart_trainer()

    def stats(self) -> dict[str, int | float]:
        """Return sizes, and the share of the events that the mixture learns from."""
        held = {"hot_state_bytes": self._switch.hot_state_bytes, "mix_share": self._caches.lessons.share}
        return self._store.stats() | held

    def close(self) -> None:
        """Stop training, save the caches' snapshot, close the store; may be repeated."""
        with self._write:
            if self._closed:
                return
            self._closed = True
        if self._housekeeper is not None:
            self._housekeeper.close()
        self._training.close()
        with self._write:
            try:
                if not self.read_only and self._store.failure is None:
                    self._caches.save(self._writable().store)
            finally:
                self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _writable(self) -> Writing:
        if self._writing is None:
            raise StoreError(f"the store {self._store.path} was opened for reading")
        return self._writing

    def _new_trainer(self) -> Trainer:
        return Trainer(self.path, self.config, self._store.epoch)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the engine over {self.path} is closed")

    def _keep_house(self) -> None:
        if self._store.failure is None:
            self.sync()
        self._repair.turn(failed=self._store.failure is not None)
        self._training.wake_if_due()
        self._observe()
        if self._caches.due():
            with self._write:
                self._caches.save(self._writable().store)

    def _observe(self) -> None:
        serving = self._caches.serving
        counts = (self._store.users.active, len(self._store.items), 0 if serving is None else len(serving.residency))
        self._metrics.observe(*counts, self.mix_weights(), self._caches.lessons.share)
