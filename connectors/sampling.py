"""Audit of a sample of users against the source, in the background of a running service, at a bounded rate."""

import contextlib
import logging
import random
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter

from ..engine.config import Config
from ..engine.errors import BrokerError, RecurraError, SourceBehindError
from ..engine.results import AuditHealth
from ..engine.store import Reader
from .audit import audit_users

__all__ = ["SamplingAudit"]

_LOG = logging.getLogger("recurra.audit")
# classes that the ids of users are sorted into; a sample takes some of them, in the store and in the source alike
_CLASSES = 1 << 16


class SamplingAudit:
    """Recomputes some users from the source every ``audit.every_seconds``, and compares them with the store.

    A sample are the users whose ids fall into some of 65,536 classes, so that one who is missing from the store is
    found as well. ``health`` has the outcome of the last audit. After one that found a difference the same users are
    audited again, until they are right.
    """

    def __init__(self, data: Path, source: str, config: Config, registry: CollectorRegistry) -> None:
        self._data, self._source, self._config = data, source, config
        self._random = random.Random()
        self._again: frozenset[int] = frozenset()
        self._audits = Counter(
            "recurra_audits", "Audits of sampled users: clean, wrong, impossible.", ["outcome"], registry=registry
        )
        self._users = Counter("recurra_audited_users", "Users compared with the source.", registry=registry)
        self._wrong = Counter("recurra_audit_wrong_users", "Users who differed from the source.", registry=registry)
        self._health = AuditHealth(outcome=None, users=0, wrong_users=0, problem=None)

    def run(self, stopped: threading.Event) -> None:
        """Audit until ``stopped`` is set."""
        while not stopped.wait(self._config.audit.every_seconds):
            with contextlib.suppress(_StoppedError):
                self._audit(stopped)

    def health(self) -> AuditHealth:
        """Return the outcome of the last audit."""
        return self._health

    def _audit(self, stopped: threading.Event) -> None:
        try:
            found = self.once(stopped)
        except (RecurraError, OSError) as error:
            # retention, or a broker that is away: nothing is known to be wrong
            expected = isinstance(error, SourceBehindError | BrokerError)
            _LOG.log(logging.INFO if expected else logging.WARNING, "no audit of sampled users: %s", error)
            self._audits.labels("impossible").inc()
            if self._health.problem is None:
                self._health = AuditHealth("impossible", 0, 0, None, str(error))
            return
        self._audits.labels(found.outcome).inc()
        self._users.inc(found.users)
        self._wrong.inc(found.wrong_users)
        if found.problem is not None:
            _LOG.error("audit: %s", found.problem)
        self._health = found

    def once(self, stopped: threading.Event) -> AuditHealth:
        """Audit one sample; raises what `audit` raises."""
        with Reader.open(self._data / "store", self._config.store) as store:
            classes = self._again or self._sample(store.users.active)
            pace = self._pace(stopped)
            report = audit_users(store, self._source, self._config, pace, lambda user: _class(user) in classes)
        self._again = frozenset() if report.ok else classes
        if report.ok:
            return AuditHealth("clean", report.users, 0, None)
        problem = f"{report.wrong_users} of {report.users} sampled users differ from the source: {report.examples[0]}"
        return AuditHealth("wrong", report.users, report.wrong_users, problem)

    def _sample(self, users: int) -> frozenset[int]:
        count = min(_CLASSES, max(1, round(self._config.audit.users * _CLASSES / max(1, users))))
        return frozenset(self._random.sample(range(_CLASSES), count))

    def _pace(self, stopped: threading.Event) -> Callable[[int, int], None]:
        rate, began, count = self._config.audit.messages_per_second, time.monotonic(), 0

        def wait(_done: int, _total: int) -> None:
            nonlocal count
            if count % 64 == 0 and stopped.wait(max(0.0, count / rate - (time.monotonic() - began))):
                raise _StoppedError
            count += 1

        return wait


class _StoppedError(Exception):
    pass


def _class(user: str) -> int:
    return zlib.crc32(user.encode()) % _CLASSES
