"""Requests that the description of the API allows, and some that it does not, made by schemathesis from it."""

import datetime as dt
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

import recurra
from recurra.connectors.http import create_app
from recurra.engine.events import MAX_ID_BYTES, MAX_TIME_MS

from .conftest import START_MS, Service
from .test_guard import call

# too many records are refused as too large a body, which the library's list of refusals lacks
REFUSALS = ["400", "404", "405", "406", "409", "413", "415", "422"]
CONFIG = SchemathesisConfig.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}}})
# of the processor, in all threads of the service, for one request
CPU_S = 1.5

NAMES = st.sampled_from(["title", "item", "categories", "available", "brand"])
LITERALS = st.sampled_from(["'Drama'", "1990", "-0.5", "True", "None", "['a', 'b', 3]", "''", "9" * 300])
COMPARISONS = st.builds(
    "{} {} {}".format, NAMES | LITERALS, st.sampled_from(["==", "!=", "<", ">=", "in", "not in"]), NAMES | LITERALS
)
FILTERS = COMPARISONS | st.builds("{} and not ({})".format, COMPARISONS, COMPARISONS)
schemathesis.openapi.format("filter", FILTERS)
schemathesis.openapi.format(
    "id",
    # a client resolves dot segments before it sends
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=MAX_ID_BYTES // 4).filter(lambda text: text.strip(".")),
)
MOMENTS = st.datetimes(dt.datetime(1971, 1, 1), dt.datetime(2200, 1, 1)).map(lambda moment: f"{moment.isoformat()}Z")
schemathesis.openapi.format("date-time", MOMENTS)
schemathesis.openapi.format("moment", MOMENTS | st.integers(0, MAX_TIME_MS).map(str))


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    config = recurra.Config(training=type(recurra.Config().training)(mode="off"))
    with recurra.open(tmp_path_factory.mktemp("schema") / "data", config) as engine:
        engine.ingest(recurra.Item(f"m{i}", f"Title {i}", ("Drama",), attributes={"brand": "a"}) for i in range(40))
        engine.ingest(recurra.Event(f"u{i % 20}", f"m{i % 40}", START_MS + i) for i in range(200))
        # kernels are compiled before a request is measured
        engine.recommend("u1", where="title == 'x' or 'x' in title")
        yield schemathesis.openapi.from_asgi("/openapi.json", create_app(engine, hosts=None), config=CONFIG)


def check(schema: Any, examples: int) -> None:
    failures: list[str] = []
    for found in schema.get_all_operations():
        operation = found.ok()
        # a training takes as long as it takes, and a digest as long as there are users
        if operation.label == "POST /v1/train":
            continue
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            # nothing can be wrong about a route without parameters
            if mode is GenerationMode.NEGATIVE and not (operation.query or operation.body):
                continue
            try:
                _check_operation(operation, mode, examples)
            except BaseExceptionGroup as failure:
                failures.append(f"{operation.label}, {mode}: {failure}")
    assert not failures, "\n\n".join(failures)


def _check_operation(operation: Any, mode: Any, examples: int) -> None:
    @seed(1)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def test(case: Any) -> None:
        case.body = _with_integers(case.body)
        began_s = time.process_time()
        answer = case.call()
        used_s = time.process_time() - began_s
        case.validate_response(answer)
        assert used_s < CPU_S, f"{used_s:.1f} s of the processor for {case.as_curl_command():.300}"

    test()


def _with_integers(value: Any) -> Any:
    """Write 5.0 as 5: to a schema both are integers, to the service the first is none."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    if isinstance(value, list):
        return [_with_integers(part) for part in value]
    return {name: _with_integers(part) for name, part in value.items()} if isinstance(value, dict) else value


def test_the_service_does_what_its_description_says(schema: Any) -> None:
    check(schema, 12)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_the_service_does_what_its_description_says_at_length(schema: Any) -> None:
    check(schema, 1_000)


def test_a_method_that_a_path_does_not_have_names_those_it_has(service: Service) -> None:
    described = json.loads(call(service.url, "GET", "/openapi.json")[2])
    for path, routes in described["paths"].items():
        there = {method.upper() for method in routes}
        # an id may hold slashes: below a user everything is one
        there |= {"DELETE"} if path.startswith("/v1/users/") else set()
        for method in sorted({"GET", "POST", "PUT", "PATCH", "DELETE"} - there):
            status, headers, _ = call(service.url, method, re.sub(r"\{\w+\}", "1", path), "")
            assert status == 405
            assert headers["allow"]


def test_what_is_described_is_what_is_served(service: Service) -> None:
    described = json.loads(call(service.url, "GET", "/openapi.json")[2])
    for path, kind in (("/metrics", "text/plain"), ("/health", "application/json")):
        status, headers, _ = call(service.url, "GET", path)
        assert headers["content-type"].partition(";")[0] == kind
        assert kind in described["paths"][path]["get"]["responses"][str(status)]["content"]
    [k] = [p["schema"] for p in described["paths"]["/v1/items/{item}/similar"]["get"]["parameters"] if p["name"] == "k"]
    assert (k["minimum"], k["maximum"]) == (1, 10_000)
    train = described["paths"]["/v1/train"]["post"]["responses"]
    assert train.keys() >= {"200", "202", "409"}
    assert "404" in described["paths"]["/v1/users/{user}/history"]["get"]["responses"]
