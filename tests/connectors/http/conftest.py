"""A real service on a free port, around an engine with a few events."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import recurra
from recurra.connectors.http import Listener, create_app

DAY_MS = 86_400_000
START_MS = 1_700_000_000_000


class Service(NamedTuple):
    engine: recurra.Engine
    url: str


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Start an engine that never trains, with 40 items of two categories and 20 users, behind HTTP."""
    path: Path = tmp_path_factory.mktemp("service")
    config = recurra.Config()
    config = recurra.Config(training=type(config.training)(mode="off"))
    with recurra.open(path / "data", config) as engine:
        engine.ingest(recurra.Item(f"m{i}", f"Title {i}", ("Drama" if i % 4 == 0 else "Comedy",)) for i in range(40))
        engine.ingest(
            recurra.Event(f"u{i % 20}", f"m{(i * 7 + i // 20) % 40}", START_MS + i * 1_000) for i in range(200)
        )
        listener = Listener("127.0.0.1", 0)
        listener.start(create_app(engine))
        yield Service(engine, listener.url)
        listener.close()


@pytest.fixture
def client(service: Service) -> Iterator[recurra.Client]:
    """Return a client of the service."""
    with recurra.Client(service.url) as client:
        yield client
