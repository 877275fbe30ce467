import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.engine.config import ModelConfig
from recurra.engine.errors import InputError, VersionError
from recurra.engine.model import StepWeights, StreamingModel, gap_features
from recurra.engine.states import StateSlab

ITEMS = 50
LENGTHS = [1, 2, 63, 64, 65, 200]
BEFORE = 7


def moved(config: ModelConfig, size: float = 0.05) -> StreamingModel:
    """A model whose parameters have all left their initial values, so that a forgotten one shows."""
    model = StreamingModel(config, ITEMS).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=size)
    return model


MODEL = moved(ModelConfig())
WEIGHTS = StepWeights.of(MODEL)


def events(users: int, length: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, ITEMS + 1, (users, length)), rng.integers(0, 10_000_000, (users, length)).cumsum(axis=1)


def encode(slab: StateSlab, slots: np.ndarray, items: np.ndarray, times_ms: np.ndarray) -> None:
    users, length = items.shape
    slab.advance(
        slots, np.arange(users) * length, np.full(users, length), np.ones(users, bool), items.ravel(), times_ms.ravel()
    )


def truth(model: StreamingModel, items: np.ndarray, times_ms: np.ndarray) -> np.ndarray:
    """Hidden vectors (users, length + 1, d) by the naive scan in double precision."""
    double = StreamingModel(model.config, model.items).double().eval()
    double.load_state_dict(model.state_dict())
    with torch.no_grad():
        hidden: np.ndarray = double(torch.from_numpy(items), torch.from_numpy(times_ms), backend="naive").numpy()
    return hidden


def worst(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(got - want).max() / max(1.0, np.abs(want).max()))


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(),
        ModelConfig(layers=1, time=False, query_time=False),
        ModelConfig(d_model=32, heads=3, d_state=16),
        ModelConfig(d_model=20, layers=3, heads=3, head_dim=6, d_state=5, time_hidden=7),
    ],
    ids=["default", "one layer without time", "other sizes", "sizes that fill no panel"],
)
def test_step_equals_the_model_at_every_position(config: ModelConfig) -> None:
    model = moved(config)
    slab = StateSlab(StepWeights.of(model), 9)
    users, length = 5, 40
    items, times_ms = events(users, length)
    want = truth(model, items, times_ms)
    slots = np.array([7, 0, 3, 8, 2])
    slab.advance(slots, np.zeros(users), np.zeros(users), np.ones(users, bool), [], [])
    assert worst(slab.vectors[slots], want[:, 0]) < 1e-5
    for t in range(length):
        slab.advance(slots, np.arange(users), np.ones(users), np.zeros(users, bool), items[:, t], times_ms[:, t])
        assert worst(slab.vectors[slots], want[:, t + 1]) < 1e-5
    assert slab.count[slots].tolist() == [length] * users
    assert slab.last_ms[slots].tolist() == times_ms[:, -1].tolist()


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), max_size=6),
    st.permutations(range(3)),
    st.integers(0, 5),
)
def test_any_split_into_calls_gives_the_same_states(
    takes: list[tuple[int, int, int]], order: list[int], seed: int
) -> None:
    users, length = 3, 24
    items, times_ms = events(users, length, seed)
    whole = StateSlab(WEIGHTS, users)
    encode(whole, np.arange(users), items, times_ms)
    parts = StateSlab(WEIGHTS, users)
    done = np.zeros(users, int)
    for call, wish in enumerate([*takes, (length, length, length)]):
        take = np.minimum(wish, length - done)
        # each run lies somewhere in the call's events
        chosen = [items[user, done[user] : done[user] + take[user]] for user in order]
        stamps = [times_ms[user, done[user] : done[user] + take[user]] for user in order]
        starts = np.concatenate([[0], np.cumsum([len(part) for part in chosen])[:-1]])
        reset = np.full(users, call == 0)
        parts.advance(order, starts, take[order], reset, np.concatenate(chosen), np.concatenate(stamps))
        done += take
    assert worst(parts.vectors, whole.vectors) < 1e-5
    assert worst(parts.state[:users], whole.state[:users]) < 1e-5
    assert np.array_equal(parts.count, whole.count)
    assert np.array_equal(parts.last_ms, whole.last_ms)


