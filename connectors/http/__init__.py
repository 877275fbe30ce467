"""HTTP: the service around an engine, and the clients that speak to it."""

from .client import AsyncClient, Client
from .listener import Listener
from .server import LiveView, create_app

__all__ = ["AsyncClient", "Client", "Listener", "LiveView", "create_app"]
