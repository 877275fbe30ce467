"""Applier between a source and the engine: batches, dead letters, retries."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from ..engine.config import StoreConfig
from ..engine.errors import BrokerError, ClosedError, InputError, RecurraError, StoreFullError
from ..engine.results import IngestReport, Record, SourceHealth
from .dead_letter import DeadLetters

__all__ = ["Applier", "Backoff", "Origin", "Source", "SourceEngine", "SourceStoppedError"]

_LOG = logging.getLogger("recurra.source")
# an event that makes the engine fail is tried this often before it goes to the dead letters
_TRIES = 3


class SourceEngine(Protocol):
    """What a source needs of the engine."""

    def apply(self, records: Sequence[Record], *, refused: Callable[[int, str], None] | None = None) -> IngestReport:
        """Apply records together with their offsets."""
        ...

    def offsets(self) -> dict[str, int]:
        """Return the committed next offset per source."""
        ...

    def synced_offsets(self) -> dict[str, int]:
        """Return those that are on the device."""
        ...

    def source_info(self) -> dict[str, bytes]:
        """Return what is stored about sources."""
        ...

    def set_source_info(self, source: str, info: bytes, *, offset: int | None = None) -> None:
        """Store a fact about a source."""
        ...

    def reopen(self) -> None:
        """Open the store again after a failed write."""
        ...


class Source(Protocol):
    """Where events come from. One thread calls ``run``, once; any thread may call ``health``."""

    def run(self, stopped: threading.Event) -> None:
        """Feed the engine until the source ends or ``stopped`` is set; returns within a second or so after that.

        A batch under way is applied whole or not at all. What passes (a broker that is away, a full disk) is waited
        out; raises ``RecurraError`` where only a person can help.
        """
        ...

    def health(self) -> SourceHealth:
        """Return the state: ``connected`` says whether events can come in, ``problem`` why not."""
        ...


class Origin(NamedTuple):
    """Where a record came from and its original bytes, for the dead letters."""

    source: str
    position: int
    payload: bytes | None


class SourceStoppedError(RecurraError):
    """The source was stopped while it waited; what it was about to apply was not applied."""


class Backoff:
    """Waits that double up to a bound, and end at once when the source is stopped."""

    def __init__(self, stop: threading.Event, first_s: float = 0.1, most_s: float = 5.0) -> None:
        self._stop = stop
        self._first_s = self._next_s = first_s
        self._most_s = most_s

    def wait(self) -> bool:
        """Wait; False if the source is stopped."""
        wait_s, self._next_s = self._next_s, min(2 * self._next_s, self._most_s)
        return not self._stop.wait(wait_s)

    def reset(self) -> None:
        """Begin with the shortest wait again."""
        self._next_s = self._first_s


class Applier:
    """Hands records to the engine in batches and does not return before they are applied.

    A full disk is waited out, and so is an outlet for dead letters that does not work. A record that the engine cannot
    apply goes to the dead letters, its neighbours are applied. Raises ``SourceStoppedError`` if stopped while
    waiting, and every other ``RecurraError`` as it is.
    """

    def __init__(
        self,
        engine: SourceEngine,
        dead_letters: DeadLetters,
        stop: threading.Event,
        note: Callable[[str | None], None],
        config: StoreConfig,
        *,
        on_report: Callable[[IngestReport], None] | None = None,
    ) -> None:
        self._engine = engine
        self._dead_letters = dead_letters
        self._stop = stop
        self._note = note
        self._on_report = on_report
        self._config = config
        self.dead = 0

    def refuse(self, origin: Origin, reason: str) -> None:
        """Keep a message that is no event; it is safe once ``settle`` or ``apply`` returns."""
        self.dead += 1
        self._persist(lambda: self._dead_letters.write(*origin, reason))

    def settle(self) -> None:
        """Return once all letters are safe."""
        self._persist(self._dead_letters.flush)

    def apply(self, records: Sequence[Record], origins: Sequence[Origin]) -> None:
        """Apply records in their order; ``origins`` go with them one by one."""
        self.settle()
        start = size = 0
        for i, origin in enumerate(origins):
            length = len(origin.payload or b"")
            if i > start and (i - start >= self._config.batch_events or size + length > self._config.batch_bytes):
                self._apply(records[start:i], origins[start:i])
                start, size = i, 0
            size += length
        if start < len(records):
            self._apply(records[start:], origins[start:])

    def _apply(self, records: Sequence[Record], origins: Sequence[Origin]) -> None:
        refused_before: set[Origin] = set()
        backoff = Backoff(self._stop)
        tries = 0
        while records:
            refused = _Refusal(self._dead_letters, origins, refused_before)
            try:
                report = self._engine.apply(records, refused=refused)
            except StoreFullError as error:
                self._wait(backoff, str(error))
                self._reopen()
            except BrokerError as error:
                # a letter about a refused event could not be kept, so nothing moved past the event
                self._wait(backoff, str(error))
            except InputError as error:
                if self._refused_alone(records, origins, str(error)):
                    return
            except RecurraError:
                raise
            except OSError as error:
                self._wait(backoff, str(error))
            except MemoryError:
                # the machine's fault and not the events': they wait
                self._wait(backoff, "out of memory; the batch is tried again")
            except Exception as error:
                _LOG.exception("the engine failed on a batch of %d records", len(records))
                tries += 1
                if tries >= _TRIES and self._refused_alone(records, origins, f"the engine failed: {error!r}"):
                    return
                self._wait(backoff, f"the engine failed: {error!r}")
            else:
                self.dead += len(refused_before)
                self._note(None)
                if self._on_report is not None:
                    self._on_report(report)
                return
            records, origins = self._left(records, origins)

    def _refused_alone(self, records: Sequence[Record], origins: Sequence[Origin], reason: str) -> bool:
        """Apply the records one by one, so that only the one at fault is refused; True once all are dealt with."""
        records, origins = self._left(records, origins)
        if len(records) == 1:
            self.refuse(origins[0], reason)
            moved = Record(None, records[0].source, records[0].next_offset, records[0].partition)
            self.apply([moved], origins)
        else:
            for i in range(len(records)):
                self._apply(records[i : i + 1], origins[i : i + 1])
        return True

    def _left(self, records: Sequence[Record], origins: Sequence[Origin]) -> tuple[Sequence[Record], Sequence[Origin]]:
        """Drop what a failed call has committed before it failed."""
        stored = self._engine.offsets()
        left = [i for i, record in enumerate(records) if record.next_offset > stored.get(record.source, -1)]
        return [records[i] for i in left], [origins[i] for i in left]

    def _reopen(self) -> None:
        try:
            self._engine.reopen()
        except ClosedError:
            raise
        except (RecurraError, OSError) as error:
            _LOG.warning("the store cannot be opened again yet: %s", error)

    def _persist(self, action: Callable[[], None]) -> None:
        backoff = Backoff(self._stop)
        while True:
            try:
                return action()
            except (OSError, BrokerError) as error:
                self._wait(backoff, f"dead letters cannot be kept: {error}")

    def _wait(self, backoff: Backoff, problem: str) -> None:
        self._note(problem)
        _LOG.warning("waiting: %s", problem)
        if not backoff.wait():
            raise SourceStoppedError("stopped while waiting; the batch was not applied")


class _Refusal:
    """Keeps the letter of an event that the engine refuses, once per event however often the batch is tried."""

    def __init__(self, dead_letters: DeadLetters, origins: Sequence[Origin], refused_before: set[Origin]) -> None:
        self._dead_letters = dead_letters
        self._origins = origins
        self._refused = refused_before

    def __call__(self, index: int, reason: str) -> None:
        origin = self._origins[index]
        if origin not in self._refused:
            # the engine holds its lock here: a letter that cannot be kept fails the call, and the wait is outside
            self._dead_letters.write(*origin, reason)
            self._dead_letters.flush()
            self._refused.add(origin)
