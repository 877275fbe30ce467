"""Streams made of pairs of codes."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from recurra.simulations.datasets import Stream

Pairs = Sequence[tuple[int, int]]


@pytest.fixture(scope="session")
def stream_of() -> Callable[[Pairs], Stream]:
    """Return a function that makes a stream of (user, item) pairs, one second apart."""

    def make(pairs: Pairs) -> Stream:
        count = len(pairs)
        users, items = (np.array([pair[place] for pair in pairs], np.int32) for place in (0, 1))
        return Stream(
            name="tiny",
            users=users,
            items=items,
            time_ms=1_000_000_000_000 + np.arange(count, dtype=np.int64) * 1_000,
            types=np.full(count, -1, np.int16),
            weights=np.full(count, np.nan, np.float32),
            order=np.arange(count),
            user_ids=[f"u{user}" for user in range(int(users.max()) + 1)],
            item_ids=[f"i{item}" for item in range(int(items.max()) + 1)],
            type_names=[],
        )

    return make
