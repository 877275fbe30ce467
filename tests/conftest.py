"""Fixtures that every part of the suite shares."""

import contextlib
import gc
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
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
    with contextlib.closing(_support("proxy.py").Proxy()) as proxy:
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


class Forked:
    """A command as a process, with what the tests need of ``subprocess.Popen``."""

    def __init__(self, ask: Callable[..., Any], pid: int) -> None:
        self._ask = ask
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._ask(poll=self.pid)["status"]
        return self.returncode

    def wait(self, timeout_s: float) -> int:
        deadline = time.monotonic() + timeout_s
        while (status := self.poll()) is None:
            assert time.monotonic() < deadline, f"process {self.pid} has not ended within {timeout_s:g} s"
            time.sleep(0.01)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forker:
    """Starts commands of recurra in a fraction of a second: one process has imported everything, and forks them."""

    def __init__(self) -> None:
        program = Path(__file__).resolve().parent / "support" / "forker.py"
        self._process = subprocess.Popen(
            [sys.executable, str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
        self._answer()

    def start(self, arguments: Sequence[str | Path], log: Path, **environment: str) -> Forked:
        """Start ``recurra ARGUMENTS``; its output is appended to ``log``."""
        return self._start(None, arguments, log, environment)

    def run(
        self, code: str, arguments: Sequence[str | Path], log: Path, timeout_s: float = 120, **environment: str
    ) -> int:
        """Run Python code as a program, and return its status as of ``subprocess``."""
        return self.start_code(code, arguments, log, **environment).wait(timeout_s)

    def start_code(self, code: str, arguments: Sequence[str | Path], log: Path, **environment: str) -> Forked:
        """Start Python code as a program."""
        return self._start(code, arguments, log, environment)

    def _start(
        self, code: str | None, arguments: Sequence[str | Path], log: Path, environment: dict[str, str]
    ) -> Forked:
        argv = [str(argument) for argument in arguments]
        return Forked(self._ask, self._ask(code=code, argv=argv, env=environment, log=str(log))["pid"])

    def close(self) -> None:
        self._process.communicate()

    def _ask(self, **request: object) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@pytest.fixture(scope="session")
def forker() -> Iterator[Forker]:
    found = Forker()
    yield found
    found.close()


@pytest.fixture(scope="session")
def at_night() -> bool:
    """Whether there are hours: kills, seeds and inputs by the hundred where a pull request gets tens."""
    return os.environ.get("RECURRA_NIGHT") == "1"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 48 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    yield place
    # also with a file still open, of a test that failed
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="session")
def fill_up() -> Callable[..., Path]:
    """Fill a small file system to its last byte, with the file that is returned."""

    def fill(place: Path) -> Path:
        ballast = place / "ballast"
        # smaller and smaller, so that not even a small record finds room
        with ballast.open("ab", buffering=0) as file:
            for size in (65_536, 4_096, 1):
                with contextlib.suppress(OSError):
                    while file.write(b"x" * size) == size:
                        pass
        return ballast

    return fill


@pytest.fixture(scope="session")
def fault_shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the library that makes writes and syncs of a process fail; see tests/support/faults/faults.c."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler for the library that makes a disk fail")
    source = Path(__file__).resolve().parent / "support" / "faults" / "faults.c"
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def pytest_collection_finish() -> None:
    """Keep what imports made, half a million objects, out of every later search for cycles."""
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let go of all of it: libraries that look for leaks at the end would print them after the summary."""
    gc.unfreeze()
