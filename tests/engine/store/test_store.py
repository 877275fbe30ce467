"""The store as its callers see it, apart from the laws."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recurra.engine.clock import EventClock
from recurra.engine.errors import BadEventError, ClosedError, ConfigError, InputError, StoreCorruptError, StoreError
from recurra.engine.events import Event, Item
from recurra.engine.store import APPLIED, FUTURE, Batch, Reader, Store
from recurra.engine.store.rocks import Rocks

Opener = Callable[..., Store]
Contents = Callable[[Store], dict[str, tuple[Any, ...]]]


def one(user: str = "u", item: str = "i", time_ms: int = 1, **more: Any) -> Batch:
    return Batch.of([Event(user, item, time_ms, **more)])


def catalogue(records: list[tuple[int, Item]]) -> Batch:
    batch = Batch.of([])
    batch.catalogue = records
    return batch


def test_a_future_event_leaves_no_trace(open_store: Opener) -> None:
    store = open_store(clock=EventClock(1_000), future_tolerance_ms=10)
    batch = Batch.of([Event("new", "fresh", 1_011), Event("u", "i", 1_010), Event("new", "fresh", 5_000)])
    batch.catalogue = [(2, Item("late record"))]
    applied = store.apply(batch)
    assert applied.status.tolist() == [FUTURE, 0, FUTURE]
    assert applied.user_rows.tolist() == [-1, 0, -1]
    assert applied.item_rows.tolist() == [-1, 0, -1]
    assert applied.touch.tolist() == [-1, 0, -1]
    assert "new" not in store.users
    assert "fresh" not in store.items
    assert "late record" in store.items


def test_offsets_info_and_mix_are_stored_with_the_events(open_store: Opener) -> None:
    store = open_store()
    batch = one()
    batch.offsets, batch.source_info = {"t:0": 7, "f": 3}, {"t": b'{"id":1}'}
    with store.plan(batch) as plan:
        plan.commit(bytes(plan.applied.status) + b" weights")
    store.apply(Batch.of([], offsets={"t:0": 9}))
    store.close()
    again = open_store()
    assert again.offsets() == {"t:0": 9, "f": 3}
    assert again.source_info() == {"t": b'{"id":1}'}
    assert again.mix() == b"\x00 weights"
    assert again.epoch == store.epoch + 1
    assert again.store_id == store.store_id


def test_only_synced_offsets_are_reported_as_synced(open_store: Opener) -> None:
    now = [0.0]
    store = open_store(monotonic=lambda: now[0], sync_ms=1_000)
    assert not store.apply(Batch.of([Event("u", "i", 1)], offsets={"s": 1})).synced
    assert store.synced_offsets() == {}
    now[0] = 1.5
    assert store.apply(Batch.of([Event("u", "i", 2)], offsets={"s": 2})).synced
    assert store.synced_offsets() == {"s": 2}
    assert not store.apply(Batch.of([Event("u", "i", 3)], offsets={"s": 3})).synced
    assert store.synced_offsets() == {"s": 2}
    store.sync()
    assert store.synced_offsets() == {"s": 3}


def test_the_model_reads_the_record_that_the_item_had_at_its_first_event(open_store: Opener) -> None:
    store = open_store()
    batch = Batch.of([Event("u", "a", 1), Event("u", "b", 2), Event("v", "a", 3)])
    batch.catalogue = [
        (0, Item("a", "early")),
        (1, Item("b", "early", available=False)),
        (1, Item("c", "alone")),
        (2, Item("b", "after")),
    ]
    store.apply(batch, 100)
    store.apply(catalogue([(0, Item("a", "newer", ("x",)))]), 100)
    store.apply(one("u", "c", 9), 100)
    store.apply(one("u", "d", 10), 100)
    store.apply(catalogue([(0, Item("d", "too late"))]), 100)

    def check(store: Store) -> None:
        row = dict(store.items.items())
        titles = {
            name: tuple(r and r.title for r in (store.items.record(at), store.items.first_record(at)))
            for name, at in row.items()
        }
        assert titles == {
            "a": ("newer", "early"),
            "b": ("after", "early"),
            "c": ("alone", "alone"),
            "d": ("too late", None),
        }
        assert store.items.first_ms[[row["a"], row["b"], row["c"], row["d"]]].tolist() == [1, 2, 9, 10]
        assert store.items.available[row["b"]]
        assert store.items.available.all()

    check(store)
    store.close()
    check(open_store())


def test_unavailable_items_are_marked(open_store: Opener) -> None:
    store = open_store()
    store.apply(catalogue([(0, Item("a", available=False)), (0, Item("b"))]), 100)
    assert store.items.available.tolist() == [False, True]
    assert store.items.first_ms.tolist() == [-1, -1]


def test_many_items_grow_the_table(open_store: Opener) -> None:
    store = open_store(hot_histories=8_192)
    store.apply(Batch.of([Event(f"u{k % 7}", f"i{k}", k) for k in range(5_000)]), 10_000)
    assert store.items.first_ms.tolist() == list(range(5_000))
    assert store.items.row("i4999") == 4_999
    assert store.items.row("nothing") is None


def test_a_users_partition_is_that_of_its_first_event(open_store: Opener) -> None:
    store = open_store()
    batch = Batch.of([Event("u", "a", 1), Event("u", "b", 2), Event("v", "a", 3)])
    batch.partitions[:] = [3, 4, 4]
    assert store.apply(batch, 100).moved == 1
    assert store.history(0).partition == 3
    assert store.history(1).partition == 4
    assert store.history(0).n == 2


def test_bad_batches_change_nothing(open_store: Opener) -> None:
    store = open_store(hot_histories=4, batch_events=4)
    uneven = one()
    uneven.items.append("more")
    with pytest.raises(InputError, match="one length"):
        store.apply(uneven, 10)
    crowd = Batch.of([Event(f"u{k}", "i", k) for k in range(5)])
    with pytest.raises(InputError, match="hot_histories = 4; split it"):
        store.apply(crowd, 10)
    types = Batch.of([Event("u", "i", k, f"type {k}") for k in range(65_001)])
    with pytest.raises(BadEventError, match="65000"):
        store.apply(types, 10**6)
    assert len(store.users) == len(store.items) == len(store.types) == store.next_seq == 0
    store.apply(one(type="play"), 10)
    assert store.types.id(int(store.history(0).types[0]) - 1) == "play"


def test_a_plan_that_is_not_committed_leaves_nothing(open_store: Opener) -> None:
    store = open_store()
    store.apply(one("u", "a", 1), 10)
    before, known = store.digest(), len(store.users)
    with store.plan(Batch.of([Event("u", "b", 2), Event("new", "c", 3)]), 10) as plan:
        assert plan.applied.status.tolist() == [APPLIED, APPLIED]
    with pytest.raises(KeyError), store.plan(Batch.of([Event("u", "b", 2)]), 10):
        raise KeyError
    assert (store.digest(), len(store.users), store.next_seq) == (before, known, 1)
    assert store.apply(Batch.of([Event("u", "b", 2)]), 10).n.tolist() == [2]


def test_small_records_of_another_version_are_refused(open_store: Opener, tmp_path: Path) -> None:
    store = open_store()
    batch = one()
    batch.offsets, batch.source_info = {"t:0": 7}, {"t": b"fact"}
    with store.plan(batch) as plan:
        plan.commit(b"weights")
    store.close()
    for key, words in ((b"Mmix", "mixture"), (b"Nt", "fact about a source"), (b"Ot:0", "offset")):
        db = Rocks(tmp_path / "store" / "rocks", 1 << 20)
        good = db.get(key)
        assert good is not None
        db.write([(key, b"\x02" + good[1:])], [], sync=True)
        db.close()
        refused = pytest.raises(StoreCorruptError, match=rf"{words}.*unknown record version 02")
        with refused, Reader.open(tmp_path / "store") as reader:
            reader.mix()
        db = Rocks(tmp_path / "store" / "rocks", 1 << 20)
        db.write([(key, good)], [], sync=True)
        db.close()
    assert open_store().mix() == b"weights"


def test_reads_after_close_are_refused(open_store: Opener) -> None:
    store = open_store()
    store.apply(one(), 10)
    reader = open_store(read_only=True)
    assert not hasattr(reader, "apply")
    store.close()
    store.close()
    with pytest.raises(ClosedError):
        store.history(0)
    with pytest.raises(ClosedError):
        store.apply(one(), 10)
    with pytest.raises(ClosedError):
        store.reopen()
    assert reader.history(0).n == 1


def test_a_reader_follows_the_writer(open_store: Opener, tmp_path: Path, contents: Contents) -> None:
    store = open_store(anchor=4, tail_events=2)
    store.apply(one("u", "a", 1, type="x"), 100)
    ways: list[dict[str, Any]] = [{"read_only": True}, {"read_only": True, "secondary": tmp_path / "notes"}]
    readers = [open_store(anchor=4, tail_events=2, **way) for way in ways]
    for round_ in range(3):
        batch = Batch.of([Event(f"u{k % 5}", f"i{k}", 10 * round_ + k) for k in range(30)], offsets={"s": round_})
        batch.catalogue = [(0, Item("a", f"title {round_}"))]
        store.apply(batch, 10_000)
        if round_ == 1:
            store.forget("u3")
            store.compact()
        for reader in readers:
            assert reader.offsets() != store.offsets()
            reader.catch_up()
            assert reader.offsets() == store.offsets()
            assert contents(reader) == contents(store)
            assert [chunk.seqs.tolist() for chunk in reader.log()] == [chunk.seqs.tolist() for chunk in store.log()]
            assert reader.items.record(0) == store.items.record(0)
            assert reader.next_seq == store.next_seq
    notes = readers[0]._secondary
    assert notes is not None
    assert notes.exists()
    readers[0].close()
    assert not notes.exists()


def test_reading_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store at"):
        Reader.open(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot create the directory"):
        Store.open(tmp_path / "file")


def test_another_anchor_is_refused(open_store: Opener) -> None:
    open_store(anchor=8).close()
    with pytest.raises(ConfigError, match=r"anchor = 8, not 16"):
        open_store(anchor=16)


def test_another_tail_size_does_not_matter(open_store: Opener, contents: Contents) -> None:
    events = [Event("u", f"i{k}", k) for k in range(40)]
    store = open_store(anchor=4, tail_events=9)
    for event in events[:35]:
        store.apply(Batch.of([event]), 100)
    store.close()
    again, whole = open_store(anchor=4, tail_events=1), open_store("whole", anchor=4)
    for event in events[35:]:
        again.apply(Batch.of([event]), 100)
    whole.apply(Batch.of(events), 100)
    assert contents(again) == contents(whole)


def test_checkpoint_is_a_store(open_store: Opener, contents: Contents, tmp_path: Path) -> None:
    store = open_store()
    store.apply(one(), 100)
    store.checkpoint(tmp_path / "copy")
    before = contents(store)
    store.apply(one("other", "i", 3), 100)
    copy = open_store("copy")
    assert contents(copy) == before
    copy.apply(one("third", "i", 4), 100)
    assert "third" not in store.users
    with pytest.raises(StoreError, match="cannot write a checkpoint"):
        store.checkpoint(tmp_path / "copy")


def test_caches_belong_to_the_store_and_never_run_ahead(open_store: Opener, tmp_path: Path) -> None:
    store = open_store()
    store.apply(one(), 100)
    store.put_blob("fast", b"state")
    assert store.get_blob("fast") == (b"state", 1)
    assert store.get_blob("other") is None
    file = tmp_path / "store" / "caches" / "fast"
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:20], b"", whole[:-1] + b"?"):
        file.write_bytes(damaged)
        assert store.get_blob("fast") is None
    behind = open_store("behind")
    (tmp_path / "behind" / "caches").mkdir()
    (tmp_path / "behind" / "caches" / "fast").write_bytes(whole)
    assert behind.get_blob("fast") is None
    store.apply(one("u", "j", 2), 100)
    store.put_blob("ahead", b"x")
    copy = open_store("copy")
    copy.close()
    file.write_bytes(whole)
    assert store.get_blob("fast") == (b"state", 1)


def test_cold_users_are_small_and_counted(open_store: Opener) -> None:
    store = open_store(anchor=16, hot_histories=64, batch_events=64, tail_events=4)
    draw = np.random.default_rng(0)
    for first in range(0, 6_400, 64):
        events = [
            Event(
                f"user {k % 100}",
                f"item {draw.integers(5000)}",
                1_600_000_000_000 + k * 977,
                "play",
                0.5,
                f"{k}",
            )
            for k in range(first, first + 64)
        ]
        store.apply(Batch.of(events), 2_000_000_000_000)
    stats = store.stats()
    assert stats["users"] == 100
    assert stats["events"] == stats["log_events"] == 6_400
    assert stats["kept_events"] == 100 * 32
    assert stats["hot_users"] <= 64
    assert 0 < stats["cold_user_bytes"] <= 200 + 24 * 32
    assert store.apply(Batch.of([])).next_seq == 6_400


def test_unused_slots_cost_nothing(open_store: Opener) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc to see the resident memory")
    open_store("warm").apply(one(), 10)
    before = resident()
    store = open_store(hot_histories=200_000)
    store.apply(one(), 10)
    # 200,000 slots of 7.5 KB each, were they touched
    assert resident() - before < 200_000_000


def test_readers_beside_a_writing_thread_see_whole_commits(open_store: Opener) -> None:
    store = open_store(anchor=8, tail_events=3, hot_histories=4, batch_events=4)
    store.apply(Batch.of([Event(f"u{k}", "i0", 0) for k in range(4)]), 10)
    stop, problems = threading.Event(), list[str]()

    def read() -> None:
        while not stop.is_set():
            histories = store.histories([0, 1, 2, 3])
            if len({history.n for history in histories}) != 1:
                problems.append(f"{[history.n for history in histories]}")
            if len(store.seen(0)) < min(16, histories[0].n):
                problems.append("seen")

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for time in range(1, 300):
        store.apply(Batch.of([Event(f"u{k}", f"i{time}", time) for k in range(4)]), 1_000)
        if time % 10 == 0:
            store.apply(one(f"other{time}", "i1", 1), 1_000)
    stop.set()
    for thread in threads:
        thread.join()
    assert problems == []


def test_warm_reading_keeps_a_user_in_memory(open_store: Opener) -> None:
    store = open_store(hot_histories=2, batch_events=2)
    for k in range(4):
        store.apply(one(f"u{k}", "i", k), 100)
    assert store._histories.slab.find(0) < 0
    assert store.history(0).n == 1
    assert store._histories.slab.find(0) < 0
    assert store.history(0, warm=True).n == 1
    assert store._histories.slab.find(0) >= 0


def test_two_writers(open_store: Opener, tmp_path: Path) -> None:
    store = open_store()
    with pytest.raises(StoreError, match=rf"in use by process {os.getpid()}, started 20\d\d-"):
        open_store()
    code = "import sys; from recurra.engine.store import Store; Store.open(sys.argv[1])"
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path / "store")], capture_output=True, text=True)
    assert found.returncode != 0
    assert f"StoreInUseError: the store {tmp_path / 'store'} is in use by process {os.getpid()}" in found.stderr
    store.apply(one(), 10)
    store.close()
    open_store().close()


def test_a_log_that_the_database_deletes_meanwhile_does_not_keep_a_store_closed(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store:
        store.apply(Batch.of([Event("u", "a", 1)]), 10)
        # what a listing shows of a file that is deleted before it is looked at
        (tmp_path / "store" / "rocks" / "999999.log").symlink_to(tmp_path / "gone")
        store._db.check_room()
