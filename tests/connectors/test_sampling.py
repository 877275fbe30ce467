"""The audit that runs beside a service: what it finds, what it says, what it costs."""

import json
import threading
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

import recurra
from recurra.connectors.http import Listener
from recurra.connectors.sampling import SamplingAudit
from recurra.connectors.service import run_service
from recurra.engine.config import AuditConfig, Config, TrainingConfig
from recurra.engine.errors import ConfigError
from recurra.engine.store import Store
from recurra.engine.store.records import TAIL, row_key

NOW_MS = 1_700_000_000_000


def config(**audit: float) -> Config:
    return Config(training=TrainingConfig(mode="off"), audit=AuditConfig(**audit))  # type: ignore[arg-type]


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    rows = [{"user": f"u{n % 50}", "item": f"i{n % 13}", "time": NOW_MS + n} for n in range(1_000)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Service:
    """A service in this process, until it is stopped."""

    def __init__(self, data: Path, events: Path, settings: Config) -> None:
        self.said: list[str] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=run_service,
            args=(data, settings),
            kwargs={
                "source": str(events),
                "api": Listener("127.0.0.1", 0),
                "stopped": self._stopped,
                "say": self.said.append,
            },
        )
        self._thread.start()

    def health(self) -> dict[str, object]:
        (url,) = [line.split()[-1] for line in self.said if line.startswith("serving ")]
        found: dict[str, object] = httpx.get(f"{url}/health").json()
        return found

    def metrics(self) -> str:
        (url,) = [line.split()[-1] for line in self.said if line.startswith("serving ")]
        return httpx.get(f"{url}/metrics").text

    def audited(self, outcome: str) -> dict[str, object]:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if any(line.startswith("serving ") for line in self.said):
                health = self.health()
                if health["source"].get("audit", {}).get("outcome") == outcome:  # type: ignore[attr-defined]
                    return health
            time.sleep(0.1)
        raise AssertionError(self.said)

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()


def test_a_sound_store_is_clean_and_a_user_who_differs_is_an_alarm(events: Path, tmp_path: Path) -> None:
    data, settings = tmp_path / "data", config(every_seconds=0.2, users=1_000, messages_per_second=1e6)
    service = Service(data, events, settings)
    try:
        assert service.audited("clean")["status"] == "ok"
        assert 'recurra_audits_total{outcome="clean"}' in service.metrics()
    finally:
        service.close()
    # one user loses an event, as no fault of the disk would show it
    with Store.open(data / "store", settings.store) as store:
        value = store._db.get(row_key(TAIL, 8))
        assert value is not None
        store._db.write([(row_key(TAIL, 7), value)], [], sync=True)
    service = Service(data, events, settings)
    try:
        health = service.audited("wrong")
        assert health["status"] == "degraded"
        assert "sampled users differ from the source: u7" in str(health["source"]["problem"])  # type: ignore[index]
        assert "recurra_audit_wrong_users_total" in service.metrics()
    finally:
        service.close()


def test_a_user_who_is_missing_altogether_is_found(events: Path, tmp_path: Path) -> None:
    settings = config(every_seconds=1, users=1_000, messages_per_second=1e6)
    from recurra.connectors.dead_letter import FileDeadLetters
    from recurra.connectors.local_sources import FileSource

    with recurra.open(tmp_path / "data", settings) as engine:
        FileSource(engine, events, settings, FileDeadLetters(tmp_path / "letters")).run(threading.Event())
        engine.forget("u3")
    audit = SamplingAudit(tmp_path / "data", str(events), settings, CollectorRegistry())
    found = audit.once(threading.Event())
    assert (found.outcome, found.wrong_users) == ("wrong", 1)
    assert "u3: 20 events in the source, none in the store" in str(found.problem)


def test_the_rate_is_kept_and_a_stop_is_not_waited_for(events: Path, tmp_path: Path) -> None:
    settings = config(every_seconds=1, users=5, messages_per_second=1_000)
    from recurra.connectors.dead_letter import FileDeadLetters
    from recurra.connectors.local_sources import FileSource

    with recurra.open(tmp_path / "data", settings) as engine:
        FileSource(engine, events, settings, FileDeadLetters(tmp_path / "letters")).run(threading.Event())
    audit = SamplingAudit(tmp_path / "data", str(events), settings, CollectorRegistry())
    began = time.monotonic()
    found = audit.once(threading.Event())
    assert time.monotonic() - began > 0.85
    assert found.outcome == "clean"
    assert found.users < 50
    stopped = threading.Event()
    thread = threading.Thread(target=audit.run, args=(stopped,))
    thread.start()
    time.sleep(1.2)
    stopped.set()
    thread.join(0.5)
    assert not thread.is_alive()


def test_what_no_audit_can_be_made_with() -> None:
    with pytest.raises(ConfigError, match=r"audit\.users must be an integer, 1 to"):
        AuditConfig(users=0)
