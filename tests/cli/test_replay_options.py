"""Options of ``recurra replay`` that are its own: generated streams, delayed labels, and an end before the end."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import Run, command, environment


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    """Return a configuration under which no version is trained: it would take most of the time."""
    path = tmp_path / "recurra.toml"
    path.write_text("[training]\nmin_events = 1000000\n")
    return path


def test_a_generated_stream_has_its_truth(run: Run, tmp_path: Path, untrained: Path) -> None:
    out = tmp_path / "out.json"
    options = ("--limit", "1500", "--every", "3", "--config", untrained, "--label-delay", "10m", "--json", out)
    strategy = ("--strategy", "replay+distill")
    done = run("replay", "synthetic:abrupt", "--seed", "4", *options, *strategy)
    assert "the upper bound" in done.out
    result = json.loads(out.read_text())
    assert result["dataset"] == "synthetic:abrupt"
    assert result["events"] == 1_500
    assert result["truth"]["hr@10"] > result["recurra"]["hr@10"] > 0
    assert result["truth"]["drifts"] == [[600, 600], [1050, 1050]]
    assert result["settings"]["label_delay_ms"] == 600_000
    settings = result["settings"]
    assert settings["strategy"] == settings["config"]["training"]["strategy"] == "replay+distill"
    assert result["baselines"]["river-biased-mf"]["n"] == result["evaluated"] == 400


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["synthetic:magic"], "no synthetic stream is called 'magic'; there are stationary, abrupt"),
        (["synthetic:bots", "--limit", "0"], "at least 1 event"),
        (["synthetic:bots", "--limit", "50", "--label-delay", "soon"], "--label-delay expects a time span such as 30s"),
        (["synthetic:bots", "--limit", "50", "--label-delay", "-5s"], "--label-delay expects"),
        (
            ["synthetic:bots", "--limit", "50", "--strategy", "magic"],
            "training.strategy must be one of finetune, replay,",
        ),
    ],
)
def test_what_is_refused(run: Run, arguments: list[str], words: str) -> None:
    assert words in run.refused("replay", *arguments)


def test_sigterm_leaves_no_directory(tmp_path: Path, untrained: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        command(["replay", "synthetic:stationary", "--baselines", "none", "--config", untrained]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment() | {"TMPDIR": str(scratch)},
    )
    try:
        deadline = time.monotonic() + 60
        while not list(scratch.glob("recurra-replay-*/*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not list(scratch.glob("recurra-replay-*"))
