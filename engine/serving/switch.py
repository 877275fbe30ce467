"""Switch of the serving version: load, fold the active users, exchange one reference."""

import logging
import threading

from ..config import Config
from ..errors import RecurraError, VersionError
from ..events import check_version
from ..metrics import Metrics
from ..model import StepWeights
from ..store import LogChunk, Reader
from ..versions import VersionStore
from .caches import Caches
from .shadow import Shadow
from .version import ServedVersion

__all__ = ["Switch"]

_log = logging.getLogger(__name__)

# passes over the users that were overtaken while the others were folded; what is left is done with writers kept out
_PASSES = 3


class Switch:
    """Loads a version, folds the states of the active users under it beside the old one, and puts it in its place.

    The old version answers until one reference changes; every answer comes from one of the two.
    """

    def __init__(
        self,
        store: Reader,
        caches: Caches,
        versions: VersionStore,
        config: Config,
        metrics: Metrics,
        write: "threading.RLock",  # not a type at run time
    ) -> None:
        self._store = store
        self._caches = caches
        self._versions = versions
        self._config = config
        self._metrics = metrics
        self._write = write
        self._turn = threading.Lock()
        self.failure: str | None = None

    @property
    def serving_number(self) -> int:
        """The number of the version that serves, 0 for none."""
        serving = self._caches.serving
        return 0 if serving is None else serving.number

    @property
    def trained_seq(self) -> int:
        """The newest event of the log that the serving version was trained on."""
        return self._versions.facts(self.serving_number).cutoff_seq if self.serving_number else 0

    @property
    def hot_state_bytes(self) -> int:
        """Bytes of one hot state under the serving version, 0 without one."""
        serving = self._caches.serving
        return 0 if serving is None else serving.slab.nbytes_per_slot

    def to_newest(self) -> None:
        """Serve the current version; if it cannot be loaded, the newest one before it that can."""
        current, failure = self._versions.to_serve()
        for number in sorted((n for n in self._versions.list() if n <= current), reverse=True):
            try:
                self.to(number)
            except VersionError as error:
                failure = failure or str(error)
                _log.warning("%s", error)
            else:
                break
        self.failure = failure

    def to(self, number: int, *, active_users: int | None = None, watched: bool = False) -> None:
        """Serve version ``number``. On any failure the old version stays, ``failure`` says why, and it is raised.

        ``active_users`` bounds how many states are folded before the switch; the others are folded when touched.
        ``watched`` keeps the version before as a shadow, which ``undo`` goes back to.
        """
        with self._turn:
            try:
                shadow = self._shadow() if watched else None
                self._replace(number, active_users, shadow)
            except Exception as error:
                self.failure = f"version {number} was not loaded: {error}"
                self._metrics.failures.labels("load").inc()
                if isinstance(error, RecurraError):
                    raise
                raise VersionError(self.failure) from error
            self.failure = None
            self._metrics.version.set(number)

    def undo(self) -> str | None:
        """Go back to the version before if it has shown to be better; return why, or None if nothing was changed.

        The writer calls it. States are folded when touched, so that ingest does not wait for them.
        """
        serving, shadow = self._caches.serving, self._caches.shadow
        # a switch under way waits for the writer: the version in doubt is being replaced
        if serving is None or shadow is None or not shadow.beaten or not self._turn.acquire(blocking=False):
            return None
        number, before = serving.number, shadow.serving.number
        reason = f"version {number} was rolled back to {before}: {shadow.reason}"
        try:
            self._replace(before, 0, None)
        except VersionError as error:
            self.failure = f"{reason}; this failed: {error}"
            self._metrics.failures.labels("load").inc()
            _log.warning("%s", self.failure)
            self._caches.end_shadow()
            return None
        finally:
            self._turn.release()
        try:
            self._versions.set_current(before)
            self._versions.set_rolled_back(number, reason)
        except VersionError as error:
            self.failure = str(error)
            _log.warning("%s", error)
        self._metrics.version.set(before)
        _log.warning("%s", reason)
        return reason

    def by_hand(self, number: int) -> bool:
        """Serve a version that a person chose, also after a restart; return whether it is an older one.

        Raises ``VersionError`` if it is missing or damaged, ``InputError`` for what is no number.
        """
        check_version(number)
        kept, before = self._versions, self.serving_number
        if number not in kept.list():
            known = ", ".join(map(str, kept.list())) or "none"
            raise VersionError(f"there is no version {number} to roll back to (there: {known})")
        self.to(number)
        kept.set_current(number)
        kept.clear_rolled_back(number)
        if number < before:
            kept.set_rolled_back(before, f"version {before} was rolled back to {number} by hand")
        return number < before

    def _shadow(self) -> Shadow | None:
        old, gate = self._caches.serving, self._config.gate
        return None if old is None or not gate.shadow_events else Shadow(old.with_room_for(gate.shadow_users), gate)

    def _replace(self, number: int, active_users: int | None, shadow: Shadow | None) -> None:
        serving = self._load(number)
        learnt_seq = self._store.next_seq
        self._rebuild_error_memory(serving, learnt_seq - self._config.fast.error_events)
        self._fold_active(serving, active_users)
        self._exchange(serving, learnt_seq, shadow)

    def _load(self, number: int) -> ServedVersion:
        version = self._versions.load(number)
        model = version.model()
        serving = ServedVersion(
            number, StepWeights.of(model), version.vocabulary, lambda: self._store.items, self._config
        )
        serving.slab.check(model)
        return serving

    def _rebuild_error_memory(self, serving: ServedVersion, first: int) -> None:
        if serving.error_memory is not None and (chunks := list(self._store.log(max(0, first)))):
            serving.rebuild_error_memory(LogChunk.joined(chunks), self._store.history)

    def _fold_active(self, serving: ServedVersion, active_users: int | None) -> None:
        old = self._caches.serving
        limit = self._config.states.hot_users if active_users is None else active_users
        if old is None or limit == 0:
            return
        with self._caches.lock:
            users = old.residency.recent(limit)
        # those used last are folded last, so that they are also the last to be evicted
        pending = users[::-1]
        for _ in range(_PASSES):
            serving.encode(pending, self._store.history)
            pending = self._overtaken(serving, users)
            if not pending:
                break

    def _overtaken(self, serving: ServedVersion, users: list[int]) -> list[int]:
        return [
            user
            for user in users
            if user in serving.residency and not serving.covers(user, self._store.history(user).n)
        ]

    def _exchange(self, serving: ServedVersion, learnt_seq: int, shadow: Shadow | None) -> None:
        with self._write:
            serving.items.add(len(self._store.items))
            serving.items.update(range(len(self._store.items)))
            # what came in, and who was forgotten, while the states were folded
            self._rebuild_error_memory(serving, learnt_seq)
            for user in serving.error_memory_users():
                if self._store.users.id(user) is None:
                    serving.forget(user)
            # no event comes in between: what was overtaken since the last pass is folded when touched
            with self._caches.lock:
                self._caches.serving = serving
                self._caches.shadow = shadow
