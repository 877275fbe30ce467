"""Metrics of a source, read from its health when somebody asks for them."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge

from ..engine.results import SourceHealth

__all__ = ["register_source"]


def register_source(registry: CollectorRegistry, health: Callable[[], SourceHealth]) -> None:
    """Put the metrics of the source with this ``health`` into a registry; what a kind of source lacks is 0."""
    figures: dict[str, tuple[str, Callable[[SourceHealth], float]]] = {
        "connected": ("Whether events can come in: 1 or 0.", lambda now: now.connected),
        "lag": ("Messages that wait in the source.", lambda now: sum((now.lag or {}).values())),
        "lost": ("Messages that the source had deleted and `kafka.skip_lost` gave up.", lambda now: now.lost or 0),
        "refused": ("Messages that went to the dead letters.", lambda now: now.refused or 0),
    }
    for name, (text, figure) in figures.items():
        Gauge(f"recurra_source_{name}", text, registry=registry).set_function(_reading(health, figure))


def _reading(health: Callable[[], SourceHealth], figure: Callable[[SourceHealth], float]) -> Callable[[], float]:
    return lambda: float(figure(health()))
