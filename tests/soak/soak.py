"""A service under load and faults for hours: ``python tests/soak/soak.py --minutes 120``; ``make soak MINUTES=120``.

A real broker, a real ``recurra run`` that trains, events and queries at a rate, and from a seed a fault every 5 to 30
seconds. After each fault every user of the store is compared with the topic up to the stored offsets. In the first
third of the time faults also end the service; in the rest it lives on, and memory, descriptors and threads are
measured. A backlog comes first that gives the users full histories: what is measured is not their growth.
Prints what it does, writes the figures with ``--json`` and ends with status 1 if a promise was broken.
"""

import argparse
import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from recurra.connectors.audit_model import Expected, Ledger, decode
from recurra.engine.config import Config
from recurra.engine.store import Reader

_TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_TESTS / "soak"), str(_TESTS / "support" / "broker")]
load = importlib.import_module("load")
broker_module = importlib.import_module("broker")

TOPIC = "soak"
NAMES = {name: name for name in ("user", "item", "time", "type", "weight", "id", "forget")}
# a healthy service has these long after a fault
PATIENCE_S = 120.0
MOST_MB_PER_MINUTE = 1.0


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class Service:
    """``recurra run`` as a process, started again after every end."""

    def __init__(self, address: str, folder: Path) -> None:
        self.data = folder / "data"
        self.pid = 0
        self.url: str | None = None
        self.lives = 0
        self._log = folder / "service.log"
        self._command = ["run", "--data", str(self.data), "--source", f"kafka://{address}/{TOPIC}"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it serves."""
        self.lives += 1
        at = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "recurra.cli", *self._command, "--api", "127.0.0.1:0"],
                stderr=log,
                stdout=log,
                env={**os.environ, "PYTHONSAFEPATH": "1"},
            )
        self.pid = self._process.pid

        def served() -> bool:
            found = [line for line in self._log.read_text()[at:].splitlines() if "serving http://" in line]
            self.url = found[-1].split("serving ")[1] if found else None
            return self.url is not None

        until(served, "the service serves", alive=self)

    def end(self, number: int) -> None:
        """Send a signal that ends it, and wait."""
        assert self._process is not None
        self.url = None
        self._process.send_signal(number)
        self._process.wait(60)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def ready(self) -> bool:
        """Whether it says that events come in and queries are answered."""
        with contextlib.suppress(httpx.HTTPError):
            return bool(httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200)
        return False

    def health(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.url}/health", timeout=10).json()
        return found


def until(holds: Callable[[], bool], what: str, seconds: float = PATIENCE_S, alive: Service | None = None) -> float:
    began = time.monotonic()
    while not holds():
        if alive is not None and not alive.alive:
            raise AssertionError(f"the service has ended while waited for: {what}")
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.2)
    return time.monotonic() - began


class Auditor:
    """Compares a running store with what was written to the topic, going on from where the last audit ended."""

    def __init__(self, producer: Any, config: Config) -> None:
        self._producer, self._config = producer, config
        self._ledgers = [Ledger(config.store.anchor) for _ in range(load.PARTITIONS)]
        self._places = [0] * load.PARTITIONS
        self.audits = 0

    def audit(self, data: Path) -> None:
        """Raise ``AssertionError`` if any user differs."""
        with Reader.open(data / "store", self._config.store) as store:
            offsets = {key: offset for key, offset in store.offsets().items() if key.startswith("kafka:")}
            for key, offset in offsets.items():
                self._advance(int(key.rpartition("/")[2]), offset)
            expected: dict[str, Expected] = {}
            for ledger in self._ledgers:
                expected |= ledger.users
            found = {each.user: Expected(each.n, each.history, set(each.seen)) for each in store.export()}
        wrong = [user for user in expected.keys() | found.keys() if expected.get(user) != found.get(user)]
        if wrong:
            raise AssertionError(f"{len(wrong)} users differ from the topic, such as {sorted(wrong)[:5]}")
        self.audits += 1

    def _advance(self, partition: int, offset: int) -> None:
        assert offset >= self._places[partition], "the store is behind its last audit"
        # after a fault messages may be read before their producer hears that they were written
        until(lambda: len(self._producer.logs[partition]) >= offset, f"message {offset} of {partition} was written")
        with self._producer.lock:
            log = self._producer.logs[partition][self._places[partition] : offset]
        for payload in log:
            fact = decode(payload, NAMES)
            if fact is not None:
                self._ledgers[partition].apply(fact)
        self._places[partition] = offset


class Meter:
    """Memory, descriptors, threads, disk and lag of one life of the service."""

    def __init__(self) -> None:
        self.samples: list[dict[str, float]] = []

    def take(self, service: Service) -> None:
        """Add one sample."""
        process = Path(f"/proc/{service.pid}")
        with contextlib.suppress(OSError, httpx.HTTPError, KeyError):
            status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
            self.samples.append(
                {
                    "minute": time.monotonic() / 60,
                    "rss_mb": int(status["VmRSS"].split()[0]) / 1024,
                    "threads": int(status["Threads"]),
                    "descriptors": len(list((process / "fd").iterdir())),
                    "disk_mb": disk_mb(service.data),
                    "lag": sum(service.health()["source"]["lag"].values()),
                }
            )

    def slope(self, name: str, minutes: float) -> float | None:
        """Return the growth per minute over the last minutes, by least squares; None with too few samples."""
        found = [each for each in self.samples if each["minute"] >= self.samples[-1]["minute"] - minutes]
        if len(found) < 10:
            return None
        at, value = np.array([(each["minute"], each[name]) for each in found]).T
        return float(np.polyfit(at, value, 1)[0])


def disk_mb(folder: Path) -> float:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total / 2**20


class Faults:
    """What is done to the service and its broker."""

    def __init__(self, service: Service, broker: Any, rng: random.Random) -> None:
        self._service, self._broker, self._rng = service, broker, rng
        self.done: dict[str, int] = {}
        self._living: dict[str, Callable[[], None]] = {
            "broker frozen": self._freeze_broker,
            "broker killed": self._kill_broker,
            "service frozen": self._freeze,
            "trainer killed": self._kill_trainer,
            "reader beside it": lambda: None,
        }
        self._ending: dict[str, Callable[[], None]] = {
            "service killed": lambda: self._end(signal.SIGKILL),
            "service stopped": lambda: self._end(15),
        }
        self._full = None if shutil.which("mount") is None else self._fill_disk
        if self._full is not None:
            self._living["disk full"] = self._full

    def one(self, *, ending: bool) -> str:
        """Do one, and undo it; the service may have been started again."""
        choices = self._living | (self._ending if ending else {})
        name = self._rng.choice(sorted(choices))
        choices[name]()
        self.done[name] = self.done.get(name, 0) + 1
        return name

    def _end(self, number: int) -> None:
        self._service.end(number)
        self._service.start()

    def _freeze(self) -> None:
        os.kill(self._service.pid, signal.SIGSTOP)
        time.sleep(self._rng.uniform(1, 6))
        os.kill(self._service.pid, signal.SIGCONT)

    def _freeze_broker(self) -> None:
        pid = self._broker._process.pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(self._rng.uniform(2, 12))
        os.kill(pid, signal.SIGCONT)

    def _kill_broker(self) -> None:
        self._broker.stop(kill=True)
        time.sleep(self._rng.uniform(0, 4))
        self._broker.start()

    def _kill_trainer(self) -> None:
        pid = self._service.health()["training"]["pid"]
        if pid:
            os.kill(pid, signal.SIGKILL)

    def _fill_disk(self) -> None:
        ballast = self._service.data.parent / "ballast"
        with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 65_536) == 65_536:
                pass
        time.sleep(self._rng.uniform(1, 6))
        ballast.unlink()


def read(service: Service) -> int:
    """Return how many messages of the topic it has read."""
    with contextlib.suppress(httpx.HTTPError, KeyError):
        return int(sum(service.health()["source"]["offsets"].values()))
    return 0


def soak(arguments: argparse.Namespace, folder: Path, broker: Any) -> dict[str, Any]:
    rng = random.Random(arguments.seed)
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([NewTopic(TOPIC, load.PARTITIONS, 1)])[TOPIC].result(30)
    service = Service(broker.address, folder)
    service.start()
    producer = load.Producer(
        broker.address,
        TOPIC,
        users=arguments.users,
        items=2_000,
        rate=arguments.rate,
        seed=arguments.seed,
        backlog=arguments.users * arguments.backlog,
    )
    queries = load.Queries(producer, TOPIC, lambda: service.url, rate=arguments.queries, seed=arguments.seed)
    auditor, faults, meter = Auditor(producer, Config()), Faults(service, broker, rng), Meter()
    longest_s, next_s = 0.0, 20.0
    try:
        backlog = arguments.users * arguments.backlog
        until(lambda: read(service) >= backlog, "the backlog is read", 3_600, alive=service)
        say(f"{producer.sent} messages read")
        began = time.monotonic()
        while (passed_s := time.monotonic() - began) < arguments.minutes * 60:
            time.sleep(min(5.0, arguments.minutes))
            ending = passed_s < arguments.minutes * 60 / 3
            if not ending:
                meter.take(service)
            if passed_s < next_s:
                continue
            name = faults.one(ending=ending)
            healed_s = until(service.ready, f"ready after {name}", alive=service)
            longest_s = max(longest_s, healed_s)
            auditor.audit(service.data)
            say(f"{name}: ready after {healed_s:.1f} s, audit {auditor.audits} clean; {queries.checked} answers right")
            if queries.wrong or producer.failure:
                raise AssertionError(f"{queries.wrong[:3]} {producer.failure or ''}")
            next_s = time.monotonic() - began + rng.uniform(5, 30)
        producer.stop()
        until(lambda: sum(service.health()["source"]["lag"].values()) == 0, "no lag at the end", alive=service)
        until(service.ready, "ready at the end", alive=service)
        auditor.audit(service.data)
        health = service.health()
    finally:
        producer.stop()
        queries.stop()
        if service.alive:
            service.end(signal.SIGKILL)
    return figures(arguments, producer, queries, auditor, faults, meter, service, longest_s, health)


def figures(
    arguments: argparse.Namespace,
    producer: Any,
    queries: Any,
    auditor: Auditor,
    faults: Faults,
    meter: Meter,
    service: Service,
    longest_s: float,
    health: dict[str, Any],
) -> dict[str, Any]:
    # the first half of the last life warms up
    minutes = arguments.minutes / 3
    slopes = {name: meter.slope(name, minutes) for name in ("rss_mb", "threads", "descriptors", "disk_mb")}
    last = meter.samples[-1] if meter.samples else {}
    seconds = sorted(queries.seconds)
    return {
        "minutes": arguments.minutes,
        "seed": arguments.seed,
        "users": arguments.users,
        "messages": producer.sent,
        "faults": faults.done,
        "audits": auditor.audits,
        "lives": service.lives,
        "queries": queries.asked,
        "answers_checked": queries.checked,
        "query_p99_ms": round(1000 * seconds[int(0.99 * len(seconds))], 1) if seconds else None,
        "versions": health["training"]["promoted"],
        "longest_to_ready_s": round(longest_s, 1),
        "most_lag": max((each["lag"] for each in meter.samples), default=None),
        "per_minute": slopes,
        "samples": meter.samples[:: max(1, len(meter.samples) // 60)],
        "at_the_end": last,
        "problems": health["problems"],
    }


def broken(result: dict[str, Any]) -> list[str]:
    """Return the promises that the figures break."""
    found = []
    slopes = result["per_minute"]
    if result["minutes"] >= 30 and slopes["rss_mb"] is not None:
        if slopes["rss_mb"] >= MOST_MB_PER_MINUTE:
            found.append(f"memory grows by {slopes['rss_mb']:.2f} MB a minute")
        found += [f"{name} grow" for name in ("threads", "descriptors") if slopes[name] > 0.1]
    # a training program that was killed last is a problem until the next training
    if problems := {part: problem for part, problem in result["problems"].items() if part != "training"}:
        found.append(f"health at the end: {problems}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--rate", type=float, default=300, help="events per second")
    parser.add_argument("--queries", type=float, default=20, help="queries per second")
    parser.add_argument("--backlog", type=int, default=300, help="events per user before the clock starts")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    broker = broker_module.Broker()
    broker.start()
    folder = Path(tempfile.mkdtemp(prefix="recurra-soak-"))
    # a disk of its own, so that it can be filled
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", str(folder)], check=False)
    try:
        result = soak(arguments, folder, broker)
        wrong = broken(result)
    except AssertionError as error:
        say(f"BROKEN (seed {arguments.seed}): {error}")
        print((folder / "service.log").read_text()[-4_000:])
        return 1
    finally:
        broker.close()
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result, indent=1))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    for each in wrong:
        say(f"BROKEN: {each}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
