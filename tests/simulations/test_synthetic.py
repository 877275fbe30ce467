"""The generated world: the same under a seed, in order, and with something to learn in it."""

from itertools import islice

import numpy as np
import pytest

from recurra.engine.events import Event, Item
from recurra.simulations.baselines import Popularity, SequentialRules
from recurra.simulations.prequential import Owned, Tally, rank_among_known
from recurra.simulations.synthetic import World, generate


def test_a_seed_gives_one_stream() -> None:
    first, again, other = (list(islice(generate(seed), 3_000)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_items_come_before_their_events_and_times_never_go_back() -> None:
    known: dict[str, bool] = {}
    last_ms = 0
    titles: list[str] = []
    for value in islice(generate(1, World(titles=60, most_titles=90, people=200)), 20_000):
        if isinstance(value, Item):
            assert known.get(value.item) is None if value.available else known[value.item]
            known[value.item] = value.available
            if value.available:
                titles.append(value.title or "")
                assert value.categories
        else:
            assert known[value.item], f"{value.item} was withdrawn before"
            assert value.time_ms >= last_ms
            last_ms = value.time_ms
    # new titles came and old ones went, and no two are called the same
    assert len(known) > 150
    assert 60 <= sum(known.values()) <= 90 + 6
    assert len(set(titles)) == len(titles)
    assert all(title[0].isupper() for title in titles)


def test_every_world_keeps_its_size() -> None:
    people = {
        value.user
        for value in islice(generate(2, World(titles=50, people=10, sessions_per_day=100)), 5_000)
        if isinstance(value, Event)
    }
    assert 10 <= len(people) <= 14


@pytest.mark.parametrize("seed", [0, 5])
def test_what_follows_what_is_worth_more_than_popularity(seed: int) -> None:
    rules, popularity, owned = SequentialRules(), Popularity(), Owned()
    tallies = {baseline.name: Tally() for baseline in (rules, popularity)}
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    for value in islice(generate(seed), 8_000):
        if isinstance(value, Item):
            continue
        user, known = users.setdefault(value.user, len(users)), len(items)
        item = items.setdefault(value.item, len(items))
        for baseline in (rules, popularity):
            if item < known and not owned.has(user, item):
                rank = rank_among_known(baseline.scores(user), item, owned.of(user))
                tallies[baseline.name].add(rank)
            baseline.learn(user, item)
        owned.add(user, item)
    found = {name: tally.metrics()["hr@10"] for name, tally in tallies.items()}
    assert found["sequential-rules"] > 2 * found["popularity"]
    assert found["popularity"] > 0.03


def test_popularity_is_uneven() -> None:
    events = [value.item for value in islice(generate(0), 20_000) if isinstance(value, Event)]
    counts = np.sort(np.unique(events, return_counts=True)[1])[::-1]
    assert counts[: len(counts) // 5].sum() > 0.4 * counts.sum()
