"""Limits of connections: how many there are, and how long each may take to say what it wants."""

import asyncio
from typing import Any, NamedTuple, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["SCARCE", "Limits", "protocol"]

# in the state of a request: its connection is one of the reserve, which is for health only
SCARCE = "recurra_scarce"


class Limits(NamedTuple):
    """Bounds of the service."""

    # open connections; beyond, those that have asked nothing yet are closed, the oldest first
    connections: int = 512
    # further connections while all others are at work: they may ask for health only
    reserve: int = 32
    # from the connection, or the last answer, to the end of a request's headers
    headers_s: float = 10.0
    # from the headers to the end of the body
    body_s: float = 30.0
    # bodies in memory, and the wait for room among them
    bodies_bytes: int = 64 << 20
    room_s: float = 5.0
    # an answer that is not taken for so long is given up
    answer_s: float = 30.0


class _Limited(H11Protocol):
    """uvicorn's protocol, which bounds neither connections nor the time of headers."""

    limits: Limits

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._timer: asyncio.TimerHandle | None = None
        self._since_s = 0.0

    @property
    def waiting(self) -> bool:
        """Whether no request is complete in its headers, and none is being answered."""
        return self.conn.their_state is h11.IDLE

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._arm()
        if len(self.connections) > self.limits.connections:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.waiting:
            self._disarm()
        elif self._timer is None:
            self._arm()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.waiting and not self.transport.is_closing():
            self._disarm()
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def drop(self) -> None:
        """Close the connection if it still waits for a request."""
        if self.waiting:
            self.transport.abort()

    def _make_room(self) -> None:
        others = (cast(_Limited, other) for other in self.connections if other is not self)
        idle = [other for other in others if other.waiting and not other.transport.is_closing()]
        if idle:
            min(idle, key=lambda other: other._since_s).drop()
        elif len(self.connections) > self.limits.connections + self.limits.reserve:
            self.transport.abort()
        else:
            self.app_state = {**self.app_state, SCARCE: True}

    def _arm(self) -> None:
        self._since_s = self.loop.time()
        self._timer = self.loop.call_later(self.limits.headers_s, self.drop)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def protocol(limits: Limits) -> type[asyncio.Protocol]:
    """Return the protocol for uvicorn that keeps these limits."""
    return type("Limited", (_Limited,), {"limits": limits})
