"""HTTP: the service around an engine, and the clients that speak to it."""

from .client import AsyncClient, Client
from .listener import Listener
from .server import LiveView, create_app
from .wire import DemoFigures

__all__ = ["AsyncClient", "Client", "DemoFigures", "Listener", "LiveView", "create_app"]
