"""Versions of the model on disk: numbered, immutable, published whole or not at all, checked when they are read.

```
models/000017/   weights.safetensors   vocabulary.json   version.json   READY (sizes and SHA-256 of the others, last)
models/current.json                    the version that serves, replaced by atomic rename
models/refused.json                    the reports of the last candidates that the gate refused
models/attempted.json                  the newest event that the last training saw
models/LOCK                            held by the one process that may publish
```

A version is written under a temporary name, synced, renamed to its number, and only then made current. A
failure in between leaves the current version as it was; the rest is removed at the next publish.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from .errors import TrainingError, VersionError
from .failpoints import failpoint
from .model import StreamingModel, load, save
from .results import Refusal, TrainReport

__all__ = ["Version", "VersionFacts", "VersionStore"]

_FORMAT = 1
_WEIGHTS, _VOCABULARY, _FACTS, _READY = "weights.safetensors", "vocabulary.json", "version.json", "READY"
_ROLLED_BACK = "ROLLED_BACK"
# reports of refused candidates that are kept
_REFUSALS = 20
_FILES = (_WEIGHTS, _VOCABULARY, _FACTS)
_NUMBER = re.compile(r"[0-9]{6,}")
_LEFTOVER = re.compile(r"\.(new|old)-.+")

_T = TypeVar("_T")


class VersionFacts(msgspec.Struct, frozen=True):
    """What is known of a version without its weights. ``parent`` 0 means that it was not fine-tuned from another.

    ``cutoff_seq`` is the sequence number of the newest event that it was trained on; ``report`` is what its gate said.
    """

    number: int
    parent: int
    cutoff_seq: int
    items: int
    store_id: str
    report: TrainReport
    format: int = _FORMAT


class Version:
    """A version in memory: ``vocabulary`` holds the item ids in the order of the model's rows."""

    def __init__(self, facts: VersionFacts, vocabulary: list[str], model: StreamingModel) -> None:
        self.number = facts.number
        self.facts = facts
        self.vocabulary = vocabulary
        self._model = model

    @property
    def report(self) -> TrainReport:
        """What the gate said."""
        return self.facts.report

    def model(self) -> StreamingModel:
        """Return the model, in evaluation mode; always the same object."""
        return self._model


class _Entry(msgspec.Struct, frozen=True):
    bytes: int
    sha256: str


class _Ready(msgspec.Struct, frozen=True):
    format: int
    files: dict[str, _Entry]


class _Current(msgspec.Struct, frozen=True):
    number: int


class _Attempted(msgspec.Struct, frozen=True):
    seq: int


