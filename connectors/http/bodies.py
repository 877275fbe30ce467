"""Bodies of requests, bounded in size, in time and in how many are in memory at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from ...engine.errors import BusyError, InputError
from .limits import Limits

__all__ = ["MAX_BODY_BYTES", "Bodies", "SlowBodyError", "TooLargeError"]

MAX_BODY_BYTES = 8 << 20
# smaller bodies need no room of their own: the number of connections bounds them
_SMALL_BYTES = 64 << 10


class TooLargeError(InputError):
    """The request's body is larger than the service accepts."""


class SlowBodyError(InputError):
    """The request's body did not come in time."""


class Bodies:
    """Reads bodies; used from one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held_bytes = 0
        self._freed = asyncio.Condition()

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """Read a body, which counts among those in memory until the block ends.

        Raises ``TooLargeError``, ``SlowBodyError``, and ``BusyError`` where there is no room for a large one.
        """
        declared = request.headers.get("content-length", "")
        expected = int(declared) if declared.isdecimal() else MAX_BODY_BYTES
        if expected > MAX_BODY_BYTES:
            raise _too_large()
        held = 0
        try:
            if expected > _SMALL_BYTES:
                held = await self._room(expected)
            yield await self._whole(request)
        finally:
            if held:
                self._held_bytes -= held
                async with self._freed:
                    self._freed.notify_all()

    async def _room(self, wanted_bytes: int) -> int:
        def fits() -> bool:
            return self._held_bytes + wanted_bytes <= self._limits.bodies_bytes

        try:
            async with asyncio.timeout(self._limits.room_s), self._freed:
                await self._freed.wait_for(fits)
                self._held_bytes += wanted_bytes
        except TimeoutError:
            raise BusyError("too many large requests at once; send smaller ones, or ask again later") from None
        return wanted_bytes

    async def _whole(self, request: Request) -> bytes:
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.body_s):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > MAX_BODY_BYTES:
                        raise _too_large()
                    chunks.append(chunk)
        except TimeoutError:
            raise SlowBodyError(f"the request's body did not come within {self._limits.body_s:g} s") from None
        return b"".join(chunks)


def _too_large() -> TooLargeError:
    return TooLargeError(f"the request's body is larger than {MAX_BODY_BYTES} bytes; send it in parts")
