"""Commands where the surroundings are poor: another locale, closed streams, no directory that can be written to."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import recurra

from .conftest import START_MS, command, environment

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(scope="module")
def titled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("titled") / "data"
    with recurra.open(path) as engine:
        engine.ingest(
            [recurra.Item("ü", "Ünïcode ✓"), recurra.Event("a", "ü", START_MS), recurra.Event("b", "x", START_MS)]
        )
    return path


def test_a_locale_without_unicode(titled: Path, tmp_path: Path) -> None:
    file = tmp_path / "answer.json"

    def run(*arguments: str | Path) -> bytes:
        done = subprocess.run(
            command(["recommend", "b", "--data", titled, *arguments]),
            capture_output=True,
            check=False,
            env=environment() | ASCII,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    # shown somehow, as the terminal can
    assert b"code" in run()
    run("--json", file)
    assert json.loads(file.read_bytes().decode())["items"] == ["ü"]
    assert json.loads(run("--json", "-").decode())["titles"] == ["Ünïcode ✓"]


def test_closed_standard_input(tmp_path: Path) -> None:
    arguments = ["run", "--source", "-", "--api", "off", "--data", str(tmp_path / "data")]
    code = f"import os; os.close(0); os.execv({sys.executable!r}, {command(arguments)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "recurra: --source - reads standard input, but it is closed"


def test_no_directory_for_compiled_functions(tmp_path: Path) -> None:
    place = tmp_path / "read-only"
    place.mkdir()
    source = Path(recurra.__file__).resolve().parents[2]
    mounted = subprocess.run(["mount", "--bind", str(source), str(place)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a directory cannot be mounted here (needs root)")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
        code = "from recurra.kernels.scalar import sigmoid; from recurra.kernels import jit; print(jit.__file__)"
        variables = environment() | {"HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none"}
        variables.pop("NUMBA_CACHE_DIR", None)
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            env=variables | {"PYTHONPATH": str(place / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert done.returncode == 0, done.stderr
        assert str(place) in done.stdout
        assert done.stderr.count("set NUMBA_CACHE_DIR to a directory that can be written to") == 1
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
