"""What a service loads or compiles before it says that it is ready: all that its first events and queries call."""

import subprocess
import sys
from pathlib import Path

import pytest

import recurra
from recurra.engine.config import Config, ModelConfig
from recurra.engine.warmup import warm_up

from .conftest import publish

_FIRST = """
import gc, sys
from pathlib import Path

from numba.core.dispatcher import Dispatcher

import recurra
from recurra.engine.warmup import warm_up

def loaded():
    return {(each.py_func.__module__, each.py_func.__name__, str(types))
            for each in gc.get_objects() if isinstance(each, Dispatcher) for types in each.signatures}

data = Path(sys.argv[1])
with recurra.open(data) as engine:
    warm_up(data, recurra.Config())
    before = loaded()
    engine.ingest([recurra.Event(user, item, 5_000) for user, item in zip("abca", "xyzy")])
    engine.ingest([recurra.Item("y", title="of a kind", categories=("kind",))])
    engine.recommend("b", k=2)
    engine.recommend("stranger", k=2)
    engine.similar("x", k=2)
    assert engine.version == int(sys.argv[2])
    print(len(before), *sorted(loaded() - before), sep="\\n")
"""


@pytest.mark.parametrize("version", [0, 1])
def test_the_first_event_and_query_load_nothing_more(tmp_path: Path, version: int) -> None:
    data = tmp_path / "data"
    if version:
        with recurra.open(data) as engine:
            engine.ingest([recurra.Event("a", item, 1_000) for item in "xyz"])
        publish(data, list("xyz"), config=ModelConfig())
    command = [sys.executable, "-c", _FIRST, str(data), str(version)]
    count, *more = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
    assert int(count) > 10
    assert more == []


def test_it_leaves_nothing_and_needs_no_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = tmp_path / "data"
    data.mkdir()
    warm_up(data, Config())
    assert list(data.iterdir()) == []
    warm_up(tmp_path / "a file" / "data", Config())
    assert caplog.text == ""
    (tmp_path / "file").write_text("x")
    warm_up(tmp_path / "file" / "data", Config())
    assert "the first events and queries may be slow" in caplog.text
