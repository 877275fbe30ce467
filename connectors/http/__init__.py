"""HTTP: the service around an engine, and the clients that speak to it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .listener import Listener

if TYPE_CHECKING:
    from .client import AsyncClient, Client
    from .guard import allowed_hosts
    from .server import LiveView, create_app
    from .wire import DemoFigures

__all__ = ["AsyncClient", "Client", "DemoFigures", "Listener", "LiveView", "allowed_hosts", "create_app"]

_HOMES = {
    "AsyncClient": "client",
    "Client": "client",
    "DemoFigures": "wire",
    "LiveView": "server",
    "allowed_hosts": "guard",
    "create_app": "server",
}


def __getattr__(name: str) -> Any:
    # an address is taken, and liveness answered, before what takes seconds to import
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