def test_blocks_of_work_do_not_show() -> None:
    # more events than go through the layers at once, runs that cross the border, empty runs between them
    lengths = np.array([0, 700, 3, 0, 600, 1, 0])
    users = len(lengths)
    items, times_ms = events(1, int(lengths.sum()))
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    together = StateSlab(WEIGHTS, users)
    together.advance(np.arange(users), starts, lengths, np.ones(users, bool), items[0], times_ms[0])
    alone = StateSlab(WEIGHTS, users)
    for user in range(users):
        part = slice(starts[user], starts[user] + lengths[user])
        encode(alone, np.array([user]), items[:, part], times_ms[:, part])
    assert worst(together.vectors, alone.vectors) < 1e-5
    assert np.array_equal(together.count, lengths)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_threads_change_no_bit(dtype: str) -> None:
    lengths = np.array([1, 130, 0, 63, 1, 7, 70, 0, 1, 64, 300, 1])
    users = len(lengths)
    items, times_ms = events(1, int(lengths.sum()))
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    slabs = [StateSlab(WEIGHTS, users, dtype, threads=threads) for threads in (1, 2, 5)]
    for slab in slabs:
        slab.advance(np.arange(users), starts, lengths, np.ones(users, bool), items[0], times_ms[0])
        slab.advance([2, 0], [0, 1], [1, 2], [False, False], items[0, :3], times_ms[0, :3])
        assert np.array_equal(slab.vectors, slabs[0].vectors)
        assert np.array_equal(slab.state, slabs[0].state)
        assert np.array_equal(slab.window, slabs[0].window)
        assert np.array_equal(slab.count, slabs[0].count)


def test_an_error_in_a_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    slab = StateSlab(WEIGHTS, 200, threads=2)

    def fail(*_: object) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr(slab, "_block", fail)
    with pytest.raises(MemoryError, match="no more"):
        encode(slab, np.arange(200), *events(200, 1))


def test_reencoding_from_an_anchor_forgets_what_was_before() -> None:
    items, times_ms = events(2, 50)
    slab = StateSlab(WEIGHTS, 4)
    encode(slab, np.array([1, 2]), items, times_ms)
    encode(slab, np.array([2]), items[1:, 20:], times_ms[1:, 20:])
    fresh = StateSlab(WEIGHTS, 1)
    encode(fresh, np.array([0]), items[1:, 20:], times_ms[1:, 20:])
    assert np.array_equal(slab.vectors[2], fresh.vectors[0])
    assert slab.count[2] == 30
    assert worst(slab.vectors[[1]], truth(MODEL, items, times_ms)[:1, -1]) < 1e-5


def test_other_slots_are_left_alone() -> None:
    items, times_ms = events(3, 10)
    slab = StateSlab(WEIGHTS, 3)
    encode(slab, np.arange(3), items, times_ms)
    kept: tuple[np.ndarray, ...] = (slab.state[:3], slab.window[:3], slab.vectors, slab.count, slab.last_ms)
    before = [array.copy() for array in kept]
    slab.advance([1], [0], [1], [False], [4], [10**12])
    for old, new in zip(before, kept, strict=True):
        assert np.array_equal(old[[0, 2]], new[[0, 2]])
        assert not np.array_equal(old[1], new[1])


def test_work_arrays_are_written_before_they_are_read() -> None:
    items, times_ms = events(4, 20)
    clean, dirty = StateSlab(WEIGHTS, 4), StateSlab(WEIGHTS, 4)
    for work in dirty._work:
        for array in (*work.scratch, work.a, work.phi):
            array.fill(np.nan)
    encode(clean, np.arange(4), items, times_ms)
    encode(dirty, np.arange(4), items, times_ms)
    assert np.array_equal(clean.vectors, dirty.vectors)
    assert np.array_equal(clean.state, dirty.state)


