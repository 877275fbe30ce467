import errno
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from recurra.engine import versions as module
from recurra.engine.config import ModelConfig
from recurra.engine.errors import StoreFencedError, TrainingError, VersionError
from recurra.engine.model import StreamingModel, save
from recurra.engine.results import TrainReport
from recurra.engine.versions import VersionStore

_MODEL = ModelConfig(d_model=8, layers=1, heads=1, head_dim=8, d_state=4)


def _publish(store: VersionStore, items: int = 5, **changes: Any) -> int:
    model = StreamingModel(_MODEL, items, generator=torch.Generator().manual_seed(items))
    arguments: dict[str, Any] = {
        "parent": store.current(),
        "cutoff_seq": 99,
        "store_id": "s",
        "report": lambda number: TrainReport(verdict="promoted", reason="", number=number),
        "guard": lambda: None,
    }
    return store.publish(model, [f"i{row}" for row in range(items)], **{**arguments, **changes})


def _rewrite_ready(folder: Path) -> None:
    """Make the checksums fit what is there now, as an edit by hand would."""
    names = ("weights.safetensors", "vocabulary.json", "version.json")
    entries = {name: {"bytes": e.bytes, "sha256": e.sha256} for name in names for e in [module._entry(folder / name)]}
    (folder / "READY").write_text(json.dumps({"format": 1, "files": entries}))


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    return VersionStore(tmp_path / "models")


def test_nothing_is_there_before_the_first(store: VersionStore) -> None:
    assert store.list() == []
    assert store.current() == 0
    with pytest.raises(VersionError, match=r"no complete version 3 .*there: none"):
        store.load(3)


def test_what_is_published_is_loaded(store: VersionStore) -> None:
    assert _publish(store) == 1
    assert _publish(store, 7) == 2
    assert (store.list(), store.current()) == ([1, 2], 2)
    version = store.load(2)
    assert version.vocabulary == [f"i{row}" for row in range(7)]
    assert version.report.number == 2
    assert (version.number, version.facts.parent, version.facts.cutoff_seq) == (2, 1, 99)
    want = StreamingModel(_MODEL, 7, generator=torch.Generator().manual_seed(7)).state_dict()
    for name, tensor in version.model().state_dict().items():
        assert torch.equal(tensor, want[name])
    assert store.facts(1).items == 5


def test_an_older_version_can_be_made_current(store: VersionStore) -> None:
    _publish(store)
    _publish(store)
    store.set_current(1)
    assert store.current() == 1
    assert _publish(store) == 3
    with pytest.raises(VersionError, match="no complete version 9"):
        store.set_current(9)
    assert store.current() == 3


