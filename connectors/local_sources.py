"""The sources that end: a file, and JSON lines on a pipe."""

import contextlib
import os
import select
import threading
from pathlib import Path

import msgspec

from ..engine.config import Config
from ..engine.errors import BadEventError, RecurraError
from ..engine.events import Decoder
from ..engine.results import Record, SourceHealth
from .apply import Applier, Origin, SourceEngine
from .dead_letter import DeadLetters
from .file_content import BOM, check_content
from .files import Segment, open_segments

__all__ = ["FileSource", "LineSource", "NoSource"]

_LOOK_S = 0.2
_READ_BYTES = 1 << 16


class NoSource:
    """No source: events come in over HTTP only."""

    def run(self, stopped: threading.Event) -> None:
        """Do nothing."""

    def health(self) -> SourceHealth:
        """Return that there is nothing to be connected to."""
        return SourceHealth(kind="none", connected=True, state="ended", problem=None)


class FileSource:
    """Reads a file from where the store has got to, and ends with it."""

    def __init__(self, engine: SourceEngine, path: str | Path, config: Config, dead_letters: DeadLetters) -> None:
        self._engine = engine
        self._path = path
        self._config = config
        self._dead_letters = dead_letters
        self._state = "starting"
        self._problem: str | None = None
        self._done = 0
        self._total = 0
        self._refused = 0

    def run(self, stopped: threading.Event) -> None:
        """Apply every part of the file that the store does not have yet."""
        with contextlib.closing(self._dead_letters):
            self._read(stopped)

    def _read(self, stopped: threading.Event) -> None:
        known = self._engine.source_info()

        def info(key: str) -> dict[str, object] | None:
            return msgspec.json.decode(known[key], type=dict[str, object]) if key in known else None

        applier = Applier(self._engine, self._dead_letters, stopped, self._note, self._config.store)
        self._state = "running"
        # lines of the newest part, where none of it is an event
        refused = 0
        # parsing a part of the file writes the letters of its bad lines, which may have to wait for room
        for segment in open_segments(
            self._path, source_info=info, fields=self._config.events, dead_letters=_Waiting(applier)
        ):
            self._note(None)
            if segment.key not in known:
                self._engine.set_source_info(segment.key, msgspec.json.encode(segment.info), offset=0)
            self._refused += segment.events.refused
            self._apply(applier, segment, stopped)
            refused = 0 if segment.events.events else segment.events.refused
        self._state = "stopped" if stopped.is_set() else "ended"
        if refused:
            part = "lines of" if refused == self._refused and not self._total else "lines that were added to"
            self._problem = f"all {refused} {part} {self._path} were refused; the dead letters say why"

    def health(self) -> SourceHealth:
        """Return how far the file is read."""
        return SourceHealth(
            kind="file",
            path=str(self._path),
            connected=self._problem is None,
            state=self._state,
            problem=self._problem,
            events=self._done,
            total=self._total,
            refused=self._refused,
        )

    def _apply(self, applier: Applier, segment: Segment, stopped: threading.Event) -> None:
        events, lines, store = segment.events.events, segment.events.lines, self._config.store
        first = self._engine.offsets().get(segment.key, 0)
        self._done += first
        self._total += len(events)
        for start in range(first, len(events), store.batch_events):
            if stopped.is_set():
                return
            places = range(start, min(start + store.batch_events, len(events)))
            applier.apply(
                [Record(events[at], segment.key, at + 1) for at in places],
                [Origin(segment.key, lines[at], msgspec.json.encode(events[at])) for at in places],
            )
            self._done += len(places)

    def _note(self, problem: str | None) -> None:
        self._problem = problem


class _Waiting:
    """Dead letters that are waited for until they can be kept."""

    def __init__(self, applier: Applier) -> None:
        self._applier = applier

    def write(self, source: str, position: int, payload: bytes | None, reason: str) -> None:
        self._applier.refuse(Origin(source, position, payload), reason)

    def flush(self) -> None:
        self._applier.settle()

    def close(self) -> None:
        pass


class LineSource:
    """Reads JSON lines from a pipe, one event each; what was read is not read again after a restart."""

    def __init__(self, engine: SourceEngine, descriptor: int, config: Config, dead_letters: DeadLetters) -> None:
        self._engine = engine
        self._descriptor = descriptor
        self._config = config
        self._dead_letters = dead_letters
        self._decoder = Decoder(config.events)
        self._state = "starting"
        self._problem: str | None = None
        self._lines = 0
        self._taken = 0
        self._refused = 0

    def run(self, stopped: threading.Event) -> None:
        """Apply what the pipe holds, then wait for more: a line is visible soon after it was written."""
        with contextlib.closing(self._dead_letters):
            self._follow(stopped)

    def _follow(self, stopped: threading.Event) -> None:
        applier = Applier(self._engine, self._dead_letters, stopped, self._note, self._config.store)
        self._state = "running"
        rest = b""
        while not stopped.is_set():
            # a plain read would not notice that the service is stopping
            if not select.select([self._descriptor], [], [], _LOOK_S)[0]:
                continue
            try:
                data = os.read(self._descriptor, _READ_BYTES)
            except OSError as error:
                raise RecurraError(f"cannot read standard input: {error.strerror}") from None
            if not self._lines:
                check_content(rest + data, "standard input")
            if data:
                *lines, rest = (rest + data).split(b"\n")
            else:
                lines = [rest] if rest else []
            self._apply(applier, lines)
            if not data:
                self._state = "ended"
                return
        self._state = "stopped"

    def health(self) -> SourceHealth:
        """Return how much was read."""
        problem = self._problem
        if problem is None and self._refused and not self._taken:
            problem = f"all {self._refused} lines of standard input were refused; the dead letters say why"
        return SourceHealth(
            kind="stdin",
            connected=problem is None,
            state=self._state,
            problem=problem,
            events=self._lines,
            refused=self._refused,
        )

    def _apply(self, applier: Applier, lines: list[bytes]) -> None:
        records: list[Record] = []
        origins: list[Origin] = []
        for line in lines:
            if not self._lines:
                line = line.removeprefix(BOM)
            self._lines += 1
            if not line.strip():
                continue
            origin = Origin("stdin", self._lines, line)
            try:
                records.append(Record(self._decoder.event(line.rstrip(b"\r")), "", 0))
                origins.append(origin)
            except BadEventError as error:
                self._refused += 1
                applier.refuse(origin, str(error))
        applier.apply(records, origins)
        self._taken += len(records)

    def _note(self, problem: str | None) -> None:
        self._problem = problem
