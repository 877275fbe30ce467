"""The auditor: recomputes from the source what the store must hold, and compares record by record.

It reads the store's plain export, offsets and facts about sources; everything that it compares them with comes from
``audit_model``, which shares no code with the engine. Files are read by the connector's own reader. It cannot know
what the clock said when an event was applied, so an event that was refused as too far in the future, and whose time has
come since, counts as missing. A store that also took events by another way differs from its source for that reason.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from ..engine.config import Config
from ..engine.errors import BrokerError, InputError, SourceBehindError
from ..engine.events import Forget
from ..engine.store import Reader, UserRecord
from .audit_model import Expected, Fact, Ledger, decode, id_hash, single
from .files import open_segments
from .kafka import facts_of, is_kafka, kafka_client, parse_address

__all__ = ["AuditReport", "audit", "audit_users"]

_PATIENCE_S = 30.0


class AuditReport(msgspec.Struct, frozen=True):
    """Outcome of an audit.

    ``users`` and ``events`` are those of the source, ``wrong_users`` the number of users whose record differs in any
    way, with a few ``examples``. ``missing`` and ``repeated`` count events by the users' counters, ``duplicates`` and
    ``too_late`` those that the source has.
    """

    users: int
    events: int
    wrong_users: int
    missing: int
    repeated: int
    duplicates: int
    too_late: int
    examples: list[str]
    ok: bool


def audit(
    data: str | Path, source: str, config: Config, *, progress: Callable[[int, int], None] | None = None
) -> AuditReport:
    """Compare the store under ``data`` with ``source`` up to the stored offsets; the store may be in use.

    ``progress`` is called with what was read and what there is. Raises ``InputError`` if the store knows
    nothing of the source, ``SourceBehindError`` if the source no longer has everything, ``BrokerError``.
    """

    def tell(done: int, total: int) -> None:
        if progress is not None and done % 1_000 == 0:
            progress(done, total)

    with Reader.open(Path(data) / "store", config.store) as store:
        return audit_users(store, source, config, tell)


def audit_users(
    store: Reader,
    source: str,
    config: Config,
    message: Callable[[int, int], None],
    chosen: Callable[[str], bool] | None = None,
) -> AuditReport:
    """Compare the ``chosen`` users (None: all) of an open store with ``source`` up to the stored offsets.

    ``message`` is called for every message with how many were read and how many there are. Raises as `audit`.
    """
    ledger = Ledger(config.store.anchor)
    latest_ms = time.time_ns() // 1_000_000 + config.store.future_tolerance_ms
    for done, total, fact in _facts(store, source, config):
        if fact is not None and fact.time_ms <= latest_ms and (chosen is None or chosen(fact.user)):
            ledger.apply(fact)
        message(done, total)
    return _compared(store.export(chosen), ledger, whole_seen=config.store.seen_horizon == 0)


def _compared(records: Iterator[UserRecord], ledger: Ledger, *, whole_seen: bool) -> AuditReport:
    expected = dict(ledger.users)
    missing = repeated = 0
    wrong: list[str] = []
    for record in records:
        user = expected.pop(record.user, Expected(0, [], set()))
        missing += max(0, user.n - record.n)
        repeated += max(0, record.n - user.n)
        same_seen = set(record.seen) == user.seen if whole_seen else set(record.seen) <= user.seen
        if record.n != user.n or record.history != user.history or not same_seen:
            wrong.append(f"{record.user}: {_difference(record, user)}")
    for name, user in expected.items():
        missing += user.n
        wrong.append(f"{name}: {user.n} events in the source, none in the store")
    return AuditReport(
        users=len(ledger.users),
        events=ledger.events,
        wrong_users=len(wrong),
        missing=missing,
        repeated=repeated,
        duplicates=ledger.duplicates,
        too_late=ledger.too_late,
        examples=wrong[:5],
        ok=not wrong,
    )


def _difference(record: UserRecord, user: Expected) -> str:
    if record.n != user.n:
        return f"{user.n} events in the source, {record.n} in the store"
    for place, (kept, wanted) in enumerate(itertools.zip_longest(record.history, user.history)):
        if kept != wanted:
            return f"history differs at {place}: {wanted} in the source, {kept} in the store"
    return "the seen sets differ"


def _facts(store: Reader, source: str, config: Config) -> Iterator[tuple[int, int, Fact | None]]:
    if is_kafka(source):
        return _topic_facts(store, source, config)
    return _file_facts(store, Path(source), config)


def _file_facts(store: Reader, path: Path, config: Config) -> Iterator[tuple[int, int, Fact | None]]:
    infos, offsets = store.source_info(), store.offsets()
    if f"file:{path.resolve()}@0" not in infos:
        raise InputError(f"the store has read nothing from {path}")

    def info_of(key: str) -> dict[str, object] | None:
        return msgspec.json.decode(infos[key], type=dict[str, object]) if key in infos else None

    known = [key for key in infos if key.startswith(f"file:{path.resolve()}@")]
    for segment in itertools.islice(open_segments(path, source_info=info_of, fields=config.events), len(known)):
        taken = offsets.get(segment.key, 0)
        for done, event in enumerate(segment.events.events[:taken], 1):
            if isinstance(event, Forget):
                yield done, taken, Fact(event.user)
            else:
                weight = None if event.weight is None else single(event.weight)
                hashed = 0 if event.id is None else id_hash(event.id)
                yield done, taken, Fact(event.user, event.item, event.time_ms, event.type, weight, hashed)


def _topic_facts(store: Reader, source: str, config: Config) -> Iterator[tuple[int, int, Fact | None]]:
    address = parse_address(source)
    facts = next((each for each in facts_of(store.source_info()).values() if each.topic == address.topic), None)
    if facts is None:
        raise InputError(f"the store has read nothing from a topic {address.topic!r}")
    names: dict[str, str] = msgspec.structs.asdict(config.events)
    offsets = store.offsets()
    starts = {(address.topic, partition): start for partition, start in facts.starts.items()}
    ends = {place: offsets.get(f"kafka:{facts.topic_id}/{place[1]}", start) for place, start in starts.items()}
    consumer = kafka_client(address.brokers, config.kafka).consumer()
    try:
        for place, start in starts.items():
            low = consumer.watermarks(place)[0]
            if low > start and ends[place] > start:
                raise SourceBehindError(
                    f"{address.topic!r} partition {place[1]} begins at offset {low} by now, but the store has read "
                    f"from {start} on: it cannot be recomputed"
                )
        left = {place for place in starts if ends[place] > starts[place]}
        total = sum(ends[place] - starts[place] for place in left)
        consumer.assign({place: starts[place] for place in left})
        done, answered_s = 0, time.monotonic()
        while left:
            batch = consumer.poll(4_096, 0.5)
            for message in batch.messages:
                place = (message.topic, message.partition)
                if message.offset < ends[place]:
                    done += 1
                    yield done, total, decode(message.value, names)
                if message.offset + 1 >= ends[place]:
                    left.discard(place)
            left -= {place for place, position in batch.positions.items() if position >= ends.get(place, 0)}
            if batch.messages:
                answered_s = time.monotonic()
            elif time.monotonic() - answered_s > _PATIENCE_S:
                raise BrokerError(f"nothing came from {address.brokers} for {_PATIENCE_S:g} s: {consumer.problem}")
    finally:
        consumer.close()
