"""Commands over a directory that is damaged, that cannot be written, or that others may not read."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def read_only(data: Path, tmp_path: Path) -> Iterator[Path]:
    """Mount the directory of a store again, for reading only."""
    place = tmp_path / "read-only"
    place.mkdir()
    mounted = subprocess.run(["mount", "--bind", str(data), str(place)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a directory cannot be mounted here (needs root)")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_reading_commands_work_where_nothing_can_be_written(run: Any, data: Path, read_only: Path) -> None:
    before = sorted(path.relative_to(data) for path in data.rglob("*"))
    for arguments in (
        ("recommend", "u1", "-k", "3"),
        ("history", "u1"),
        ("similar", "m1"),
        ("versions",),
        ("digest",),
        ("verify",),
    ):
        run(*arguments, "--data", read_only)
    assert run("digest", "--data", read_only).out == run("digest", "--data", data).out
    assert "Read-only" in run.refused("forget", "u1", "--data", read_only)
    assert sorted(path.relative_to(data) for path in data.rglob("*")) == before


def test_verify_finds_repairs_and_says_what_cannot_be_built_again(run: Any, data: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(data, tmp_path / "data"))
    assert "is sound" in run("verify", "--data", place).out
    table = max((place / "store" / "rocks").glob("*.sst"), key=lambda file: file.stat().st_size)
    table.write_bytes(table.read_bytes()[:-200])
    found = run.failing("verify", "--data", place, "--json", "-", code=1)
    assert not found.json["ok"]
    assert {each["kind"] for each in found.json["damage"]} == {"store"}
    assert "DAMAGED" in found.err
    assert "nothing was changed" in found.err
    # of the file itself, in one line, without advice to do what was just done
    (line,) = [line for line in found.err.splitlines() if line.startswith("DAMAGED")]
    assert str(table) in line
    assert "recurra verify" not in line
    assert line.endswith("; it is built again from its sources")
    repaired = run("verify", "--data", place, "--repair")
    assert "reads the source from its beginning" in repaired.out
    assert "HTTP or in process, cannot be built again" in repaired.out
    (quarantine,) = (place / "quarantine").iterdir()
    assert (quarantine / "store" / "rocks" / table.name).exists()
    assert not (place / "store").exists()
    assert "there is no store" in run.refused("verify", "--data", place)