class VersionStore:
    """The directory of versions. Reading needs no lock and may go on while another process publishes."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def list(self) -> list[int]:
        """Return the numbers of all complete versions, ascending."""
        if not self.path.is_dir():
            return []
        found = (entry.name for entry in self.path.iterdir() if _NUMBER.fullmatch(entry.name))
        return sorted(int(name) for name in found if (self.path / name / _READY).is_file())

    def current(self) -> int:
        """Return the number of the version that serves, 0 if none does yet; raises ``VersionError`` if unreadable."""
        path = self.path / "current.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Current).number
        except FileNotFoundError:
            return 0
        except (OSError, msgspec.DecodeError) as error:
            raise VersionError(f"cannot read {path}: {error}; `recurra rollback N` writes it again") from None

    def to_serve(self) -> tuple[int, str | None]:
        """Return the version that should serve, 0 for none, and what is wrong with ``current.json``, None if nothing.

        If the file is missing beside versions, or unreadable, the newest version should serve.
        """
        path = self.path / "current.json"
        try:
            current = self.current()
        except VersionError as error:
            return max(self.list(), default=0), str(error)
        # listed later: a version is there before it becomes current
        numbers = self.list()
        if numbers and not current:
            return numbers[-1], (
                f"{path} is missing beside complete versions: the newest one serves, "
                "and `recurra rollback N` writes the file again"
            )
        if current not in (0, *numbers):
            return current, f"{path} names version {current}, which is not there"
        return current, None

    def facts(self, number: int) -> VersionFacts:
        """Return what is known of a version without reading its weights."""
        folder = self._folder(number)
        self._check(folder, self._ready(folder), _FACTS)
        return self._facts(folder, number)

    def load(self, number: int) -> Version:
        """Read and check a version; raises ``VersionError`` saying what is wrong with it."""
        folder = self._folder(number)
        ready = self._ready(folder)
        for name in _FILES:
            self._check(folder, ready, name)
        facts = self._facts(folder, number)
        vocabulary = _decoded(folder / _VOCABULARY, list[str])
        if len(set(vocabulary)) != len(vocabulary):
            raise VersionError(f"version {number}: its vocabulary names an item twice")
        model = load(folder / _WEIGHTS)
        if not model.items == facts.items == len(vocabulary):
            raise VersionError(
                f"version {number}: weights for {model.items} items, facts for {facts.items} and a vocabulary of "
                f"{len(vocabulary)} items do not belong together"
            )
        return Version(facts, vocabulary, model)

    def set_current(self, number: int) -> None:
        """Make a complete version the one that serves."""
        self._ready(self._folder(number))
        try:
            _replace(self.path / "current.json", msgspec.json.encode(_Current(number)))
        except OSError as error:
            raise VersionError(f"cannot make version {number} current: {error.strerror}; nothing was changed") from None

    def rolled_back(self, number: int) -> str | None:
        """Return why a version was rolled back, None if it was not."""
        try:
            return (self._folder(number) / _ROLLED_BACK).read_text()
        except OSError:
            return None

    def set_rolled_back(self, number: int, reason: str) -> None:
        """Note with a version why it was rolled back."""
        try:
            _replace(self._folder(number) / _ROLLED_BACK, reason.encode())
        except OSError as error:
            raise VersionError(f"cannot write to version {number}: {error.strerror}") from None

    def clear_rolled_back(self, number: int) -> None:
        """Remove the note of a version that serves again."""
        with contextlib.suppress(OSError):
            (self._folder(number) / _ROLLED_BACK).unlink(missing_ok=True)

    def refusals(self) -> Sequence[Refusal]:
        """Return the reports of the last candidates that the gate refused, oldest first."""
        try:
            return msgspec.json.decode((self.path / "refused.json").read_bytes(), type=list[Refusal])
        except (OSError, msgspec.DecodeError):
            # nothing depends on it
            return []

    def add_refusal(self, report: TrainReport) -> None:
        """Keep the report of a refused candidate among the last ones; the caller holds ``lock``."""
        try:
            _replace(self.path / "refused.json", msgspec.json.encode([*self.refusals(), report][-_REFUSALS:]))
        except OSError as error:
            raise TrainingError(f"cannot write to {self.path}: {error.strerror}; the serving version stays") from None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the right to publish; raises ``TrainingError`` if another process has it. Ends with the process."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "LOCK").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise TrainingError(f"process {holder} trains versions in {self.path} already") from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def publish(
        self,
        model: StreamingModel,
        vocabulary: Sequence[str],
        *,
        parent: int,
        cutoff_seq: int,
        store_id: str,
        report: Callable[[int], TrainReport],
        guard: Callable[[], None],
    ) -> int:
        """Write a version, make it current and return its number; the caller holds ``lock``.

        ``report`` is given the number. ``guard`` is called just before the version becomes current: if it raises (the
        store has a new owner), or if anything else fails, the current version stays and the new one is removed.
        """
        if model.items != len(vocabulary):
            raise ValueError(f"a model of {model.items} items cannot have a vocabulary of {len(vocabulary)}")
        self.path.mkdir(parents=True, exist_ok=True)
        self.clean()
        number = max(self.list(), default=0) + 1
        folder, draft = self.path / f"{number:06d}", self.path / f".new-{number}"
        facts = VersionFacts(number, parent, cutoff_seq, model.items, store_id, report(number))
        try:
            _write(draft, model, vocabulary, facts)
            failpoint("versions.written")
            draft.rename(folder)
            _sync(self.path)
            failpoint("versions.named")
            guard()
            self.set_current(number)
            failpoint("versions.switched")
        except BaseException as error:
            shutil.rmtree(draft, ignore_errors=True)
            # the switch itself may have happened before what failed
            if self.current() != number:
                shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                text = error.strerror or str(error)
                raise TrainingError(f"cannot write version {number} to {folder}: {text}; the old stays") from None
            raise
        return number

    def attempted(self) -> int:
        """Return the newest event that the last training saw, published or not; -1 if there was none."""
        try:
            return msgspec.json.decode((self.path / "attempted.json").read_bytes(), type=_Attempted).seq
        except (OSError, msgspec.DecodeError):
            # only the cost of the next training depends on it
            return -1

    def set_attempted(self, seq: int) -> None:
        """Note the newest event that a training saw; the caller holds ``lock``."""
        try:
            _replace(self.path / "attempted.json", msgspec.json.encode(_Attempted(seq)))
        except OSError as error:
            raise TrainingError(f"cannot write to {self.path}: {error.strerror}; the serving version stays") from None

    def clean(self) -> None:
        """Remove what publishing that was interrupted left behind; the caller holds ``lock``."""
        complete = {f"{number:06d}" for number in self.list()}
        for entry in self.path.iterdir():
            unfinished = _NUMBER.fullmatch(entry.name) and entry.name not in complete
            if unfinished or (_LEFTOVER.fullmatch(entry.name) and entry.is_dir()):
                shutil.rmtree(entry, ignore_errors=True)
            elif _LEFTOVER.fullmatch(entry.name):
                entry.unlink(missing_ok=True)

    def prune(self, keep: int) -> None:
        """Remove all but the newest ``keep`` versions and the current one; the caller holds ``lock``."""
        current = self.current()
        for number in self.list()[: -max(1, keep)]:
            if number != current:
                # renamed first, so that a reader finds a whole version or none
                gone = self.path / f".old-{number}"
                self._folder(number).rename(gone)
                shutil.rmtree(gone, ignore_errors=True)

    def _folder(self, number: int) -> Path:
        return self.path / f"{number:06d}"

    def _ready(self, folder: Path) -> _Ready:
        try:
            data = (folder / _READY).read_bytes()
        except FileNotFoundError:
            known = ", ".join(map(str, self.list())) or "none"
            raise VersionError(f"no complete version {int(folder.name)} is in {self.path} (there: {known})") from None
        except OSError as error:
            raise VersionError(f"cannot read {folder / _READY}: {error.strerror}") from None
        try:
            ready = msgspec.json.decode(data, type=_Ready)
        except msgspec.DecodeError as error:
            raise VersionError(f"{folder / _READY} is damaged: {error}") from None
        if ready.format != _FORMAT:
            raise VersionError(f"version {int(folder.name)} has format {ready.format}, this release reads {_FORMAT}")
        return ready

    def _check(self, folder: Path, ready: _Ready, name: str) -> None:
        path, entry = folder / name, ready.files.get(name)
        try:
            found = _entry(path)
        except OSError as error:
            raise VersionError(f"cannot read {path}: {error.strerror}") from None
        if found != entry:
            want = "nothing" if entry is None else f"{entry.bytes} bytes with SHA-256 {entry.sha256[:12]}"
            raise VersionError(
                f"{path} is damaged: {want} expected, {found.bytes} bytes with SHA-256 {found.sha256[:12]} found"
            )

    def _facts(self, folder: Path, number: int) -> VersionFacts:
        facts = _decoded(folder / _FACTS, VersionFacts)
        if facts.number != number:
            raise VersionError(f"{folder} holds version {facts.number}")
        return facts


def _write(draft: Path, model: StreamingModel, vocabulary: Sequence[str], facts: VersionFacts) -> None:
    draft.mkdir()
    save(model, draft / _WEIGHTS)
    (draft / _VOCABULARY).write_bytes(msgspec.json.encode(list(vocabulary)))
    (draft / _FACTS).write_bytes(msgspec.json.encode(facts))
    for name in _FILES:
        _sync(draft / name)
    ready = _Ready(_FORMAT, {name: _entry(draft / name) for name in _FILES})
    (draft / _READY).write_bytes(msgspec.json.encode(ready))
    _sync(draft / _READY)
    _sync(draft)


def _entry(path: Path) -> _Entry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return _Entry(path.stat().st_size, digest.hexdigest())


def _decoded(path: Path, type: type[_T]) -> _T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=type)
    except (OSError, msgspec.DecodeError) as error:
        raise VersionError(f"{path} is damaged: {error}") from None


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name(f".new-{path.name}-{os.getpid()}")
    try:
        draft.write_bytes(data)
        _sync(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