def test_query_is_the_model_s_modulation() -> None:
    items, times_ms = events(3, 15)
    slab = StateSlab(WEIGHTS, 4)
    encode(slab, np.array([2, 0, 1]), items, times_ms)
    slab.advance([3], [0], [0], [True], [], [])
    now_ms = times_ms[:, -1] + np.array([0, 60_000, 40 * 86_400_000])
    clip_ms = int(WEIGHTS.gap_clip_s * 1000)
    hidden = torch.from_numpy(truth(MODEL, items, times_ms)[:, -1])
    clipped = times_ms[:, -1] + np.minimum(now_ms - times_ms[:, -1], clip_ms)
    phi = gap_features(torch.from_numpy(np.concatenate([times_ms, clipped[:, None]], axis=1)))[:, -1]
    with torch.no_grad():
        want = MODEL.query(hidden.float(), phi).numpy()
        start = MODEL.query(torch.from_numpy(slab.vectors[[3]]), torch.zeros(1, 3)).numpy()
    assert worst(slab.query([2, 0, 1], now_ms), want) < 1e-5
    assert worst(slab.query([3], 10**12), start) < 1e-5
    # a clock behind the last event counts as no gap
    assert np.array_equal(slab.query([2], times_ms[0, -1] - 5), slab.query([2], times_ms[0, -1]))


def test_query_without_query_time_is_the_vector() -> None:
    model = moved(ModelConfig(query_time=False))
    slab = StateSlab(StepWeights.of(model), 2)
    encode(slab, np.arange(2), *events(2, 5))
    assert np.array_equal(slab.query([1, 0], 10**13), slab.vectors[[1, 0]])


def test_added_items_are_read_by_the_vectors_given() -> None:
    slab, items = StateSlab(WEIGHTS, 2), np.array([[3, 7, 9, 3]])
    times_ms = np.array([[10, 2_000, 50_000, 60_000]])
    rows = [slab.add_items(WEIGHTS.read_table[[row]]) for row in (3, 7, 9)]
    assert rows == [ITEMS + 2, ITEMS + 3, ITEMS + 4]
    encode(slab, np.array([0]), items, times_ms)
    encode(slab, np.array([1]), np.array([[rows[0], rows[1], rows[2], rows[0]]]), times_ms)
    np.testing.assert_array_equal(slab.vectors[0], slab.vectors[1])
    with pytest.raises(InputError, match="item rows"):
        encode(slab, np.array([0]), np.array([[rows[2] + 1]]), times_ms[:, :1])
    # the version's own weights, which other slabs share, are as they were
    assert WEIGHTS.read_table.shape == (ITEMS + 2, 64)


def test_unknown_items_are_read_as_one_vector() -> None:
    slab = StateSlab(WEIGHTS, 3)
    for slot, item in enumerate([ITEMS, ITEMS, 3]):
        slab.advance([slot], [0], [1], [True], [item], [1000])
    assert np.array_equal(slab.vectors[0], slab.vectors[1])
    assert not np.array_equal(slab.vectors[0], slab.vectors[2])


@pytest.mark.parametrize(
    ("slots", "starts", "lengths", "items"),
    [
        ([3], [0], [1], [0]),
        ([-1], [0], [1], [0]),
        ([0], [0], [1], [ITEMS + 1]),
        ([0], [0], [1], [-1]),
        ([0], [1], [1], [0]),
    ],
)
def test_what_is_out_of_range_is_refused_whole(
    slots: list[int], starts: list[int], lengths: list[int], items: list[int]
) -> None:
    slab = StateSlab(WEIGHTS, 3)
    before = slab.state.copy()
    with pytest.raises(InputError, match="slots must be in"):
        slab.advance(slots, starts, lengths, [True], items, [0])
    assert np.array_equal(slab.state, before)


def test_bytes_of_a_slot_stay_within_the_promise() -> None:
    assert StateSlab(WEIGHTS, 1).nbytes_per_slot <= 37_888


def test_bfloat16_states_take_half_the_memory_and_stay_close() -> None:
    items, times_ms = events(4, 60)
    slab = StateSlab(WEIGHTS, 4, "bfloat16")
    encode(slab, np.arange(4), items, times_ms)
    assert slab.nbytes_per_slot <= 37_888 / 1.9
    assert 1e-6 < worst(slab.vectors, truth(MODEL, items, times_ms)[:, -1]) < 0.03
    with pytest.raises(InputError, match="float32 or bfloat16, got 'float16'"):
        StateSlab(WEIGHTS, 4, "float16")


@pytest.fixture(scope="module")
def long_rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    items, times_ms = events(len(LENGTHS), BEFORE + max(LENGTHS))
    return items, times_ms, truth(MODEL, items, times_ms)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 3e-2)])
