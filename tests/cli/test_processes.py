"""Commands as processes: the service that runs until it is stopped, the demonstration, replays, bad files."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import recurra
from recurra.engine.config import TrainingConfig
from recurra.engine.versions import VersionStore

from .conftest import START_MS, Run, command, environment


@contextmanager
def _service(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(["run", *arguments]), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    pytest.fail(f"it ended without {words!r}")


def test_run_until_sigterm_and_the_second_is_refused(tmp_path: Path, run_process: Run) -> None:
    data = tmp_path / "data"
    with _service("--data", data, "--api", "127.0.0.1:0", "--train", "off") as process:
        _until(process, "waiting for events over HTTP")
        start = time.monotonic()
        second = run_process.refused("run", "--data", data, "--api", "off", "--train", "off")
        assert time.monotonic() - start < 30
        assert f"in use by process {process.pid}" in second
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        out, err = process.communicate()
        assert out == ""
        assert err.strip().endswith("stopped")


def test_a_log_that_cannot_be_written_does_not_end_the_service(tmp_path: Path) -> None:
    read, write = os.pipe()
    arguments: list[str | Path] = ["run", "--data", tmp_path / "data", "--api", "127.0.0.1:0", "--train", "off"]
    with subprocess.Popen(command(arguments), stderr=write, env=environment()) as process:
        os.close(write)
        with os.fdopen(read, "rb", buffering=0) as log:
            assert log.read(20)
        # nobody reads on
        deadline = time.monotonic() + 60
        while not (tmp_path / "data" / "store" / "OWNER").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0


def test_the_address_is_taken(tmp_path: Path, run_process: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert "it is in use" in run_process.refused("run", "--data", tmp_path, "--api", f"127.0.0.1:{port}")
        assert "it is in use" in run_process.refused("demo", "--port", str(port))
    # nothing was set up before the address was had
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("api", ["8000", "host:", ":8000", "host:99999", "host:x"])
def test_an_address_that_is_none(run: Run, tmp_path: Path, api: str) -> None:
    assert "--api expects HOST:PORT or off" in run.refused("run", "--data", tmp_path, "--api", api)


def test_the_demonstration_learns(run_process: Run) -> None:
    done = run_process("demo", "--exit", "--events", "3000", "--port", "0", "--json", "-", timeout_s=240)
    result = done.json
    assert result["events"] == 3_000
    assert result["recurra"]["hr@10"] > 1.2 * result["popularity"]["hr@10"] > 0
    assert result["versions"].keys() >= {"trained", "promoted", "serving"}
    assert result["seconds"] > 0


def test_the_demonstration_ends_when_told(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(["demo", "--port", "0"]), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "recurra is at http://127.0.0.1:" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_demonstration_ends_when_told_while_it_compiles(tmp_path: Path, number: int) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    process = subprocess.Popen(
        command(["demo", "--port", "0"]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # nothing is compiled there: a start takes far longer than the wait below
        env=environment() | {"NUMBA_CACHE_DIR": str(tmp_path / "numba"), "TMPDIR": str(folder)},
    )
    assert process.stdout is not None
    assert "starting the engine" in process.stdout.readline()
    time.sleep(2)
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert process.returncode not in (0, None)
    assert "Traceback" not in err
    assert not list(folder.iterdir())


class TestReplay:
    @pytest.fixture
    def inter(self, tmp_path: Path) -> Path:
        rows = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
        rows += [f"{i * 7 % 23}\t{i * 5 % 31}\t4\t{880_000_000 + 60 * i}" for i in range(300)]
        path = tmp_path / "small.inter"
        path.write_text("\n".join(rows) + "\n")
        return path

    def test_json_and_report(self, run: Run, inter: Path, tmp_path: Path) -> None:
        done = run("replay", inter, "--seed", "1", "--json", tmp_path / "out.json", "--report", tmp_path / "report")
        result = json.loads((tmp_path / "out.json").read_text())
        assert result["protocol"] == "preq-v1"
        assert result["events"] == 300
        assert set(result["baselines"]) >= {"popularity", "item-knn"}
        assert "item-knn" in done.out
        assert "peak memory" in done.out
        assert (tmp_path / "report" / "index.html").exists()

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--warm", "2"], "warm share"),
            (["--every", "0"], "every K-th"),
            (["--train", "maybe"], "auto or off"),
            (["--query-time", "maybe"], "on or off"),
            (["--baselines", "nonsense"], "no baseline is called 'nonsense'"),
            (["--via", "pigeon"], "pigeon"),
            (["--format", "xml"], "xml"),
            (["--speed", "slow"], "slow"),
            (["--data", "/proc/nowhere"], "/proc/nowhere"),
        ],
    )
    def test_what_is_refused(self, run: Run, inter: Path, options: list[str], words: str) -> None:
        assert words in run.refused("replay", inter, *options)

    def test_bad_files(self, run: Run, tmp_path: Path) -> None:
        assert "no file at" in run.refused("replay", tmp_path / "none.inter")
        empty = tmp_path / "empty.inter"
        empty.write_bytes(b"")
        assert str(empty) in run.refused("replay", empty)
        cut = tmp_path / "cut.parquet"
        cut.write_bytes(b"PAR1" + bytes(64))
        assert str(cut) in run.refused("replay", cut)
        noise = tmp_path / "noise.inter"
        noise.write_bytes(bytes(range(256)) * 20)
        assert str(noise) in run.refused("replay", noise)


@pytest.fixture(scope="class")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store with a version by `recurra train --once`."""
    path: Path = tmp_path_factory.mktemp("trained")
    with recurra.open(path, recurra.Config(training=TrainingConfig(mode="off"))) as engine:
        # everybody goes round the catalogue: what comes next can be learnt, and popularity does not know it
        engine.ingest(
            recurra.Event(f"u{i % 60}", f"m{(i % 60 * 7 + i // 60) % 31}", START_MS + i * 1_000) for i in range(1_200)
        )
    # a small model on a short log: what is tested is the way of a version, not how good it is
    (path / "small.toml").write_text(
        "[model]\nd_model = 16\nlayers = 1\nhead_dim = 8\nd_state = 8\n[training]\nmin_events = 1000\n"
        "[gate]\nholdout_events = 100\n"
    )
    return path


