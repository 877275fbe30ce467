"""Recommender: the verbs that an embedded engine and a client of a service share."""

from collections.abc import Iterable
from types import TracebackType
from typing import Protocol, Self

from .events import Event, Forget, Item
from .results import Health, HistoryEntry, IngestReport, Recommendation, Refusal, TrainReport, VersionInfo

__all__ = ["Recommender"]


class Recommender(Protocol):
    """Verbs of `Engine` and `Client`, and as coroutines of `AsyncClient`; all may be called from any thread.

    Code that is written against it runs embedded or against a service without a change. Errors are `RecurraError`.
    """

    def ingest(self, events: Iterable[Event | Forget | Item], *, durable: bool = False) -> IngestReport:
        """Apply events, catalogue items and forget requests in their order; ``durable`` waits for the device."""
        ...

    def recommend(
        self, user: str, k: int = 10, *, at: int | None = None, where: str | None = None, explain: bool = False
    ) -> Recommendation:
        """Return the best ``k`` items for a user, as of ``at`` ms (None: now), limited by the filter ``where``."""
        ...

    def similar(self, item: str, k: int = 10, *, where: str | None = None) -> Recommendation:
        """Return the ``k`` items nearest to an item, limited by ``where``; raises ``UnknownItemError``."""
        ...

    def history(self, user: str) -> list[HistoryEntry]:
        """Return the kept events of a user, oldest first; raises ``UnknownUserError``."""
        ...

    def forget(self, user: str) -> bool:
        """Erase everything that is kept of a user; False if there was nothing."""
        ...

    def train(self, *, wait: bool = True) -> TrainReport | None:
        """Train a candidate now and serve it if it passes the gate; without ``wait`` return None once it started."""
        ...

    def versions(self) -> list[VersionInfo]:
        """Return the versions that were promoted and are still kept, oldest first."""
        ...

    def refusals(self) -> list[Refusal]:
        """Return the reports of the last candidates that the gate refused, oldest first."""
        ...

    def rollback(self, number: int) -> list[VersionInfo]:
        """Serve version ``number`` from now on; returns all versions. Raises ``VersionError``."""
        ...

    def health(self) -> Health:
        """Return the state and its problems."""
        ...

    def close(self) -> None:
        """Let go of everything; may be repeated. Other verbs raise ``ClosedError`` afterwards."""
        ...

    def __enter__(self) -> Self:
        """Return itself, to be closed at the end of a ``with`` block."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        ...
