"""The service in a process of its own, for benchmarks over HTTP."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...connectors.http import Client
from ...engine.errors import RecurraError, ServiceError

__all__ = ["running_service"]

# a service that is being started must answer by then
_START_S = 60.0


@contextmanager
def running_service(folder: Path) -> Iterator[tuple[str, int]]:
    """Run the service on a free port of this machine until the end of the block; gives its address and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "recurra.cli", "run", "--data", str(folder), "--source", "none"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*command, "--api", address, "--train", "off"], stdout=log, stderr=log)
        try:
            _wait_for(f"http://{address}", process)
            yield f"http://{address}", process.pid
        finally:
            process.terminate()
            process.wait()


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_S
    with Client(url, timeout_s=2.0) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                client.health()
            except RecurraError:
                time.sleep(0.1)
            else:
                return
    raise ServiceError(f"the service at {url} did not start (exit status {process.poll()})")
