"""Decoding: what is accepted, what is refused with which reason, and that two implementations agree on both."""

import datetime as dt
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.connectors.audit_model import decode, single
from recurra.engine.config import FieldNames
from recurra.engine.errors import BadEventError, ConfigError
from recurra.engine.events import (
    MAX_ID_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_TIME_MS,
    Decoder,
    Event,
    Forget,
    Item,
    input_problem,
    rfc_3339_ms,
)

DECODER = Decoder()
NAMES = {name: name for name in ("user", "item", "time", "type", "weight", "id", "forget")}
PLAIN = {"user": "u", "item": "i", "time": 1}


def message(**fields: object) -> bytes:
    return json.dumps({**PLAIN, **fields}).encode()


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (message(), Event("u", "i", 1)),
        (message(user=7, item=-8), Event("7", "-8", 1)),
        (message(user=2**63 - 1), Event(str(2**63 - 1), "i", 1)),
        (message(type="play", weight=2, id="e"), Event("u", "i", 1, "play", 2.0, "e")),
        (message(type=None, weight=None, id=None), Event("u", "i", 1)),
        (message(id=9), Event("u", "i", 1, id="9")),
        (message(time=0), Event("u", "i", 0)),
        (message(time=MAX_TIME_MS), Event("u", "i", MAX_TIME_MS)),
        (message(time="1970-01-01T00:00:01Z"), Event("u", "i", 1_000)),
        (message(time="2023-11-14T23:13:20.5+01:00"), Event("u", "i", 1_700_000_000_500)),
        (message(forget=False), Event("u", "i", 1)),
        (b'{"user":"u","forget":true}', Forget("u")),
        (b'{"user":3,"forget":true,"x":[1]}', Forget("3")),
        (message(x={"user": 1, "deep": [[]]}), Event("u", "i", 1)),
        # the name of a field as a value, and a text with escapes, are no repeats
        (message(type="user", id="item"), Event("u", "i", 1, "user", None, "item")),
        (message(type='a"b\\', id="é"), Event("u", "i", 1, 'a"b\\', None, "é")),
        (b'{"user":"u","item":"i","time":1,"x":' + b"9" * 5_000 + b"}", Event("u", "i", 1)),
        (message(user="x" * MAX_ID_BYTES), Event("x" * MAX_ID_BYTES, "i", 1)),
        (message(user="é" * (MAX_ID_BYTES // 2)), Event("é" * (MAX_ID_BYTES // 2), "i", 1)),
    ],
)
def test_what_is_accepted(payload: bytes, expected: Event | Forget) -> None:
    assert DECODER.event(payload) == expected
    assert DECODER.event(payload.decode()) == expected


REFUSED = {
    "tombstone": (None, "tombstone"),
    "registry": (b"\0\0\0\0\1" + json.dumps(PLAIN).encode(), "schema registry"),
    "empty": (b"", "empty"),
    "not JSON": (b"{user: 1}", "not a JSON object"),
    "two messages": (message() + message(), "not a JSON object"),
    "an array": (b"[]", "not a JSON object"),
    "null": (b"null", "not a JSON object"),
    "cut off": (message()[:-3], "not a JSON object"),
    "byte order mark": (b"\xef\xbb\xbf" + message(), "not a JSON object"),
    "bad UTF-8": (b'{"user":"\xff","item":"i","time":1}', "not valid UTF-8"),
    "bad UTF-8 elsewhere": (b'{"user":"u","item":"i","time":1,"x":"\xff"}', "not valid UTF-8"),
    "lone surrogate": (b'{"user":"\\ud800","item":"i","time":1}', "not a JSON object"),
    "NaN": (b'{"user":"u","item":"i","time":NaN}', "not a JSON object"),
    "NaN elsewhere": (b'{"user":"u","item":"i","time":1,"x":NaN}', "not a JSON object"),
    "10^20": (message(time=10**20), "between 0 and"),
    "-1": (message(time=-1), "between 0 and"),
    "a float as time": (message(time=1.5), "integer milliseconds"),
    "a whole float as time": (message(time=1.0), "integer milliseconds"),
    "true as time": (message(time=True), "integer milliseconds"),
    "no time": (b'{"user":"u","item":"i"}', "'time' is missing"),
    "null as time": (message(time=None), "'time' is missing"),
    "no zone": (message(time="2023-11-14T23:13:20"), "time zone"),
    "a date": (message(time="2023-11-14"), "RFC 3339"),
    "no such day": (message(time="2023-02-30T00:00:00Z"), "exists"),
    "no user": (b'{"item":"i","time":1}', "'user' is missing"),
    "empty user": (message(user=""), "'user' is empty"),
    "a list as user": (message(user=["u"]), "string or an integer"),
    "true as user": (message(user=True), "string or an integer"),
    "a float as user": (message(user=1.0), "string or an integer"),
    "a big user": (message(user=2**63), "beyond 64 bits"),
    "a long user": (message(user="x" * (MAX_ID_BYTES + 1)), "513 bytes"),
    "a long user in bytes": (message(user="é" * MAX_ID_BYTES), "1024 bytes"),
    "a number as type": (message(type=1), "'type' must be a string"),
    "a text as weight": (message(weight="1"), "finite number"),
    "true as weight": (message(weight=True), "finite number"),
    "a huge weight": (message(weight=1e31), "finite number"),
    "an infinite weight": (b'{"user":"u","item":"i","time":1,"weight":1e400}', "not a JSON object"),
    "a text as forget": (message(forget="yes"), "'forget' must be true or false"),
    "one as forget": (message(forget=1), "'forget' must be true or false"),
    "repeated key": (b'{"user":"u","user":"v","item":"i","time":1}', "'user' appears 2 times"),
    "repeated key, escaped": (b'{"us\\u0065r":"u","user":"v","item":"i","time":1}', "'user' appears 2 times"),
    "repeated forget": (b'{"user":"u","forget":true,"forget":false}', "'forget' appears 2 times"),
    "100k nesting": (b'{"user":"u","item":"i","time":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
    "100k objects": (b'{"user":"u","item":"i","time":1,"x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, "nested"),
    "too long": (message(x="x" * MAX_MESSAGE_BYTES), "bytes, more than"),
}


@pytest.mark.parametrize(("payload", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_and_why(payload: bytes | None, reason: str) -> None:
    with pytest.raises(BadEventError, match=reason):
        DECODER.event(payload)
    assert decode(payload, NAMES) is None


def test_depth_is_bounded_whatever_the_strings_hold() -> None:
    flat = message(x="[" * 500 + '"\\{' * 100)
    assert DECODER.event(flat) == Event("u", "i", 1)
    for depth in (99, 100):
        nested = b'{"user":"u","item":"i","time":1,"x":' + b"[" * depth + b"]" * depth + b"}"
        if depth == 99:
            assert DECODER.event(nested) == Event("u", "i", 1)
        else:
            with pytest.raises(BadEventError, match="nested"):
                DECODER.event(nested)
        assert (decode(nested, NAMES) is None) == (depth == 100)


def test_field_names_can_be_mapped() -> None:
    decoder = Decoder(FieldNames(user="who", item="what.id", time="at", forget="erase"))
    assert decoder.event(b'{"who":"u","what.id":5,"at":1,"user":"x"}') == Event("u", "5", 1)
    assert decoder.event(b'{"who":"u","erase":true}') == Forget("u")
    with pytest.raises(BadEventError, match="'who' is missing"):
        decoder.event(message())
    with pytest.raises(ConfigError, match="mapped to one name"):
        Decoder(FieldNames(user="id"))


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"item":1}', Item("1")),
        (
            b'{"item":"i","title":"T","categories":["a","b"],"available":false,"year":1995,"tags":{"x":[1]}}',
            Item("i", "T", ("a", "b"), False, {"year": 1995, "tags": {"x": [1]}}),
        ),
        (b'{"item":"i","title":null,"categories":null}', Item("i")),
    ],
)
def test_items(payload: bytes, expected: Item) -> None:
    assert DECODER.item(payload) == expected


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, "tombstone"),
        (b"{}", "'item' is missing"),
        (b'{"item":"i","title":1}', "'title' must be a string"),
        (b'{"item":"i","categories":"a"}', "list of strings"),
        (b'{"item":"i","categories":[1]}', "list of strings"),
        (b'{"item":"i","available":"yes"}', "true or false"),
        (b'{"item":"i","title":"a","title":"b"}', "'title' appears 2 times"),
        (b'{"item":"i","x":' + b"9" * 5_000 + b"}", "not a JSON object"),
    ],
)
def test_items_that_are_refused(payload: bytes | None, reason: str) -> None:
    with pytest.raises(BadEventError, match=reason):
        DECODER.item(payload)


