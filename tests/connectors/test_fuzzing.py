"""Input of every kind from a generator: what is not understood is refused with a reason, and in little time.

``make test-night`` takes a thousand times as many inputs.
"""

import json
import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

import recurra
from recurra.connectors.audit_model import decode, id_hash
from recurra.connectors.catalogue import read_items
from recurra.connectors.files import read_events
from recurra.engine.config import Config, FieldNames, TrainingConfig
from recurra.engine.errors import BusyError, InputError
from recurra.engine.events import Decoder, Event, Forget
from recurra.engine.events.checks import input_problem

NAMES = msgspec.structs.asdict(FieldNames())
# of processor time, for an input of a few hundred bytes
MOST_S = 0.5
VALUES = (
    b"null", b"true", b"false", b"0", b"-1", b"1e400", b"1e-400", b"NaN", b"Infinity", b"1.0", b"1700000000000", b'""',
    b'"\\u0000"', b'"\\ud800"', b'"\\ud83d\\ude00"', b'"2023-11-14T22:13:20Z"',
    b'"2023-11-14 22:13:20+25:00"', b"[]", b"{}",
    b"[[[[[[", b'"' + b"x" * 600 + b'"', b"9" * 30, b"-9223372036854775809", b"18446744073709551616",
    b'"u\\n"', b"\xff\xfe",
)  # fmt: skip
PLAIN = b'{"user":"u1","item":"i1","time":1700000000000,"type":"play","weight":0.5,"id":"e1"}'


@pytest.fixture
def rng() -> random.Random:
    return random.Random(int(os.environ.get("RECURRA_SEED", "1")))


def mutated(rng: random.Random, data: bytes, values: tuple[bytes, ...] = VALUES) -> bytes:
    """Return the data with a few changes: bytes, pieces doubled, cut out, or replaced by a value that is awkward."""
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 6))):
        at, to = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
        kind = rng.random()
        if kind < 0.25:
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        elif kind < 0.4:
            data = data[:at] + data[to:]
        elif kind < 0.5:
            data = data[:to] + data[at:to] + data[to:]
        elif kind < 0.9 and b":" in data:
            # a whole value
            colons = [place for place, byte in enumerate(data) if byte == ord(":")]
            start = rng.choice(colons) + 1
            end = min(
                (found for found in (data.find(b",", start), data.find(b"}", start)) if found >= 0), default=start
            )
            data = data[:start] + rng.choice(values) + data[end:]
        else:
            data = data[:at] + rng.choice(values) + data[at:]
    return data


class Bounded:
    """Runs a call, and remembers the dearest."""

    def __init__(self) -> None:
        self.most_s, self.input = 0.0, b""

    def __call__(self, given: bytes, call: Callable[[], Any]) -> tuple[Any, str | None]:
        """Return what the call gives, or the reason why the input is refused; every other error fails the test."""
        began = time.thread_time()
        try:
            return call(), None
        except (InputError, BusyError) as error:
            return None, str(error)
        finally:
            spent = time.thread_time() - began
            if spent > self.most_s:
                self.most_s, self.input = spent, given

    def check(self) -> None:
        assert self.most_s < MOST_S, (self.most_s, self.input[:2_000])


@pytest.mark.night
@pytest.mark.timeout(7_200)
def test_messages_are_read_as_the_auditor_reads_them(rng: random.Random, at_night: bool) -> None:
    """Two decoders that share no code agree about every message: what it says, or that it must not be applied."""
    decoder, bounded = Decoder(), Bounded()
    for _ in range(2_000_000 if at_night else 4_000):
        payload = mutated(rng, PLAIN if rng.random() < 0.9 else b'{"user":"u1","forget":true}')
        expected = decode(payload, NAMES)
        found, reason = bounded(payload, partial(decoder.event, payload))
        if reason is not None:
            assert reason, payload
            assert expected is None, (payload, reason)
            continue
        assert expected is not None, payload
        assert expected.user == found.user
        if isinstance(found, Forget):
            assert expected.item is None
            continue
        assert isinstance(found, Event)
        assert (expected.item, expected.time_ms, expected.type) == (found.item, found.time_ms, found.type), payload
        assert expected.id_hash == (0 if found.id is None else id_hash(found.id)), payload
        assert input_problem(found) is None, payload
    bounded.check()