def _train(data: Path) -> list[str | Path]:
    return ["train", "--once", "--data", data, "--config", data / "small.toml", "--quiet"]


class TestVersions:
    def test_train_versions_rollback(self, run: Run, trained: Path) -> None:
        report = run(*_train(trained), "--json", "-").json
        assert report["verdict"] == "promoted", report
        (version,) = run("versions", "--data", trained, "--json", "-").json
        assert (version["number"], version["serving"]) == (1, True)
        assert run("recommend", "u1", "--data", trained, "--json", "-").json["version"] == 1
        listed = run("rollback", "1", "--data", trained, "--json", "-").json
        assert [info["number"] for info in listed] == [1]
        assert "version 2" in run.refused("rollback", "2", "--data", trained)
        doctor = run("doctor", "--data", trained, "--json", "-")
        assert doctor.json["users"] == 60
        assert doctor.json["hot_user_bytes"] <= 37 * 1024
        assert doctor.json["cold_user_bytes_without_events"] <= 200
        assert doctor.json["rss_bytes"] > 0

    def test_weights_that_are_not_finite(self, run: Run, trained: Path) -> None:
        if not VersionStore(trained / "models").list():
            run(*_train(trained))
        path = next((trained / "models").glob("*/*.safetensors"))
        whole = path.read_bytes()
        tensors = load_file(path)
        next(iter(tensors.values())).flat[0] = np.nan
        with safe_open(path, framework="np") as file:
            save_file(tensors, path, metadata=file.metadata())
        assert "weights.safetensors is damaged" in run.refused("rollback", "1", "--data", trained)
        # made so on purpose, checksum and all
        ready = path.with_name("READY")
        signed = ready.read_bytes()
        facts = json.loads(signed)
        facts["files"][path.name] = {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        ready.write_text(json.dumps(facts))
        assert "not finite" in run.refused("rollback", "1", "--data", trained)
        # what can be answered without the version is
        answer = run("recommend", "u1", "--data", trained, "--json", "-").json
        assert answer["version"] == 0
        assert answer["items"]
        path.write_bytes(whole)
        ready.write_bytes(signed)
        assert run("recommend", "u1", "--data", trained, "--json", "-").json["version"] == 1


def test_doctor_works_without_a_store(run: Run) -> None:
    done = run("doctor")
    assert "FAILS" not in done.out
    assert "parity" in done.out