@pytest.mark.parametrize("name", ["weights.safetensors", "vocabulary.json", "version.json", "READY"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_damage_is_found(store: VersionStore, name: str, damage: str) -> None:
    _publish(store)
    path = store.path / "000001" / name
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[len(data) // 2] ^= 0x80
        path.write_bytes(data)
    else:
        path.unlink()
    with pytest.raises(VersionError, match=r"000001|version 1 "):
        store.load(1)


def test_weights_that_are_not_finite_are_refused(store: VersionStore) -> None:
    _publish(store)
    folder = store.path / "000001"
    model = store.load(1).model()
    with torch.no_grad():
        model.embedding[0, 0] = float("nan")
    save(model, folder / "weights.safetensors")
    _rewrite_ready(folder)
    with pytest.raises(VersionError, match="not finite"):
        store.load(1)


def test_a_vocabulary_of_another_version_is_refused(store: VersionStore) -> None:
    _publish(store, 5)
    _publish(store, 7)
    shutil.copy(store.path / "000001" / "vocabulary.json", store.path / "000002" / "vocabulary.json")
    with pytest.raises(VersionError, match=r"vocabulary\.json is damaged"):
        store.load(2)
    _rewrite_ready(store.path / "000002")
    with pytest.raises(VersionError, match="7 items, facts for 7 and a vocabulary of 5 items"):
        store.load(2)


def test_weights_of_another_shape_are_refused(store: VersionStore) -> None:
    _publish(store, 5)
    wider = StreamingModel(ModelConfig(d_model=16, layers=1, heads=1, head_dim=16, d_state=4), 6)
    save(wider, store.path / "000001" / "weights.safetensors")
    _rewrite_ready(store.path / "000001")
    with pytest.raises(VersionError, match="weights for 6 items"):
        store.load(1)


def test_a_version_under_another_number_is_refused(store: VersionStore) -> None:
    _publish(store)
    shutil.copytree(store.path / "000001", store.path / "000004")
    with pytest.raises(VersionError, match="holds version 1"):
        store.load(4)


@pytest.mark.parametrize("content", [b"", b"{", b'{"number": "x"}'])
def test_an_unreadable_pointer_says_what_to_do(store: VersionStore, content: bytes) -> None:
    _publish(store)
    (store.path / "current.json").write_bytes(content)
    with pytest.raises(VersionError, match="rollback"):
        store.current()


@pytest.mark.parametrize(
    ("content", "serves", "words"),
    [
        (b'{"number": 1}', 1, None),
        (None, 2, "is missing beside complete versions"),
        (b"{", 2, "cannot read"),
        (b'{"number": 7}', 7, "names version 7, which is not there"),
    ],
)
def test_what_should_serve_and_what_is_wrong_with_the_pointer(
    store: VersionStore, content: bytes | None, serves: int, words: str | None
) -> None:
    assert store.to_serve() == (0, None)
    _publish(store)
    _publish(store)
    pointer = store.path / "current.json"
    pointer.unlink() if content is None else pointer.write_bytes(content)
    number, problem = store.to_serve()
    assert number == serves
    assert problem is None if words is None else words in str(problem)


@pytest.mark.parametrize("target", ["save", "_entry", "_replace"])
def test_a_full_disk_leaves_the_old_version(store: VersionStore, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    _publish(store)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, target, full)
    with pytest.raises((TrainingError, VersionError), match="No space left"):
        _publish(store)
    monkeypatch.undo()
    assert (store.list(), store.current()) == ([1], 1)
    assert sorted(entry.name for entry in store.path.iterdir()) == ["000001", "current.json"]


def test_a_new_owner_of_the_store_stops_the_publication(store: VersionStore) -> None:
    _publish(store)

    def guard() -> None:
        assert store.current() == 1
        raise StoreFencedError("epoch 3, not 2")

    with pytest.raises(StoreFencedError):
        _publish(store, guard=guard)
    assert (store.list(), store.current()) == ([1], 1)


@pytest.mark.parametrize(
    ("point", "current", "complete"),
    [("versions.written", 1, [1]), ("versions.named", 1, [1, 2]), ("versions.switched", 2, [1, 2])],
)
def test_a_kill_while_publishing_leaves_a_whole_current_version(
    store: VersionStore, forker: Any, tmp_path: Path, point: str, current: int, complete: list[int]
) -> None:
    _publish(store)
    code = (
        "import sys; from recurra.engine.config import ModelConfig; from recurra.engine.model import StreamingModel\n"
        "from recurra.engine.results import TrainReport\n"
        "from recurra.engine.versions import VersionStore\n"
        "model = StreamingModel(ModelConfig(d_model=8, layers=1, heads=1, head_dim=8, d_state=4), 2)\n"
        "VersionStore(sys.argv[1]).publish(model, ['a', 'b'], parent=1, cutoff_seq=1, store_id='s',\n"
        "    report=lambda number: TrainReport(verdict='promoted', reason=''), guard=lambda: None)\n"
    )
    assert forker.run(code, [store.path], tmp_path / "log", RECURRA_FAILPOINT=point) == -signal.SIGKILL
    assert (store.current(), store.list()) == (current, complete)
    store.load(store.current())
    # the next publication clears up and goes on
    number = _publish(store)
    assert store.current() == number == max(complete) + 1
    assert not [entry.name for entry in store.path.iterdir() if entry.name.startswith(".")]


def test_old_versions_are_pruned_but_never_the_current_one(store: VersionStore) -> None:
    for _ in range(5):
        _publish(store)
    store.set_current(2)
    store.prune(2)
    assert store.list() == [2, 4, 5]
    assert store.load(2).number == 2


def test_only_one_process_may_publish(store: VersionStore, forker: Any, tmp_path: Path) -> None:
    with store.lock():
        code = (
            "import sys; from recurra.engine.versions import VersionStore\n"
            "from recurra.engine.errors import TrainingError\n"
            "try:\n"
            "    with VersionStore(sys.argv[1]).lock(): print('got it')\n"
            "except TrainingError as error: print(error)\n"
        )
        assert forker.run(code, [store.path], tmp_path / "log") == 0
        assert f"process {os.getpid()} trains versions" in (tmp_path / "log").read_text()
    with store.lock():
        pass


def test_the_last_attempt_is_remembered(store: VersionStore) -> None:
    assert store.attempted() == -1
    with store.lock():
        store.set_attempted(1234)
    assert store.attempted() == 1234
    (store.path / "attempted.json").write_text("{")
    assert store.attempted() == -1


def test_a_model_needs_the_vocabulary_of_its_size(store: VersionStore) -> None:
    with pytest.raises(ValueError, match="5 items cannot have a vocabulary of 1"):
        store.publish(
            StreamingModel(_MODEL, 5),
            ["a"],
            parent=0,
            cutoff_seq=0,
            store_id="",
            report=lambda _: TrainReport(verdict="promoted", reason=""),
            guard=lambda: None,
        )
