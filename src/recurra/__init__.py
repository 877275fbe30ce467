"""recurra: a streaming, continually learning recommendation engine.

``open`` gives an embedded `Engine`, `Client` and `AsyncClient` speak to one that runs as a service. What goes in is an
`Event`, an `Item` or a `Forget`; every error is a `RecurraError` of the tree in `errors`.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not (Path(__file__).parent / "engine").is_dir():
    # git writes symbolic links as small text files where it may not make them
    raise ImportError(
        "this checkout of recurra has no symbolic links (src/recurra/engine must be a folder): clone it again with "
        "`git clone -c core.symlinks=true`, or install the package"
    )

if TYPE_CHECKING:
    from .connectors.http import AsyncClient, Client
    from .engine import errors
    from .engine.config import Config, load_config
    from .engine.engine import Engine, open
    from .engine.errors import RecurraError
    from .engine.events import Event, Forget, Item
    from .engine.recommender import Recommender
    from .engine.results import (
        Alarm,
        DriftHealth,
        Health,
        HistoryEntry,
        IngestReport,
        MixWeights,
        OutletHealth,
        Recommendation,
        Record,
        Refusal,
        RequestsHealth,
        Scores,
        SourceHealth,
        TrainingHealth,
        TrainReport,
        VersionInfo,
    )

__all__ = [
    "Alarm",
    "AsyncClient",
    "Client",
    "Config",
    "DriftHealth",
    "Engine",
    "Event",
    "Forget",
    "Health",
    "HistoryEntry",
    "IngestReport",
    "Item",
    "MixWeights",
    "OutletHealth",
    "Recommendation",
    "Recommender",
    "Record",
    "RecurraError",
    "Refusal",
    "RequestsHealth",
    "Scores",
    "SourceHealth",
    "TrainReport",
    "TrainingHealth",
    "VersionInfo",
    "errors",
    "load_config",
    "open",
]
__version__ = "0.1.0"

# loaded when first used: the command line's --help must not wait for torch
_HOMES = {
    "Alarm": ".engine.results",
    "AsyncClient": ".connectors.http.client",
    "Client": ".connectors.http.client",
    "Config": ".engine.config",
    "DriftHealth": ".engine.results",
    "Engine": ".engine.engine",
    "Event": ".engine.events",
    "Forget": ".engine.events",
    "Health": ".engine.results",
    "HistoryEntry": ".engine.results",
    "IngestReport": ".engine.results",
    "Item": ".engine.events",
    "MixWeights": ".engine.results",
    "OutletHealth": ".engine.results",
    "Recommendation": ".engine.results",
    "Recommender": ".engine.recommender",
    "Record": ".engine.results",
    "RecurraError": ".engine.errors",
    "Refusal": ".engine.results",
    "RequestsHealth": ".engine.results",
    "Scores": ".engine.results",
    "SourceHealth": ".engine.results",
    "TrainReport": ".engine.results",
    "TrainingHealth": ".engine.results",
    "VersionInfo": ".engine.results",
    "load_config": ".engine.config",
    "open": ".engine.engine",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module(".engine.errors", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
