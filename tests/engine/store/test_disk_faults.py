"""A store over a disk whose writes and syncs really fail, below RocksDB: a library is preloaded into the process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCENARIOS = Path(__file__).resolve().parents[2] / "support" / "faults" / "scenarios.py"


def suffer(shim: Path, folder: Path, calls: int, **environment: str) -> "subprocess.CompletedProcess[str]":
    folder.mkdir()
    control = folder / "control"
    control.write_bytes(bytes(20))
    return subprocess.run(
        [sys.executable, str(SCENARIOS), str(folder), "0", str(calls)],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PYTHONSAFEPATH": "1",
            "LD_PRELOAD": str(shim),
            "FAULT_CONTROL": str(control),
            "FAULT_PATH": "/rocks/",
            **environment,
        },
    )


@pytest.mark.night
@pytest.mark.timeout(3_600)
def test_every_failed_write_and_sync_leaves_a_whole_batch(fault_shim: Path, tmp_path: Path, at_night: bool) -> None:
    done = suffer(fault_shim, tmp_path / "sound", 120 if at_night else 14)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_broken_build_is_found(fault_shim: Path, tmp_path: Path) -> None:
    done = suffer(fault_shim, tmp_path / "broken", 3, RECURRA_BREAK="two-writes")
    assert "another state than after batch" in done.stdout, done.stderr