@pytest.mark.parametrize("before", [0, BEFORE], ids=["from the start", "from a state"])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_every_length_equals_the_truth(
    long_rows: tuple[np.ndarray, np.ndarray, np.ndarray], dtype: str, tolerance: float, before: int, packed: bool
) -> None:
    items, times_ms, want = long_rows
    users = len(LENGTHS)
    slab = StateSlab(WEIGHTS, users, dtype)
    if before:
        encode(slab, np.arange(users), items[:, :before], times_ms[:, :before])
    lengths, after = np.array(LENGTHS), slice(before, before + max(LENGTHS))
    inside = np.arange(max(LENGTHS)) < lengths[:, None]
    rows, stamps = items[:, after], times_ms[:, after]
    if packed:
        rows, stamps, starts = rows[inside], stamps[inside], np.cumsum(lengths) - lengths
    else:
        # what lies behind the end of a row must not be read
        rows, stamps, starts = np.where(inside, rows, 0), np.where(inside, stamps, 0), np.arange(users) * max(LENGTHS)
    slab.advance(np.arange(users), starts, lengths, np.full(users, before == 0), rows.ravel(), stamps.ravel())
    for user, length in enumerate(LENGTHS):
        assert worst(slab.vectors[user], want[user, before + length]) < tolerance


def test_bfloat16_is_rounded_to_nearest() -> None:
    exact, stored = StateSlab(WEIGHTS, 2), StateSlab(WEIGHTS, 2, "bfloat16")
    for slab in (exact, stored):
        slab.advance([0], [0], [0], [True], [], [])
    # the first layer's start state has seen one event only, so only its own rounding separates the two
    want = torch.from_numpy(exact.state[0, 0]).bfloat16()
    assert torch.equal(torch.from_numpy(stored.state[0, 0]).view(torch.bfloat16), want)


@pytest.mark.parametrize("batch", [1, 3, 5, 40])
def test_few_events_take_the_same_steps_as_many(batch: int) -> None:
    items, times_ms = events(batch, 12)
    together, single = StateSlab(WEIGHTS, batch), StateSlab(WEIGHTS, batch)
    encode(together, np.arange(batch), items, times_ms)
    single.advance(np.arange(batch), np.zeros(batch), np.zeros(batch), np.ones(batch, bool), [], [])
    for user in range(batch):
        for t in range(12):
            single.advance([user], [0], [1], [False], items[user, t : t + 1], times_ms[user, t : t + 1])
    assert worst(single.vectors, together.vectors) < 1e-5
    assert worst(single.state, together.state) < 1e-5


def test_check_finds_a_step_that_is_not_the_model_s() -> None:
    StateSlab(WEIGHTS, 1).check(MODEL)
    wrong = WEIGHTS.layers.D + np.float32(0.5)
    with pytest.raises(VersionError, match="disagree"):
        StateSlab(WEIGHTS._replace(layers=WEIGHTS.layers._replace(D=wrong)), 1).check(MODEL)
    broken = WEIGHTS.layers.D * np.float32(np.nan)
    with pytest.raises(VersionError, match="not finite"):
        StateSlab(WEIGHTS._replace(layers=WEIGHTS.layers._replace(D=broken)), 1).check()


def relative_error(users: int, length: int) -> float:
    items, times_ms = events(users, length)
    want = truth(MODEL, items, times_ms)
    slab = StateSlab(WEIGHTS, users)
    slab.advance(np.arange(users), np.zeros(users), np.zeros(users), np.ones(users, bool), [], [])
    error = 0.0
    for begin, end in itertools.pairwise(range(0, length + 1, 10)):
        part = slice(begin, end)
        slab.advance(
            np.arange(users),
            np.arange(users) * 10,
            np.full(users, 10),
            np.zeros(users, bool),
            items[:, part].ravel(),
            times_ms[:, part].ravel(),
        )
        norm = np.linalg.norm(want[:, end], axis=1)
        error = max(error, float((np.linalg.norm(slab.vectors - want[:, end], axis=1) / norm).max()))
    return error


def test_single_precision_stays_close_to_double() -> None:
    assert relative_error(40, 60) < 1e-4


@pytest.mark.slow
def test_single_precision_stays_close_to_double_for_1000_users() -> None:
    assert relative_error(1000, 300) < 1e-4