@pytest.mark.night
@pytest.mark.timeout(7_200)
def test_catalogue_records(rng: random.Random, at_night: bool) -> None:
    decoder, bounded = Decoder(), Bounded()
    record = (
        b'{"item":"i1","title":"T","categories":["a","b"],"available":true,"year":1999,"deep":{"a":[1,{"b":null}]}}'
    )
    for _ in range(1_000_000 if at_night else 3_000):
        payload = mutated(rng, record)
        found, reason = bounded(payload, partial(decoder.item, payload))
        assert reason != "", payload
        if reason is None:
            assert input_problem(found) is None, payload
    bounded.check()


SEEDS = {
    "a.csv": b'user,item,time,rating,type\na,x,1700000000000,3.5,play\n"b,1","y ""z""",2023-11-14 22:13:20+00:00,,\n',
    "a.tsv": b"user_id\titem_id\ttimestamp\na\tx\t1700000000\nb\ty\t1700000000.25\n",
    "a.inter": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t3\t881250949\n4\t5\t\t881250950\n",
    "ratings.dat": b"1::1193::5::978300760\n2::661::3::978302109\n",
    "a.jsonl": PLAIN + b"\n" + PLAIN.replace(b"u1", b"u2") + b"\n",
}


@pytest.mark.night
@pytest.mark.timeout(7_200)
def test_files_of_events_and_items(rng: random.Random, at_night: bool, tmp_path: Path) -> None:
    bounded = Bounded()
    values = (
        b"::",
        b"\t",
        b",",
        b'"',
        b"\r\n",
        b"\n\n",
        b"\xef\xbb\xbf",
        b"\x00",
        b"1e999",
        b"99999999999999999999",
        b":token",
    )
    for _ in range(200_000 if at_night else 600):
        name = rng.choice(sorted(SEEDS))
        data = mutated(rng, SEEDS[name], values)
        path = tmp_path / name
        path.write_bytes(data)
        for read in (read_events, read_items):
            assert bounded(data, partial(read, path))[1] != "", data
    bounded.check()


PIECES = (
    "year", "title", "categories", "item", "missing", "1999", "1e400", "-1", "'Drama'", "'" + "x" * 50 + "'",
    "True", "None",
    " == ", " != ", " < ", " >= ", " in ", " not in ", " and ", " or ", "not ", "(", ")", "[", "]", ",", "{",
    "}", ":", ".real",
    "()", "**", "*", "+", " if ", " else ", "lambda: ", "__import__('os')", "\n", "\\", "\x00", "é", "0x10", "1_000",
)  # fmt: skip


@pytest.mark.night
@pytest.mark.timeout(7_200)
def test_filters(rng: random.Random, at_night: bool, tmp_path: Path) -> None:
    config = Config(training=TrainingConfig(mode="off"))
    bounded, answered = Bounded(), 0
    with recurra.open(tmp_path / "data", config) as engine:
        engine.ingest(
            recurra.Item(f"i{n}", f"T{n}", ("Drama",) if n % 2 else ("Comedy",), attributes={"year": 1990 + n % 20})
            for n in range(300)
        )
        engine.ingest([recurra.Event(f"u{n % 5}", f"i{n}", 1_700_000_000_000 + n) for n in range(50)])
        # the first call loads compiled functions
        engine.recommend("u1", 5, where="year > 0")
        good = ("year >= 1999", "'Drama' in categories", "title in ['T1', 'T2']", "not year < 1995")
        for _ in range(300_000 if at_night else 800):
            parts = [rng.choice(good) if rng.random() < 0.3 else rng.choice(PIECES) for _ in range(rng.randrange(1, 9))]
            where = rng.choice((" and ", " ", "")).join(parts)
            _, reason = bounded(where.encode(), partial(engine.recommend, "u1", 5, where=where))
            assert reason != "", where
            answered += reason is None
        assert engine.health().status == "ok"
    assert answered > 20
    bounded.check()


def test_a_message_that_is_large_in_every_way_costs_little() -> None:
    decoder, bounded = Decoder(), Bounded()
    inner = json.dumps({f"k{n}": [n, str(n), {"x": None}] for n in range(20_000)})
    for payload in (
        b'{"user":"u","item":"i","time":1,"x":' + inner.encode() + b"}",
        b'{"user":"u","item":"i","time":1,"x":' + b"[" * 500_000 + b"}",
        b'{"user":"u","item":"i","time":1,"x":"' + b"\\u0041" * 150_000 + b'"}',
        b'{"user":"u","item":"i","time":' + b"9" * 900_000 + b"}",
        b"{" + b",".join(b'"user":"u%d"' % n for n in range(50_000)) + b"}",
    ):
        _, reason = bounded(payload, partial(decoder.event, payload))
        assert reason is None or len(reason) < 500
    bounded.check()
