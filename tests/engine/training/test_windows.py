import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.engine.states import anchor
from recurra.engine.store import LogChunk
from recurra.engine.training.windows import UserLog, Windows, all_windows, batches, last_windows, pack

_A = 4

_events = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 20)), min_size=1, max_size=120)


def _log(events: list[tuple[int, int, int]]) -> UserLog:
    users, items, times = (np.array(column, np.int64) for column in zip(*events, strict=True))
    return UserLog.of(users, items, 1000 * times, np.arange(len(events)))


def _rows(windows: Windows) -> list[list[int]]:
    return [list(range(start, stop)) for start, stop in zip(*windows, strict=True)]


@settings(deadline=None, max_examples=60)
@given(_events)
def test_the_log_is_in_order_of_user_time_and_arrival(events: list[tuple[int, int, int]]) -> None:
    log = _log(events)
    want = sorted((user, 1000 * time, seq, item) for seq, (user, item, time) in enumerate(events))
    dense = {user: index for index, user in enumerate(sorted({user for user, _, _ in events}))}
    got = list(zip(log.users.tolist(), log.times_ms.tolist(), log.seqs.tolist(), log.items.tolist(), strict=True))
    assert got == [(dense[user], *rest) for user, *rest in want]
    for user in dense.values():
        assert (log.users[log.starts[user] : log.starts[user + 1]] == user).all()
    assert log.starts[-1] == len(log) == len(events)


@settings(deadline=None, max_examples=60)
@given(_events, st.integers(0, 120))
def test_the_log_until_an_event_is_the_log_of_the_first_ones(events: list[tuple[int, int, int]], seq: int) -> None:
    part = _log(events).until(seq)
    assert part.seqs.max(initial=-1) <= seq
    for got, want in zip(part, _log(events[: seq + 1]), strict=True):
        np.testing.assert_array_equal(got, want)


@settings(deadline=None, max_examples=60)
@given(_events)
def test_windows_are_what_states_cover(events: list[tuple[int, int, int]]) -> None:
    log = _log(events)
    windows = all_windows(log, _A)
    rows = _rows(windows)
    assert sorted({row for window in rows for row in window}) == list(range(len(log)))
    latest = {}
    for window in rows:
        assert 0 < len(window) <= 2 * _A
        user = log.users[window[0]]
        assert (log.users[window] == user).all()
        assert (window[0] - log.starts[user]) % _A == 0
        latest[int(user)] = window
    for user, window in latest.items():
        n = int(log.starts[user + 1] - log.starts[user])
        assert window == list(range(int(log.starts[user]) + anchor(n, _A), int(log.starts[user + 1])))


@settings(deadline=None, max_examples=60)
@given(_events, st.integers(-1, 120))
def test_the_last_windows_are_those_of_users_with_new_events(events: list[tuple[int, int, int]], since: int) -> None:
    log = _log(events)
    new = {int(user) for user in log.users[log.seqs > since]}
    got = {int(log.users[start]): (start, stop) for start, stop in zip(*last_windows(log, since, _A), strict=True)}
    every = {int(log.users[start]): (start, stop) for start, stop in zip(*all_windows(log, _A), strict=True)}
    assert got == {user: every[user] for user in new}


@settings(deadline=None, max_examples=60)
@given(_events, st.integers(1, 40), st.integers(0, 3), st.booleans())
def test_batches_hold_every_window_once_and_little_more_than_asked(
    events: list[tuple[int, int, int]], tokens: int, seed: int, padded: bool
) -> None:
    windows = all_windows(_log(events), _A)
    parts = list(batches(windows, tokens, np.random.default_rng(seed), padded=padded))
    assert sorted(row for part in parts for row in _rows(part)) == sorted(_rows(windows))
    for part in parts:
        size = len(part.starts) * int(part.lengths.max()) if padded else int(part.lengths.sum())
        assert len(part.starts) == 1 or size <= tokens


@settings(deadline=None, max_examples=60)
@given(_events, st.integers(0, 3))
def test_a_batch_permutes_ties_and_nothing_else(events: list[tuple[int, int, int]], seed: int) -> None:
    log = _log(events)
    version_rows = np.arange(10)[::-1].copy()
    windows = all_windows(log, _A)
    plain = pack(log, windows, version_rows)
    mixed = pack(log, windows, version_rows, np.random.default_rng(seed))
    assert plain.rows.tolist() == [row for window in _rows(windows) for row in window]
    for batch in (plain, mixed):
        assert batch.offsets.tolist() == [0, *np.cumsum(windows.lengths).tolist()]
        assert (batch.times_ms == plain.times_ms).all()
        assert (batch.times_ms == log.times_ms[batch.rows]).all()
        assert (batch.items == 9 - log.items[batch.rows]).all()
        for window, row in zip(_rows(windows), range(len(windows.starts)), strict=True):
            assert sorted(batch.rows[batch.windows == row].tolist()) == window


@settings(deadline=None, max_examples=60)
@given(_events, st.integers(1, 5))
def test_parts_of_a_batch_are_its_windows_in_order(events: list[tuple[int, int, int]], count: int) -> None:
    log = _log(events)
    whole = pack(log, all_windows(log, _A), np.arange(10))
    parts = whole.parts(count)
    assert len(parts) <= count
    assert np.concatenate([part.rows for part in parts]).tolist() == whole.rows.tolist()
    assert np.concatenate([np.diff(part.offsets) for part in parts]).tolist() == np.diff(whole.offsets).tolist()
    assert all(part.offsets[0] == 0 and part.offsets[-1] == len(part.items) > 0 for part in parts)


def test_ties_are_permuted_at_all() -> None:
    log = _log([(0, item, 7) for item in range(8)])
    orders = {
        tuple(pack(log, all_windows(log, _A), np.arange(10), np.random.default_rng(seed)).rows.tolist())
        for seed in range(5)
    }
    assert len(orders) > 1


def test_chunks_of_the_store_are_read() -> None:
    def chunk(*seqs: int) -> LogChunk:
        count = len(seqs)
        return LogChunk(
            seqs=np.array(seqs, np.int64),
            user_rows=np.array([seq % 2 for seq in seqs], np.int32),
            item_rows=np.array(seqs, np.int32),
            times_ms=np.array(seqs, np.int64),
            types=np.zeros(count, np.uint16),
            weights=np.zeros(count, np.float32),
            hashes=np.zeros(count, np.uint64),
        )

    log = UserLog.read([chunk(0, 1, 2), chunk(5, 6)], until_seq=5)
    assert log.seqs.tolist() == [0, 2, 1, 5]
    assert log.users.tolist() == [0, 0, 1, 1]
    assert len(UserLog.read([])) == 0
