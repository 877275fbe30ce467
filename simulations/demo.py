"""The demonstration: a generated stream through a live engine, judged before it is learnt."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..connectors.http import DemoFigures
from ..engine.clock import EventClock
from ..engine.config import Config, TrainingConfig
from ..engine.engine import Engine
from ..engine.events import Event, Item
from .baselines import Popularity
from .prequential import MISS, Owned, Tally, rank_among_known
from .synthetic import generate

__all__ = ["Demo", "demo_config"]

# recommendations that are asked for to judge an event; an item that is not among them counts as missed
_LISTED = 20
_NOT_LISTED = 1_000
# one event in so many is judged
_JUDGED = 5
_BATCH = 64
_RECENT_USERS = 8


def demo_config(seed: int = 0) -> Config:
    """Return the configuration of the demonstration: defaults, but with rarer trainings."""
    return Config(seed=seed, training=TrainingConfig(min_events=4_000, every_events=10_000, seed=seed))


class Demo:
    """Plays a generated catalogue and stream into an engine, and asks it for its list before some of the events.

    ``clock`` must be the engine's: it follows the events, whose generated time runs faster than the clock on the wall.
    ``snapshot`` may be called from any thread, the rest from one.
    """

    def __init__(self, engine: Engine, clock: EventClock, *, seed: int = 0) -> None:
        self._engine = engine
        self._clock = clock
        self._stream: Iterator[Event | Item] = generate(seed)
        self._judge = _Judge()
        self._started_s = time.monotonic()
        self._recent_users: deque[str] = deque(maxlen=_RECENT_USERS)
        self.events = 0

    def play(
        self,
        events: int | None,
        *,
        rate: float,
        stopped: threading.Event,
        progress: Callable[[DemoFigures], None],
    ) -> None:
        """Play ``events`` events (None: until ``stopped``) at ``rate`` a second, calling ``progress`` after a batch."""
        start_s = time.monotonic()
        played = 0
        while not stopped.is_set() and (events is None or played < events):
            batch = list(islice(self._stream, _BATCH if events is None else min(_BATCH, events - played)))
            played += self._learn(batch)
            progress(self.snapshot())
            ahead_s = played / rate - (time.monotonic() - start_s)
            if ahead_s > 0:
                stopped.wait(ahead_s)

    def snapshot(self) -> DemoFigures:
        """Return the figures that the live page shows beside the engine's health."""
        seconds = time.monotonic() - self._started_s
        return DemoFigures(
            demo=True,
            played=self.events,
            seconds=round(seconds, 1),
            recent_users=list(self._recent_users),
            judged=self._judge.recurra.events,
            recurra=self._judge.recurra.recent(),
            popularity=self._judge.popularity.recent(),
        )

    def summary(self) -> dict[str, Any]:
        """Return the JSON of ``recurra demo --exit``."""
        seconds = time.monotonic() - self._started_s
        return {
            "recurra": _listed_metrics(self._judge.recurra),
            "popularity": _listed_metrics(self._judge.popularity),
            "events": self.events,
            "judged": self._judge.recurra.events,
            "seconds": round(seconds, 1),
            "events_per_s": round(self.events / seconds, 1),
            "versions": self._engine.health().training.counts | {"serving": self._engine.version},
        }

    def _learn(self, batch: list[Event | Item]) -> int:
        """Hand a batch to the engine, cut before every event that is judged; returns the number of events."""
        run: list[Event | Item] = []
        before = self.events
        for value in batch:
            if isinstance(value, Event):
                if self.events % _JUDGED == 0:
                    self._engine.ingest(run)
                    run = []
                    self._judge.ask(self._engine, value)
                self._judge.learn(value)
                self._recent_users.append(value.user)
                self._clock.advance(value.time_ms)
                self.events += 1
            elif not value.available:
                self._judge.withdraw(value.item)
            run.append(value)
        self._engine.ingest(run)
        return self.events - before


class _Judge:
    """Ranks recurra and popularity on the same events."""

    def __init__(self) -> None:
        self.recurra = Tally()
        self.popularity = Tally()
        self._counts = Popularity()
        self._owned = Owned()
        self._users: dict[str, int] = {}
        self._items: dict[str, int] = {}
        self._withdrawn: set[int] = set()

    def ask(self, engine: Engine, event: Event) -> None:
        """Judge an event that is not learnt yet."""
        user = self._users.get(event.user, -1)
        item = self._items.get(event.item)
        if item is None or self._owned.has(user, item):
            # an item without events so far, or one that the user had: a miss for both
            self.recurra.add(MISS)
            self.popularity.add(MISS)
            return
        answer = engine.recommend(event.user, _LISTED, at=event.time_ms)
        self.recurra.add(answer.items.index(event.item) + 1 if event.item in answer.items else _NOT_LISTED)
        self.popularity.add(rank_among_known(self._counts.scores(user), item, self._excluded(user)))

    def learn(self, event: Event) -> None:
        """Count an event."""
        user = self._users.setdefault(event.user, len(self._users))
        item = self._items.setdefault(event.item, len(self._items))
        self._counts.learn(user, item)
        self._owned.add(user, item)

    def withdraw(self, item: str) -> None:
        """Take an item off the list of popularity too."""
        if item in self._items:
            self._withdrawn.add(self._items[item])

    def _excluded(self, user: int) -> NDArray[np.int32]:
        owned = self._owned.of(user)
        return np.union1d(owned, np.array(sorted(self._withdrawn), np.int32)) if self._withdrawn else owned


def _listed_metrics(tally: Tally) -> dict[str, float]:
    # ranks beyond the list are not known, so there is no mean reciprocal rank
    return {name: value for name, value in tally.metrics().items() if name != "mrr"}
