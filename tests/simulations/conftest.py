"""Streams made of pairs of codes, and the plots of a report as data."""

import json
import re
from collections.abc import Callable, Sequence
from html import unescape
from typing import Any, NamedTuple

import numpy as np
import pytest

from recurra.simulations.datasets import Stream

Pairs = Sequence[tuple[int, int]]


class Plot(NamedTuple):
    title: str
    traces: dict[str, dict[str, Any]]
    layout: dict[str, Any]


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


@pytest.fixture(scope="session")
def plots_of() -> Callable[[str], list[Plot]]:
    """Return a function that reads the plots of a page: what Plotly is given, by the name in the legend."""

    def read(page: str) -> list[Plot]:
        plots = []
        body = page.rpartition("</head>")[2]
        for figure in re.finditer(r"<figure><figcaption>(.*?)</figcaption>(.*?)</figure>", body, re.DOTALL):
            (arguments,) = re.findall(r"Plotly\.newPlot\((.*)\)", figure[2], re.DOTALL)
            _, traces, layout, _ = json.loads(f"[{arguments}]")
            plots.append(Plot(unescape(figure[1]), {trace["name"]: trace for trace in traces}, layout))
            assert len(traces) == len(plots[-1].traces)
        return plots

    return read
