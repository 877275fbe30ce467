"""Sections about what serves: store, states, memories, mixture, retrieval."""

import re

from ..errors import ConfigError
from .section import Section

__all__ = ["FastConfig", "MixConfig", "RetrievalConfig", "StateConfig", "StoreConfig"]


class StoreConfig(Section, frozen=True):
    """Durable truth: histories, log, ids, offsets."""

    # A: a history keeps 2 * anchor events, states restart at multiples of it
    anchor: int = 128
    # newest events of all users that the log keeps, for training and recovery
    log_events: int = 2_000_000
    # users whose histories are also held in memory
    hot_histories: int = 65_536
    # bounds of one atomic commit
    batch_events: int = 512
    batch_bytes: int = 1_000_000
    # commits reach the device at least this often
    sync_ms: int = 1_000
    # events later than the clock by more than this are refused
    future_tolerance_ms: int = 86_400_000
    # item rows kept in the seen set of a user, newest first; 0 keeps all
    seen_horizon: int = 0
    # RocksDB's block cache
    cache_bytes: int = 64 << 20
    # new events of a user gather in a small record until it holds more than this, then join the large one; a store
    # keeps the value that it was made with
    tail_events: int = 16
    # permissions that the engine's directories and files do not have, as for the shell's umask: "077" shows them to
    # nobody else, "027" to the group
    umask: str = "077"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-7]{3,4}", self.umask):
            raise ConfigError(f'store.umask must be three octal digits such as "077", got {self.umask!r}')

    @property
    def hidden_bits(self) -> int:
        """``umask`` as a number."""
        return int(self.umask, 8)


class StateConfig(Section, frozen=True):
    """The slab of per-user model states."""

    # users whose states are in memory, over the serving version and the next one together
    hot_users: int = 16_384
    # "float32", or "bfloat16" at half the memory
    dtype: str = "float32"
    # where states are kept and advanced: "cpu", or "cuda" (needs the extra gpu)
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise ConfigError(f"states.device must be cpu or cuda, got {self.device!r}")


class FastConfig(Section, frozen=True):
    """The counting memories."""

    # half-lives of decayed popularity, in events
    half_lives: tuple[float, ...] = (500.0, 5_000.0, 50_000.0)
    # neighbours kept per item, rounded up to a power of two
    neighbours: int = 512
    # pairs kept in all, of 12 bytes each, in each of three tables: co-occurrence, order, direct succession
    pair_entries: int = 16_777_216
    # slow and fast half-life of the pairs of items, in events
    pair_half_lives: tuple[float, float] = (200_000.0, 15_000.0)
    # last events of a user that a new one is paired with, and users for whom they are held in memory
    context: int = 20
    contexts: int = 65_536
    # last events before which the user's vector is kept, to be searched by; 0 keeps none
    error_events: int = 4_096
    # buckets that categories, words of titles and other attributes of items are hashed into, to find items like a
    # user's last ones; 0 counts items alone
    attributes: int = 65_536
    # a snapshot of the memories is written after so many events; a start reads the log after it
    snapshot_events: int = 200_000


class MixConfig(Section, frozen=True):
    """The mixture of slow and fast scores."""

    # the mixture learns from every event as long as that costs at most this share of a core, and from a part of them
    # beyond; the rate is that of the event times. 0: from `sample` of them, whatever that costs
    budget: float = 0.25
    # it learns at least from this share of the events
    sample: float = 0.02


class RetrievalConfig(Section, frozen=True):
    """Search of items by the user's vector."""

    # catalogues up to this size are searched exactly
    exact_items: int = 50_000
    # candidates taken from each source before mixing
    candidates: int = 200
    # share of the exact answer that a search of a larger catalogue has to find
    recall_target: float = 0.95
    # leave the items that a user had out of the user's answers, and of the negatives of the next item in training
    exclude_seen: bool = True
    # modulate the user's vector for the time of the query
    query_time: bool = True
    # a filter (`where`) waits so long for its turn, and may take so long; then the query is refused
    filter_ms: int = 2_000
