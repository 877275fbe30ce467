"""Lanes: threads for each kind of work, so that slow work of one kind does not hold up another."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.requests import Request

from ...engine.errors import BusyError

__all__ = ["Lane", "Lanes"]

_Result = TypeVar("_Result")


class Lane:
    """At most ``threads`` pieces of work at once; what waits for longer than ``patience_s`` is refused.

    None waits for ever. Used from one event loop.
    """

    def __init__(self, name: str, threads: int, patience_s: float | None = None) -> None:
        self._name = name
        self._patience_s = patience_s
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"recurra-http-{name}")

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """Return what ``work`` returns in a thread; raises ``BusyError`` if it is not done in time."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        if self._patience_s is None:
            return await future
        try:
            return await asyncio.wait_for(future, self._patience_s)
        except TimeoutError:
            raise self._busy() from None

    async def run_wanted(self, request: Request, work: Callable[[Callable[[], bool]], _Result]) -> _Result:
        """Do as `run`; ``work`` gets a function that says whether the client has gone, and should end then."""
        gone = threading.Event()
        future = asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(gone.is_set))
        watch = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait((future, watch), timeout=self._patience_s, return_when=asyncio.FIRST_COMPLETED)
            if not future.done():
                raise self._busy()
            return await future
        finally:
            gone.set()
            future.cancel()
            watch.cancel()

    def _busy(self) -> BusyError:
        return BusyError(f"the service has too many requests of this kind ({self._name}) at once; ask again later")


class Lanes:
    """The lanes of a service. Liveness has none: it is answered by the event loop itself."""

    def __init__(self) -> None:
        self.queries = Lane("queries", 8)
        # evaluated one at a time; the other thread answers those that are evaluated already
        self.filters = Lane("filters", 2, 5.0)
        self.writes = Lane("writes", 4)
        # bodies that are decoded to many times their size
        self.large_writes = Lane("large-writes", 1, 60.0)
        # one training at a time may be waited for; the other thread refuses further ones
        self.training = Lane("training", 2)
        self.versions = Lane("versions", 2, 60.0)
        self.digest = Lane("digest", 1)
        self.status = Lane("status", 4, 2.0)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
