"""Fixtures that every part of the suite shares."""

import gc
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"
_GOLDEN = Path(__file__).resolve().parent / "golden"


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Return the path of a real data file beside the repository, or skip with a reason."""

    def find(name: str) -> Path:
        path = _SHARED / "data" / name
        if not path.exists():
            pytest.skip(f"real data {name} is not beside the repository")
        return path

    return find


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Path]:
    """Return the path of a file of golden vectors, or skip with a reason: three of the five are optional."""
    further = Path(os.environ.get("RECURRA_GOLDEN", _SHARED / "golden"))

    def find(name: str) -> Path:
        for folder in (_GOLDEN, further):
            if (folder / name).exists():
                return folder / name
        pytest.skip(f"golden vectors {name} are optional, and not in RECURRA_GOLDEN (see tests/golden/README.md)")

    return find


def _support(name: str) -> ModuleType:
    path = Path(__file__).resolve().parent / "support" / name
    spec = importlib.util.spec_from_file_location(f"recurra_test_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _unavailable(reason: str) -> None:
    if "kafka" in os.environ.get("RECURRA_REQUIRE", "").split(","):
        pytest.fail(f"a Kafka broker is required: {reason}")
    pytest.skip(f"no Kafka broker: {reason}")


@pytest.fixture(scope="session")
def broker_proxy() -> Iterator[Any]:
    """A proxy to the broker of our own; `proxy` is the fixture that heals it again."""
    with _support("proxy.py").Proxy() as proxy:
        yield proxy


@pytest.fixture
def proxy(own_broker: Any, broker_proxy: Any) -> Iterator[Any]:
    """The proxy to the broker of our own, for one test to spoil: clients that start at its address stay on it."""
    broker_proxy.target = own_broker.behind
    broker_proxy.heal()
    yield broker_proxy
    broker_proxy.heal()


@pytest.fixture(scope="session")
def own_broker(broker_proxy: Any) -> Iterator[Any]:
    """A broker of our own, which tests may stop and start."""
    if "RECURRA_TEST_KAFKA" in os.environ:
        pytest.skip("RECURRA_TEST_KAFKA names a broker that tests may not stop")
    module = _support("broker/broker.py")
    try:
        broker = module.Broker(proxied=broker_proxy.port)
        broker.start()
    except module.BrokerUnavailableError as error:
        _unavailable(str(error))
    yield broker
    broker.close()


@pytest.fixture(scope="session")
def address(request: pytest.FixtureRequest) -> str:
    """HOST:PORT of the broker that RECURRA_TEST_KAFKA names, else of our own."""
    given = os.environ.get("RECURRA_TEST_KAFKA")
    return given or request.getfixturevalue("own_broker").address


def pytest_collection_finish() -> None:
    """Keep what imports made, half a million objects, out of every later search for cycles."""
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let go of all of it: libraries that look for leaks at the end would print them after the summary."""
    gc.unfreeze()
