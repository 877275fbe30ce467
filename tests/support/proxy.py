"""A TCP proxy between a client and a server, for tests of bad connections: slow, cut, deaf, dropped when idle."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable

_LOOK_S = 0.05


class Proxy:
    """Listens on a free port of loopback and forwards bytes, unchanged, to ``target``.

    ``delay_s`` holds every piece back. ``hole`` keeps connections open but forwards nothing in either direction;
    what was sent meanwhile arrives after it. ``refuse`` resets new connections. ``idle_s`` closes a connection over
    which nothing came for so long. ``change`` is given every piece, and whether the server sent it, and returns what
    is forwarded. Set them at any time.
    """

    def __init__(self, target: tuple[str, int] | None = None) -> None:
        self.target = target
        self.delay_s = 0.0
        self.hole = self.refuse = False
        self.idle_s: float | None = None
        self.change: Callable[[bytes, bool], bytes] | None = None
        self._closed = False
        self._pairs: set[_Pair] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """HOST:PORT to connect to."""
        return f"127.0.0.1:{self.port}"

    def heal(self) -> None:
        """Forward everything again, at once."""
        self.delay_s, self.hole, self.refuse, self.idle_s, self.change = 0.0, False, False, None, None

    def cut(self) -> None:
        """Reset every open connection."""
        for pair in list(self._pairs):
            pair.reset()

    def close(self) -> None:
        """Close the port and every connection."""
        self._closed = True
        # a blocked accept does not notice that its socket is closed
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        self._thread.join(5)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._closed:
                client.close()
                return
            if self.refuse or self.target is None:
                _reset(client)
                continue
            try:
                server = socket.create_connection(self.target, 5)
            except OSError:
                _reset(client)
                continue
            pair = _Pair(self, client, server)
            self._pairs.add(pair)
            pair.start()

    def forget(self, pair: "_Pair") -> None:
        """Drop a connection that is over."""
        self._pairs.discard(pair)


class _Pair:
    """One connection: both sockets and a thread for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._ends = (client, server)
        self._heard_s = time.monotonic()
        for end in self._ends:
            end.settimeout(_LOOK_S)

    def start(self) -> None:
        for source, sink in (self._ends, self._ends[::-1]):
            threading.Thread(target=self._pump, args=(source, sink), name="proxy-pump", daemon=True).start()

    def reset(self) -> None:
        for end in self._ends:
            _reset(end)
        self._proxy.forget(self)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        proxy = self._proxy
        with contextlib.suppress(OSError):
            while True:
                try:
                    data = source.recv(1 << 16)
                except TimeoutError:
                    if proxy.idle_s is not None and time.monotonic() - self._heard_s > proxy.idle_s:
                        break
                    continue
                if not data:
                    break
                self._heard_s = time.monotonic()
                if proxy.delay_s:
                    time.sleep(proxy.delay_s)
                while proxy.hole:
                    time.sleep(_LOOK_S)
                _send(sink, data if proxy.change is None else proxy.change(data, source is self._ends[1]))
        self.reset()


def _send(sink: socket.socket, data: bytes) -> None:
    while data:
        with contextlib.suppress(TimeoutError):
            data = data[sink.send(data) :]


def _reset(end: socket.socket) -> None:
    # no time to linger: the peer gets a reset
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
