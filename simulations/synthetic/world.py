"""A generated catalogue and event stream: invented people watch invented films, with tastes, series and trends.

What there is to learn: series are watched in order, every title has a few others that tend to follow it, people keep to
a few categories and change them slowly, popularity is Zipf-like, new titles appear and some become a trend for a while.
"""

import heapq
import random
from bisect import bisect
from collections import deque
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from ...engine.events import Event, Item
from .titles import CATEGORIES, titles

__all__ = ["World", "generate"]

_MINUTE_MS = 60_000
_DAY_MS = 86_400_000
# how the next title of a session is chosen; what remains is a title of the person's categories by popularity
_NEXT_IN_SERIES = 0.5
_FOLLOWER = 0.3
_TREND = 0.25
_FOLLOWERS = 4
_TREND_TITLES = 3
_SERIES_LENGTHS = (1, 1, 1, 1, 2, 3, 5)


class World(NamedTuple):
    """The size and pace of a generated world; every field has a default that suits a demonstration."""

    # titles at the start, and at most at any time; beyond, the oldest title is withdrawn
    titles: int = 800
    most_titles: int = 4_000
    people: int = 2_000
    # one new title or series every so many events
    release_events: int = 100
    # a trend changes after so many events
    trend_events: int = 1_500
    session_events: float = 7.0
    sessions_per_day: float = 3_000.0
    start_ms: int = 1_735_689_600_000


class _Title(NamedTuple):
    item: str
    category: str
    # popularity within its category
    appeal: float
    # the title that continues this one
    sequel: str | None


class _Person:
    __slots__ = ("had", "last", "name", "recent", "tastes")

    def __init__(self, name: str, tastes: list[str]) -> None:
        self.name = name
        self.tastes = tastes
        self.last: _Title | None = None
        # the last titles, so that memory stays bounded in a stream without end
        self.recent: deque[str] = deque()
        self.had: set[str] = set()


def generate(seed: int = 0, world: World | None = None) -> Iterator[Event | Item]:
    """Yield the catalogue of the first day, then events in the order of their time with new catalogue records between.

    Without end, and the same for the same ``seed`` and ``world``. Event times are simulated from ``world.start_ms`` on.
    A withdrawn title comes as an ``Item`` that is not available.
    """
    return iter(_Simulation(random.Random(seed), world or World()))


