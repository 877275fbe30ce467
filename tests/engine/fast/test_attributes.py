"""Attributes in the counting memory: their numbers against plain dictionaries, and what they bring."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from recurra.engine.config import FastConfig
from recurra.engine.fast import Context, FastMemory, Few

ATTRIBUTES = {0: [1, 2], 1: [1], 2: [2, 3, 4], 3: [4], 4: [], 5: [1, 2], 6: [5]}
NONE = Few(np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.int64))


def described(attributes: dict[int, list[int]]) -> FastMemory:
    memory = FastMemory(FastConfig(attributes=8))
    for item, keys in attributes.items():
        memory.describe(item, np.array(keys, np.int32))
    return memory


def bought(memory: FastMemory, events: list[tuple[int, int]]) -> None:
    users, items = np.array(events, np.int32).T
    memory.learn(users, items, np.arange(len(events)), lambda user: (np.empty(0, np.int32), np.empty(0, np.int64)))


def context(*items: int) -> Context:
    return Context(np.array(items, np.int32), np.arange(len(items)))


def test_likeness_is_the_sum_of_the_weights_of_common_attributes() -> None:
    memory = described(ATTRIBUTES)
    events = [(0, 0), (1, 2), (2, 0), (3, 3), (4, 1)]
    bought(memory, events)
    found = memory.parts(context(4, 2, 0), 8)

    carriers = Counter(key for keys in ATTRIBUTES.values() for key in keys)
    weights: dict[int, float] = defaultdict(float)
    for item, factor in ((0, 1.0), (2, 0.8), (4, 0.64)):
        for key in ATTRIBUTES[item]:
            weights[key] += factor / math.sqrt(len(ATTRIBUTES[item]))
    # six of the items have attributes; each is listed with half an event before it has any
    sought = {
        key: sum(2.0 ** ((at - 5) / 1_000) for at, (_, item) in enumerate(events) if key in ATTRIBUTES[item])
        + 0.5 * carriers[key] * 2.0 ** (-5 / 1_000)
        for key in carriers
    }
    factors = {"attributes": dict.fromkeys(carriers, 1.0), "attributes-recent": sought}
    for part, factor_of in factors.items():
        for item, keys in ATTRIBUTES.items():
            rarity = {key: math.log(7 / (carriers[key] + 1)) for key in keys}
            total = sum(weights[key] * rarity[key] ** 2 * math.sqrt(factor_of[key]) for key in keys)
            if total:
                assert found[part][item] == pytest.approx(total / math.sqrt(len(keys)), rel=1e-4)
            else:
                assert np.isnan(found[part][item]) or found[part][item] < 1e-6
        # it has no record
        assert np.isnan(found[part][7])


def test_what_nobody_had_is_found_by_what_it_has_in_common() -> None:
    memory = FastMemory(FastConfig())
    for item in range(1_000):
        memory.describe(item, np.array([item % 50, 100 + item % 7], np.int32))
    bought(memory, [(user, 1 + user) for user in range(40)])
    # one more of the kind of item 7, that nobody had
    memory.describe(2_000, np.array([7, 105], np.int32))
    allowed = np.ones(2_001, np.bool_)
    nothing = np.empty(0, np.int32)
    rows, scores = memory.assemble(
        context(7), allowed, nothing, nothing, NONE, wanted=50, least=1, parts=len(memory.names)
    )
    assert 2_000 in rows
    likeness = scores[memory.names.index("attributes")]
    # more than what has the commoner of the two attributes only
    assert likeness[rows == 2_000] > 2 * np.nanmin(likeness)
    # and is not where it is excluded
    rows, _ = memory.assemble(
        context(7), allowed, np.array([2_000], np.int32), nothing, NONE, wanted=50, least=1, parts=len(memory.names)
    )
    assert 2_000 not in rows


def test_a_newer_record_takes_the_place_of_the_one_before() -> None:
    memory = described(ATTRIBUTES)
    memory.describe(6, np.array([3], np.int32))
    renewed = described(ATTRIBUTES | {6: [3]})
    for part in ("attributes", "attributes-recent"):
        assert np.array_equal(memory.parts(context(2), 7)[part], renewed.parts(context(2), 7)[part], equal_nan=True)
    memory.describe(6, np.empty(0, np.int32))
    assert np.isnan(memory.parts(context(2), 7)["attributes"][6])


def test_more_attributes_than_are_read_are_cut_off() -> None:
    memory = FastMemory(FastConfig(attributes=64))
    memory.describe(0, np.arange(40, dtype=np.int32))
    memory.describe(1, np.array([39], np.int32))
    memory.describe(2, np.array([3], np.int32))
    memory.describe(3, np.array([50], np.int32))
    found = memory.parts(context(0), 4)["attributes"]
    assert np.isnan(found[1])
    assert found[2] > 0


def test_zero_buckets_count_items_alone() -> None:
    memory = FastMemory(FastConfig(attributes=0))
    memory.describe(0, np.array([1], np.int32))
    bought(memory, [(0, 0), (1, 1)])
    assert not {"attributes", "attributes-recent"} & set(memory.parts(context(0), 2))


def test_a_snapshot_keeps_them() -> None:
    memory = described(ATTRIBUTES)
    bought(memory, [(0, 0), (1, 2), (2, 0), (3, 3), (4, 1)])
    other = FastMemory(FastConfig(attributes=8))
    assert other.restore(memory.snapshot())
    for each in (memory, other):
        each.describe(3, np.array([2], np.int32))
        bought(each, [(5, 3), (6, 0)])
    for part, values in memory.parts(context(0, 3), 8).items():
        assert np.array_equal(values, other.parts(context(0, 3), 8)[part], equal_nan=True), part