@pytest.mark.parametrize(
    "event",
    [
        Event("", "i", 1),
        Event("u", "i", -1),
        Event("u", "i", 1.5),  # type: ignore[arg-type]
        Event("u", "i", True),
        Event(1, "i", 1),  # type: ignore[arg-type]
        Event("u", "\ud800", 1),
        Event("u", "i", 1, weight=math.nan),
        Event("u", "i", 1, id=""),
        Event("u", "x" * 600, 1),
    ],
)
def test_events_made_in_python_have_the_same_bounds(event: Event) -> None:
    assert input_problem(event) is not None
    assert input_problem(Event("u", "i", 1, "t", 1.0, "e")) is None


@given(st.datetimes(min_value=dt.datetime(1970, 1, 2), timezones=st.timezones()))
@settings(deadline=None, max_examples=50)
def test_rfc_3339_round_trip(moment: dt.datetime) -> None:
    whole = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    offset = whole.utcoffset() or dt.timedelta()
    if offset.total_seconds() % 60 == 0:
        wanted = (whole - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(milliseconds=1)
        assert rfc_3339_ms(whole.isoformat()) == wanted


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**21), 10**21)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["2024-01-01T00:00:00Z", "2024-01-01t00:00:00.123456z", "u", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
GOOD = st.fixed_dictionaries(
    {
        "user": st.text(min_size=1, max_size=4) | st.integers(-5, 5),
        "item": st.text(min_size=1, max_size=4) | st.integers(-5, 5),
        "time": st.integers(0, MAX_TIME_MS) | st.just("2024-02-29T12:00:00.5+05:30"),
    },
    optional={
        "type": st.none() | st.text(max_size=4),
        "weight": st.none() | st.floats(-1e30, 1e30) | st.integers(-9, 9),
        "id": st.none() | st.text(min_size=1, max_size=4),
        "forget": st.none() | st.booleans(),
        "x": VALUES,
    },
)
ANY = st.dictionaries(st.sampled_from([*NAMES, "x"]), VALUES, max_size=8)


@given(GOOD | ANY, st.booleans(), st.binary(max_size=3), st.integers(0, 200))
@settings(deadline=None, max_examples=400)
def test_the_auditor_decodes_alike(fields: dict[str, object], ascii_only: bool, noise: bytes, place: int) -> None:
    try:
        payload = json.dumps(fields, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        return
    for changed in (payload, payload[:place] + noise + payload[place:]):
        fact = decode(changed, NAMES)
        try:
            event = DECODER.event(changed)
        except BadEventError:
            assert fact is None
            continue
        assert fact is not None
        if isinstance(event, Forget):
            assert fact == (event.user, None, 0, None, None, 0)
            continue
        weight = None if event.weight is None else single(event.weight)
        assert fact[:5] == (event.user, event.item, event.time_ms, event.type, weight)
        assert (fact.id_hash == 0) == (event.id is None)
