"""HTTP: the service around an engine, and the clients that speak to it."""

from .client import AsyncClient, Client
from .guard import allowed_hosts
from .listener import Listener
from .server import LiveView, create_app
from .wire import DemoFigures

__all__ = ["AsyncClient", "Client", "DemoFigures", "Listener", "LiveView", "allowed_hosts", "create_app"]
