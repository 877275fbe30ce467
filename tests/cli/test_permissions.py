"""Permissions of what the engine writes: histories, versions, dead letters, the configuration with its passwords."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import recurra
from recurra.engine.config import StoreConfig
from recurra.engine.errors import ConfigError

from .conftest import START_MS, command, environment


@pytest.fixture
def usual_umask() -> Iterator[None]:
    """What most systems give a user: everything that is written can be read by everybody."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder.parent)): path.stat().st_mode & 0o777 for path in (folder, *folder.rglob("*"))}


@pytest.mark.usefixtures("usual_umask")
def test_nobody_else_can_read_what_a_service_writes(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    rows = [{"user": f"u{n % 40}", "item": f"i{n * n % 23}", "time": START_MS + n} for n in range(600)]
    events.write_text("".join(json.dumps(row) + "\n" for row in rows) + "no event\n")
    config = tmp_path / "recurra.toml"
    config.write_text("[training]\nmin_events = 500\nfirst_passes = 1\nfirst_tokens = 1000\n")
    data = tmp_path / "new" / "data"
    arguments: list[str | Path] = ["run", "--data", data, "--source", events, "--config", config, "--api", "off"]
    with subprocess.Popen(command(arguments), stderr=subprocess.PIPE, text=True, env=environment()) as process:
        deadline = time.monotonic() + 120
        while not (data / "models" / "current.json").exists() or not (data / "dead-letters.jsonl").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    found = modes(data)
    assert any("weights.safetensors" in name for name in found)
    assert any(name.endswith(".log") or name.endswith(".sst") for name in found)
    assert {name: oct(mode) for name, mode in found.items() if mode & 0o077} == {}
    # the directory above was made for it
    assert data.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("usual_umask")
def test_directories_of_an_embedded_engine_and_of_an_earlier_release_are_closed(tmp_path: Path) -> None:
    for name in ("data", "data/store", "data/models"):
        (tmp_path / name).mkdir(mode=0o755)
    with recurra.open(tmp_path / "data"):
        pass
    assert modes(tmp_path / "data")["data/store"] == modes(tmp_path / "data")["data/models"] == 0o700
    # the parent was there, and is its owner's to open
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o755
    with recurra.open(tmp_path / "group", recurra.Config(store=StoreConfig(umask="027"))):
        pass
    found = modes(tmp_path / "group")
    assert (found["group"], found["group/store"], found["group/models"]) == (0o750, 0o750, 0o750)


def test_an_umask_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r'three octal digits such as "077", .*got "?\'?u=rw'):
        StoreConfig(umask="u=rw")


@pytest.mark.usefixtures("usual_umask")
def test_the_configuration_is_for_its_owner(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "recurra.toml"
    path.write_text("old")
    run("init", path, "--force")
    assert path.stat().st_mode & 0o777 == 0o600
    assert "umask" in path.read_text()