class _Simulation:
    def __init__(self, rng: random.Random, world: World) -> None:
        self._rng = rng
        self._world = world
        self._names = {category: titles(category, rng) for category in CATEGORIES}
        self._titles: dict[str, _Title] = {}
        # per category: the titles and their cumulative appeal
        self._shelves: dict[str, tuple[list[str], list[float]]] = {category: ([], []) for category in CATEGORIES}
        self._followers: dict[str, list[str]] = {}
        self._fresh: deque[str] = deque(maxlen=40)
        self._trends: list[str] = []
        self._released = 0
        self._joined = 0
        self._activity = list(accumulate((rank + 10) ** -0.7 for rank in range(world.people)))

    def __iter__(self) -> Iterator[Event | Item]:
        world = self._world
        while len(self._titles) < world.titles:
            yield from self._release()
        self._turn_trends()
        people = [self._join() for _ in range(world.people)]
        for count, (time_ms, place) in enumerate(self._moments(), 1):
            person = people[place]
            title = self._next_title(person)
            self._watch(person, title)
            yield Event(person.name, title.item, time_ms)
            if count % world.release_events == 0:
                yield from self._release()
            if count % world.trend_events == 0:
                self._turn_trends()
            if count % (4 * world.trend_events) == 0:
                # one leaves, a new one comes
                people[self._rng.randrange(len(people))] = self._join()

    def _moments(self) -> Iterator[tuple[int, int]]:
        """Yield (time in ms, place of the person) in order: sessions begin at random and overlap."""
        rng, world = self._rng, self._world
        pause_ms = _DAY_MS / world.sessions_per_day
        begin_ms = float(world.start_ms)
        running: list[tuple[int, int]] = []
        busy: set[int] = set()
        while True:
            begin_ms += rng.expovariate(1 / pause_ms)
            while running and running[0][0] <= begin_ms:
                time_ms, place = running[0]
                yield time_ms, place
                if rng.random() < 1 / world.session_events:
                    heapq.heappop(running)
                    busy.discard(place)
                else:
                    watched_ms = round(rng.lognormvariate(0, 0.6) * 8 * _MINUTE_MS)
                    heapq.heapreplace(running, (time_ms + 1 + watched_ms, place))
            place = bisect(self._activity, rng.random() * self._activity[-1])
            if place not in busy:
                busy.add(place)
                heapq.heappush(running, (round(begin_ms), place))

    def _next_title(self, person: _Person) -> _Title:
        rng, last = self._rng, person.last
        if last is not None:
            if last.sequel is not None and last.sequel not in person.had and rng.random() < _NEXT_IN_SERIES:
                sequel = self._titles.get(last.sequel)
                if sequel is not None:
                    return sequel
            if rng.random() < _FOLLOWER:
                for item in self._followers.get(last.item, ()):
                    if item in self._titles and item not in person.had and rng.random() < 0.6:
                        return self._titles[item]
        if rng.random() < _TREND:
            item = rng.choice(self._trends)
            if item in self._titles and item not in person.had:
                return self._titles[item]
        for _ in range(8):
            # the first category is the favourite one
            category = person.tastes[min(int(rng.expovariate(1.1)), len(person.tastes) - 1)]
            item = self._from_shelf(category)
            if item not in person.had:
                break
        return self._titles[item]

    def _watch(self, person: _Person, title: _Title) -> None:
        person.last = title
        if title.item not in person.had:
            person.had.add(title.item)
            person.recent.append(title.item)
            if len(person.recent) > 300:
                person.had.discard(person.recent.popleft())
        if self._rng.random() < 0.004:
            # tastes drift: what was watched last moves to the front, the least liked category goes
            person.tastes = [title.category, *(taste for taste in person.tastes if taste != title.category)][:3]
        elif self._rng.random() < 0.002:
            person.tastes = [self._rng.choice(CATEGORIES), *person.tastes[:2]]

    def _join(self) -> _Person:
        self._joined += 1
        return _Person(f"person-{self._joined:05d}", self._rng.sample(CATEGORIES, 3))

    def _release(self) -> Iterator[Item]:
        """Add a title or a whole series to the catalogue; withdraw the oldest titles when there are too many."""
        rng = self._rng
        category = rng.choice(CATEGORIES)
        name = next(self._names[category])
        length = rng.choice(_SERIES_LENGTHS)
        appeal = rng.paretovariate(0.9)
        codes = [f"t{self._released + part:05d}" for part in range(length)]
        self._released += length
        for part, code in enumerate(codes):
            # the first part is the best known one
            title = _Title(code, category, appeal / (1 + part) ** 2, codes[part + 1] if part + 1 < length else None)
            self._titles[code] = title
            self._followers[code] = self._choose_followers(category)
            self._fresh.append(code)
            items, totals = self._shelves[category]
            items.append(code)
            totals.append((totals[-1] if totals else 0.0) + title.appeal)
            text = name if length == 1 else f"{name}, Part {part + 1}"
            yield Item(code, text, (category,), attributes={"series": name, "part": part + 1} if length > 1 else {})
        while len(self._titles) > self._world.most_titles:
            yield self._withdraw(next(iter(self._titles)))

    def _choose_followers(self, category: str) -> list[str]:
        """Choose titles that tend to follow a new one: mostly of its own category."""
        chosen = []
        for _ in range(_FOLLOWERS):
            shelf = category if self._rng.random() < 0.8 else self._rng.choice(CATEGORIES)
            if self._shelves[shelf][0]:
                chosen.append(self._rng.choice(self._shelves[shelf][0]))
        return chosen

    def _withdraw(self, item: str) -> Item:
        title = self._titles.pop(item)
        del self._followers[item]
        items, _ = self._shelves[title.category]
        items.remove(item)
        totals = list(accumulate(self._titles[other].appeal for other in items))
        self._shelves[title.category] = (items, totals)
        return Item(item, categories=(title.category,), available=False)

    def _from_shelf(self, category: str) -> str:
        items, totals = self._shelves[category]
        if not items:
            # a small world may lack a category for a while
            items, totals = max(self._shelves.values(), key=lambda shelf: len(shelf[0]))
        return items[bisect(totals, self._rng.random() * totals[-1], hi=len(items) - 1)]

    def _turn_trends(self) -> None:
        self._trends = self._rng.sample(list(self._fresh), _TREND_TITLES)
