"""The engine as a service: a source of events, training in the background, the HTTP endpoint, until it is stopped."""

import gc
import os
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from ..engine.config import Config
from ..engine.engine import Engine, open
from ..engine.errors import ConfigError, ServiceError, StoreFullError
from ..engine.results import SourceHealth
from ..engine.warmup import warm_up
from .apply import Source, SourceStoppedError
from .dead_letter import FileDeadLetters
from .files import check_file
from .http import Listener, allowed_hosts, create_app
from .kafka import KafkaService, check_kafka, is_kafka
from .local_sources import FileSource, LineSource, NoSource
from .sampling import SamplingAudit
from .source_metrics import register_source

__all__ = ["run_service"]

_COMPILING = "compiling what it computes with: the first start of an installation takes a minute or two"
# a start that only loads what an earlier one compiled says nothing of it
_SLOW_S = 4.0
_LOOK_S = 0.1
# between two attempts to open an engine on a full disk
_ROOM_S = 1.0
# what is under way when the service stops gets this long
_STOP_S = 3.0


def run_service(
    data: str | Path,
    config: Config,
    *,
    source: str,
    api: Listener | None,
    stopped: threading.Event,
    say: Callable[[str], None],
    opened: Callable[[], None] = lambda: None,
) -> None:
    """Run until ``stopped`` is set; ``say`` gets a line for everything that a person should know.

    ``opened`` is called when the engine is open: until then there is nothing to finish, and the process may be ended.

    ``source`` is ``kafka://HOST:PORT/TOPIC``, a file, ``-`` for JSON lines on standard input, or ``none``. When a file
    or standard input ends the service stays up and answers. ``api`` is closed at the end; from its start it answers
    that the process lives, and everything else when the engine has recovered. Raises ``RecurraError`` if it cannot
    start, or if the source needs a person to continue; everything applied until then is kept.
    """
    # the process is the service's own, so that this hides the files of libraries too
    os.umask(config.store.hidden_bits)
    with ExitStack() as stack:
        if api is not None:
            stack.callback(api.close)
        # what can never be read is no reason to make a store
        _check_source(source, config)
        if api is not None:
            api.start()
        engine = stack.enter_context(_opened(data, config, api, stopped, say))
        _warm_up(Path(data), config, api, say)
        # what was read stays: looking through all of it for cycles would hold up everyone for up to a second
        gc.collect()
        gc.freeze()
        opened()
        health = engine.health()
        say(f"store {data}: {health.users} users, {health.events} events, {_serving(engine)}")
        reader = _open_source(source, engine, config, Path(data))
        if config.audit.every_seconds > 0 and source not in ("none", "-"):
            reader = _Audited(reader, SamplingAudit(Path(data), source, config, engine.registry))
        register_source(engine.registry, reader.health)
        runner = _Runner(reader, stopped)
        # once the listener is closed, nothing waits for what the source would still bring
        stack.callback(runner.join)
        if api is not None:
            stack.callback(api.close)
            hosts = allowed_hosts(api.host, config.api.hosts)
            api.start(create_app(engine, source=reader.health, hosts=hosts))
            say(f"serving {api.url}")
        runner.start()
        say(f"reading {source}" if source != "none" else "waiting for events over HTTP")
        _watch(runner, engine, stopped, say)
    say("stopped")


def _opened(
    data: str | Path, config: Config, api: Listener | None, stopped: threading.Event, say: Callable[[str], None]
) -> Engine:
    """Open the engine; a full disk is waited for, as it is later."""
    told = False
    while True:
        try:
            return open(data, config)
        except StoreFullError as error:
            if not told:
                say(f"waiting for room: {error}")
            if api is not None:
                api.say_starting(f"engine: {error}")
            told = True
            if stopped.wait(_ROOM_S):
                raise


def _warm_up(data: Path, config: Config, api: Listener | None, say: Callable[[str], None]) -> None:
    if api is not None:
        api.say_starting(f"engine: {_COMPILING}")
    slow = threading.Timer(_SLOW_S, say, [_COMPILING])
    slow.daemon = True
    slow.start()
    warm_up(data, config)
    slow.cancel()


class _Audited:
    """A source with an audit of sampled users beside it, whose outcome is in the source's health."""

    def __init__(self, source: Source, audit: SamplingAudit) -> None:
        self._source = source
        self._audit = audit

    def run(self, stopped: threading.Event) -> None:
        # the source may end; what it has read is audited until the service stops
        threading.Thread(target=self._audit.run, args=(stopped,), name="recurra-audit", daemon=True).start()
        self._source.run(stopped)

    def health(self) -> SourceHealth:
        health, audit = self._source.health(), self._audit.health()
        return msgspec.structs.replace(health, audit=audit, problem=health.problem or audit.problem)


class _Runner:
    """Runs a source in a thread and keeps what it failed with."""

    def __init__(self, source: Source, stopped: threading.Event) -> None:
        self._source = source
        self._stopped = stopped
        self._thread = threading.Thread(target=self._run, name="recurra-source", daemon=True)
        self.failure: Exception | None = None

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    @property
    def endless(self) -> bool:
        """Whether the source has no end that is worth a line."""
        return isinstance(self._source, NoSource)

    @property
    def problems(self) -> dict[str, str]:
        return self._source.health().problems

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def _run(self) -> None:
        try:
            self._source.run(self._stopped)
        except SourceStoppedError:
            pass
        except Exception as error:
            self.failure = error
        except BaseException as error:
            # what a library's own code panics with is no Exception: the thread has ended all the same
            self.failure = ServiceError(f"the source failed ({type(error).__name__}: {error})")


def _watch(runner: _Runner, engine: Engine, stopped: threading.Event, say: Callable[[str], None]) -> None:
    version, told_end = engine.version, runner.endless
    problems: dict[str, str] = {}
    while not stopped.wait(_LOOK_S):
        if runner.failure is not None:
            raise runner.failure
        if runner.ended and not told_end:
            say("the source has ended; queries are still answered")
            told_end = True
        if engine.version != version:
            version = engine.version
            say(f"version {version} serves")
        now = engine.health().problems | runner.problems
        for part, problem in now.items():
            if problems.get(part) != problem:
                say(f"{part}: {problem}")
        for part in problems.keys() - now.keys():
            say(f"{part}: well again")
        problems = now


def _serving(engine: Engine) -> str:
    return f"version {engine.version}" if engine.version else "no version yet"


def _check_source(source: str, config: Config) -> None:
    if source == "-" and sys.stdin is None:
        raise ConfigError("--source - reads standard input, but it is closed")
    if source in ("none", "-"):
        return
    if is_kafka(source):
        check_kafka(source, config.kafka)
    else:
        check_file(source)


def _open_source(source: str, engine: Engine, config: Config, data: Path) -> Source:
    if source == "none":
        return NoSource()
    if is_kafka(source):
        return KafkaService(engine, source, config, data)
    dead_letters = FileDeadLetters(data / "dead-letters.jsonl")
    if source == "-":
        return LineSource(engine, sys.stdin.fileno(), config, dead_letters)
    return FileSource(engine, source, config, dead_letters)
