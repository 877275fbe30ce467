"""Laws of the fast memory, and its numbers against plain dictionaries."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.engine.config import FastConfig
from recurra.engine.fast import Context, FastMemory, Few

Events = list[tuple[int, int, int]]
Rows = npt.NDArray[np.int32]
Times = npt.NDArray[np.int64]

SMALL = FastConfig(half_lives=(3.0, 20.0), neighbours=64, context=20, contexts=64)
TIGHT = FastConfig(half_lives=(3.0,), neighbours=8, pair_entries=256, context=3, contexts=8, pair_half_lives=(3.0, 2.0))

streams = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 30), st.integers(0, 1_000)), max_size=120)
cuts = st.lists(st.integers(1, 8), min_size=1, max_size=10)


class Histories:
    """Full histories by (time, arrival), as the store keeps them."""

    def __init__(self) -> None:
        self.entries: dict[int, list[tuple[int, int]]] = defaultdict(list)

    def load(self, user: int) -> tuple[Rows, Times]:
        tail = sorted(self.entries[user], key=lambda entry: entry[1])[-20:]
        return np.array([item for item, _ in tail], np.int32), np.array([time for _, time in tail], np.int64)

    def add(self, events: Events) -> None:
        for user, item, time in events:
            self.entries[user].append((item, time))


def described(config: FastConfig) -> FastMemory:
    """A memory that knows attributes of four items in five."""
    memory = FastMemory(config)
    for item in range(31):
        if item % 5:
            memory.describe(item, np.array([item % 3, 3 + item % 7], np.int32))
    return memory


def columns(events: Events) -> tuple[Rows, Rows, Times]:
    users, items, times = zip(*events, strict=True)
    return np.array(users, np.int32), np.array(items, np.int32), np.array(times, np.int64)


def feed(memory: FastMemory, histories: Histories, events: Events, sizes: list[int]) -> None:
    start, turn = 0, 0
    while start < len(events):
        block = events[start : start + sizes[turn % len(sizes)]]
        memory.learn(*columns(block), histories.load)
        histories.add(block)
        start, turn = start + len(block), turn + 1


def scores(memory: FastMemory, histories: Histories) -> npt.NDArray[np.float32]:
    """Every part for every item and user: all that a query can see."""
    return np.array(
        [list(memory.parts(memory.context(user, histories.load), max(memory.items, 1)).values()) for user in range(12)]
    )


def candidates(memory: FastMemory, context: Context, wanted: int, excluded: Rows | None = None) -> Rows:
    """The candidates of the memory alone; with a thousand items more that nobody had, few are not all."""
    nothing = np.empty(0, np.int32)
    none = Few(nothing, np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.int64))
    allowed = np.ones(memory.items + 1_000, np.bool_)
    rows, scores = memory.assemble(
        context,
        allowed,
        nothing if excluded is None else excluded,
        nothing,
        none,
        wanted=wanted,
        least=0,
        parts=len(memory.names) + 1,
    )
    # the scores of the candidates are those that all items have
    expected = np.stack([values[rows] for values in memory.parts(context, allowed.size).values()])
    assert np.array_equal(scores[:-1], expected, equal_nan=True)
    assert np.isnan(scores[-1]).all()
    return rows


@pytest.mark.parametrize("config", [SMALL, TIGHT])
@settings(deadline=None, max_examples=40)
@given(events=streams, sizes=cuts)
def test_the_cut_into_calls_makes_no_difference(config: FastConfig, events: Events, sizes: list[int]) -> None:
    one, many = described(config), described(config)
    first, second = Histories(), Histories()
    feed(one, first, events, [1])
    feed(many, second, events, sizes)
    # which users are held may differ, what is learnt may not
    assert np.array_equal(scores(one, first), scores(many, second), equal_nan=True)


@pytest.mark.parametrize("config", [SMALL, TIGHT])
@settings(deadline=None, max_examples=40)
@given(events=streams, sizes=cuts, data=st.data())
def test_a_snapshot_and_the_events_after_it_equal_no_interruption(
    config: FastConfig, events: Events, sizes: list[int], data: st.DataObject
) -> None:
    whole, histories = described(config), Histories()
    feed(whole, histories, events, sizes)
    stop = data.draw(st.integers(0, len(events)))
    before, early = described(config), Histories()
    feed(before, early, events[:stop], sizes)
    after = FastMemory(config)
    assert after.restore(before.snapshot())
    feed(after, early, events[stop:], [3])
    assert np.array_equal(scores(whole, histories), scores(after, early), equal_nan=True)
    if config is SMALL:
        # no user was evicted: every byte is the same, the order of use included
        feed(before, Histories(), [], [1])
        again = FastMemory(config)
        assert again.restore(after.snapshot())
        assert again.snapshot() == after.snapshot()


def naive(events: Events, user: int, config: FastConfig) -> dict[str, dict[int, float]]:
    """Return the scores of all items by dictionaries of exact counts, without any bound."""
    histories: dict[int, list[tuple[int, int]]] = defaultdict(list)
    counts: dict[int, int] = defaultdict(int)
    together: list[dict[tuple[int, int], float]] = [defaultdict(float), defaultdict(float)]
    after: list[dict[tuple[int, int], float]] = [defaultdict(float), defaultdict(float)]
    direct: dict[tuple[int, int], float] = defaultdict(float)
    fading: dict[tuple[int, int], float] = defaultdict(float)
    result: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    now = len(events)
    for k, (who, item, time) in enumerate(events):
        recent = sorted(histories[who], key=lambda entry: entry[1])[-config.context :]
        earlier = [other for other, when in recent if when <= time][::-1]
        for speed, half_life in enumerate(config.pair_half_lives):
            weight = 2.0 ** ((k - now) / half_life)
            for other, _ in recent:
                if other != item:
                    together[speed][item, other] += weight
                    together[speed][other, item] += weight
            for distance, other in enumerate(earlier[:10], 1):
                after[speed][other, item] += weight / distance
        if earlier:
            direct[earlier[0], item] += 1
            for pair in fading:
                fading[pair] *= 0.5**0.1 if pair[0] == earlier[0] else 1
            fading[earlier[0], item] += 1
        counts[item] += 1
        for half_life in config.half_lives:
            result[f"popularity-{half_life:g}"][item] += 2.0 ** ((k - now) / half_life)
        histories[who].append((item, time))
    recent = sorted(histories[user], key=lambda entry: entry[1])[-config.context :]
    for (first, second), count in direct.items():
        if recent and first == recent[-1][0]:
            popular = result[f"popularity-{config.half_lives[0]:g}"][second]
            result["transitions-recent"][second] = fading[first, second]
            result["transitions"][second] = count + 0.5 * popular / (1 + popular)
    for age, (item, _) in enumerate(recent[::-1]):
        row = (counts[item] + 20) ** 0.5
        for (first, second), weight in together[0].items():
            if first == item:
                root = row * (counts[second] + 20) ** 0.5
                result["item-knn-support"][second] += 1.0
                result["item-knn-wide"][second] += 0.97**age * weight / root
                if age < 10:
                    result["item-knn"][second] += 0.8**age * weight / root
                    result["item-knn-recent"][second] += 0.8**age * together[1][first, second] / root
        for (first, second), weight in after[0].items():
            if first == item:
                result["rules-last"][second] += 0.4**age * weight / row
                if age < 10:
                    result["rules"][second] += 0.8**age * weight / row
                    result["rules-recent"][second] += 0.8**age * after[1][first, second] / row
    return result


@settings(deadline=None, max_examples=40)
@given(events=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30), st.integers(0, 50)), min_size=1, max_size=80))
def test_scores_equal_exact_counts_while_every_neighbour_fits(events: Events) -> None:
    memory, histories = FastMemory(SMALL), Histories()
    feed(memory, histories, events, [5])
    for user in range(4):
        expected = naive(events, user, SMALL)
        for name, values in memory.parts(memory.context(user, histories.load), memory.items).items():
            known = {item: float(value) for item, value in enumerate(values) if np.isfinite(value)}
            assert known == pytest.approx({k: v for k, v in expected[name].items() if v > 0}, rel=1e-4)


def drift_stream(count: int, items: int, seed: int) -> Events:
    generator = np.random.default_rng(seed)
    return [(int(generator.integers(10)), int(generator.zipf(1.3)) % items, k * 1_000) for k in range(count)]


def test_memory_is_bounded_by_items_and_neighbours() -> None:
    config = FastConfig(neighbours=8, contexts=16)
    memory, histories = FastMemory(config), Histories()
    events = drift_stream(6_000, 200, 1)
    feed(memory, histories, events[:3_000], [512])
    middle = memory.nbytes
    feed(memory, histories, events[3_000:], [512])
    assert memory.nbytes == middle
    # 8 neighbours of 12 bytes in three tables, some smaller rows given back, and the first arena
    assert len(memory.snapshot()) < 200 * (8 * 12 * 3 * 2 + 80) + 16 * 300 + 3 * 1_024 * 4 + 4_000


def test_memory_is_bounded_by_the_pairs_kept_in_all() -> None:
    config = FastConfig(neighbours=64, contexts=16, pair_entries=4_096)
    memory, histories = FastMemory(config), Histories()
    events = drift_stream(4_000, 100, 6)
    feed(memory, histories, events, [512])
    assert len(memory.snapshot()) < 3 * 4_096 * 12 + 300 * 100 + 16 * 300 + 3 * 1_024 * 4 + 4_000
    # a pair of new items still finds room
    feed(memory, histories, [(0, 301, 10_000_000), (0, 302, 10_000_001)], [1])
    assert memory.similar(301, 1)[0].tolist() == [302]
    assert 302 in candidates(memory, memory.context(0, histories.load), 5)


def test_weights_survive_many_scalings() -> None:
    # half-lives of 2 and 3 events: the inflation passes 2 ** 32 some fifty times
    memory, histories = described(TIGHT), Histories()
    feed(memory, histories, [(user % 8, item, time) for user, item, time in drift_stream(5_000, 10, 2)], [512])
    for name, values in memory.parts(memory.context(3, histories.load), 10).items():
        known = values[np.isfinite(values)]
        assert known.size
        # counts that do not decay, and roots of those that halve in a thousand events
        assert known.max() < {"transitions": 5_000.0, "attributes-recent": 100.0}.get(name, 20.0)
        assert known.min() >= 0.0


def test_a_new_item_is_a_candidate_after_its_first_event() -> None:
    memory, histories = FastMemory(SMALL), Histories()
    feed(memory, histories, [(0, 1, 10), (1, 1, 11), (1, 2, 12)], [1])
    feed(memory, histories, [(0, 7, 13)], [1])
    fresh = memory.context(1, histories.load)
    assert 7 in candidates(memory, fresh, 5)
    assert np.isfinite(memory.parts(fresh, 8)["item-knn"][7])


def test_candidates_hold_the_first_of_every_part_without_the_excluded() -> None:
    memory, histories = FastMemory(SMALL), Histories()
    feed(memory, histories, drift_stream(400, 31, 3), [64])
    context = memory.context(4, histories.load)
    excluded = np.unique(context.items)[:5]
    found = candidates(memory, context, 6, excluded)
    assert np.array_equal(found, np.unique(found))
    assert not np.isin(found, excluded).any()
    shares = {"item-knn": 6, "rules": 6, "popularity-3": 3, "popularity-20": 3}
    for name, values in memory.parts(context, memory.items).items():
        values[excluded] = np.nan
        wanted = shares.get(name, 2)
        ranked = np.sort(values[np.isfinite(values)])[::-1][:wanted]
        # equal scores are interchangeable
        assert np.isfinite(values[found]).sum() >= ranked.size
        assert np.array_equal(np.sort(values[found][np.isfinite(values[found])])[::-1][:wanted], ranked)
    assert candidates(memory, context, 6, np.arange(31, dtype=np.int32)).size == 0


def test_leaders_are_the_most_popular() -> None:
    memory, histories = FastMemory(FastConfig(half_lives=(50.0,), contexts=64)), Histories()
    events = [(user % 12, item, time) for user, item, time in drift_stream(5_000, 3_000, 4)]
    feed(memory, histories, events, [128])
    nobody = Context(np.empty(0, np.int32), np.empty(0, np.int64))
    values = memory.parts(nobody, memory.items)["popularity-50"]
    for count in (1, 10, 100):
        leaders = candidates(memory, nobody, count)
        assert np.array_equal(np.sort(values[leaders]), np.sort(values[np.isfinite(values)])[-count:])


def test_similar_items_share_users() -> None:
    memory, histories = FastMemory(SMALL), Histories()
    feed(memory, histories, [(user, item, user * 10 + item) for user in range(5) for item in (1, 2)], [4])
    feed(memory, histories, [(9, 1, 100), (9, 3, 101)], [1])
    items, values = memory.similar(1, 5)
    assert items.tolist() == [2, 3]
    assert values[0] > values[1]
    assert memory.similar(77, 5)[0].size == 0


def test_a_forgotten_user_is_loaded_again() -> None:
    memory, histories = FastMemory(SMALL), Histories()
    feed(memory, histories, [(5, 1, 1), (6, 2, 2)], [1])
    memory.forget(5)
    memory.forget(5)
    memory.forget(1_000)
    asked: list[int] = []

    def nothing(user: int) -> tuple[Rows, Times]:
        asked.append(user)
        return np.empty(0, np.int32), np.empty(0, np.int64)

    assert memory.context(5, nothing).items.size == 0
    assert memory.context(6, nothing).items.tolist() == [2]
    assert asked == [5]


def test_a_snapshot_of_other_settings_or_a_damaged_one_is_refused() -> None:
    memory, histories = FastMemory(SMALL), Histories()
    feed(memory, histories, drift_stream(50, 20, 5), [10])
    blob = memory.snapshot()
    for damaged in (b"", b"nonsense", blob[:-1], blob + b"x"):
        assert not FastMemory(SMALL).restore(damaged)
    other = FastMemory(TIGHT)
    assert not other.restore(blob)
    assert (other.events, other.items) == (0, 0)


def test_more_users_in_a_call_than_are_held_are_refused() -> None:
    memory = FastMemory(FastConfig(contexts=4))
    rows = np.arange(5, dtype=np.int32)
    with pytest.raises(ValueError, match="at most 4 users, not 5"):
        memory.learn(rows, rows, rows.astype(np.int64), Histories().load)
    assert memory.events == 0


def test_hits_on_a_real_stream(shared_data: Callable[[str], Path]) -> None:
    """The first 12,000 events of MovieLens in order of time: every part ranks far above chance, pairs above counts."""
    lines = shared_data("ml-100k/ml-100k.inter").read_text().splitlines()[1:]
    table = np.array([line.split("\t") for line in lines], np.int64)
    table = table[np.argsort(table[:, 3], kind="stable")][:12_000]
    _, users = np.unique(table[:, 0], return_inverse=True)
    _, items = np.unique(table[:, 1], return_inverse=True)
    events = list(zip(users.tolist(), items.tolist(), (table[:, 3] * 1_000).tolist(), strict=True))
    memory, histories = FastMemory(FastConfig()), Histories()
    feed(memory, histories, events[:9_000], [512])
    hits: dict[str, list[bool]] = defaultdict(list)
    for user, item, time in events[9_000:]:
        own = [entry for entry, _ in histories.entries[user]]
        for name, values in memory.parts(memory.context(user, histories.load), memory.items).items():
            values[own] = np.nan
            known = item < memory.items and bool(np.isfinite(values[item]))
            hits[name].append(known and int((values >= values[item]).sum()) <= 10)
        feed(memory, histories, [(user, item, time)], [1])
    rates = {name: float(np.mean(values)) for name, values in hits.items()}
    assert rates["item-knn"] > 1.5 * rates["popularity-50000"] > 0.06
    assert rates["rules"] > 1.5 * rates["popularity-50000"]
