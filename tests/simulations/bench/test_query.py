"""The benchmark of queries: its report of the processor's time."""

import faiss
import pytest

from recurra.simulations.bench import query


def test_time_of_the_processor_is_split_into_search_and_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "_USERS", 40)
    monkeypatch.setattr(query, "_CPU_QUERIES", 50)
    search = faiss.IndexFlatIP.search
    # more items than are scored one by one without the index
    found = query.bench_query(6_000, seconds=0.2)
    assert faiss.IndexFlatIP.search is search
    assert found["failed"] == 0
    assert 0 < found["search_us"] < found["cpu_us"]
    assert 0 < found["cpu_us_beside_search"] < found["cpu_us"]
