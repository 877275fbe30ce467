"""What a service compiles, or loads from its cache of compiled code, before it says that it is ready."""

import logging
import shutil
from pathlib import Path

import msgspec

from .config import Config
from .engine import open
from .errors import RecurraError, VersionError
from .events import Event, Item
from .versions import VersionStore

__all__ = ["warm_up"]


_LOG = logging.getLogger(__name__)


def warm_up(data: Path, config: Config) -> None:
    """Take events into a small engine inside ``data`` that is thrown away, and ask it, with the version that serves.

    The first event and the first query of the service then wait for no compiler: without a cache of compiled code that
    is a minute or two. On a disk without room they do wait.
    """
    folder = data / ".warm"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        _borrow(data / "models", folder / "models")
        with open(folder, _small(config)) as engine:
            engine.ingest([Item("x", title="of a kind", categories=("kind",))])
            for items in ("xy", "yz"):
                engine.ingest([Event(user, item, 1_000) for user, item in zip("ab", items, strict=True)])
            engine.recommend("a", k=1)
            engine.recommend("stranger", k=1)
            engine.similar("x", k=1)
    except (OSError, RecurraError) as error:
        _LOG.warning("the first events and queries may be slow: %s", error)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _small(config: Config) -> Config:
    replace = msgspec.structs.replace
    return replace(
        config,
        store=replace(config.store, hot_histories=64),
        training=replace(config.training, mode="off"),
        states=replace(config.states, hot_users=64),
        fast=replace(config.fast, pair_entries=4_096, contexts=config.store.batch_events),
        mix=replace(config.mix, budget=0.0, sample=1.0),
    )


def _borrow(models: Path, target: Path) -> None:
    store = VersionStore(models)
    try:
        version = store.load(store.current())
    except VersionError:
        # whatever is wrong with it: the engine says so
        return
    facts = version.facts
    VersionStore(target).publish(
        version.model(),
        version.vocabulary,
        parent=0,
        cutoff_seq=0,
        store_id=facts.store_id,
        report=lambda _: facts.report,
        guard=lambda: None,
    )
