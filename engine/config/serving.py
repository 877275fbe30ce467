"""Sections about what serves: store, states, memories, mixture, retrieval."""

from typing import Annotated, Literal

from msgspec import Meta

from ..errors import ConfigError, shown
from .kinds import MAX_TIME_MS, MOST_BYTES, Count, HalfLife, Rows, Share, Users
from .section import Section

__all__ = ["FastConfig", "MixConfig", "RetrievalConfig", "StateConfig", "StoreConfig"]

# what a shell takes as well; the owner's own permissions are the first digit
_Umask = Annotated[
    str, Meta(pattern=r"^0?0[0-7]{2}\Z", description='three octal digits such as "077", the first of them 0')
]
_EVENT_BYTES = 26
_ENTRY_BYTES = 12


class StoreConfig(Section, frozen=True):
    """Durable truth: histories, log, ids, offsets."""

    section = "store"

    # A: a history keeps 2 * anchor events, states restart at multiples of it
    anchor: Annotated[int, Meta(ge=1, le=16_384)] = 128
    # newest events of all users that the log keeps, for training and recovery
    log_events: Count = 2_000_000
    # users whose histories are also held in memory
    hot_histories: Users = 65_536
    # bounds of one atomic commit
    batch_events: Annotated[int, Meta(ge=1, le=65_536)] = 512
    batch_bytes: Annotated[int, Meta(ge=1, le=2**30)] = 1_000_000
    # commits reach the device at least this often
    sync_ms: Annotated[int, Meta(ge=0, le=10**12)] = 1_000
    # events later than the clock by more than this are refused
    future_tolerance_ms: Annotated[int, Meta(ge=0, le=MAX_TIME_MS)] = 86_400_000
    # item rows kept in the seen set of a user, newest first; 0 keeps all
    seen_horizon: Rows = 0
    # RocksDB's block cache
    cache_bytes: Annotated[int, Meta(ge=65_536, le=MOST_BYTES)] = 64 << 20
    # new events of a user gather in a small record until it holds more than this, then join the large one; a store
    # keeps the value that it was made with
    tail_events: Annotated[int, Meta(ge=0, le=16_384)] = 16
    # permissions that the engine's directories and files do not have, as for the shell's umask: "077" shows them to
    # nobody else, "027" to the group
    umask: _Umask = "077"

    def __post_init__(self) -> None:
        super().__post_init__()
        users, events = max(self.hot_histories, self.batch_events), 2 * self.anchor + self.tail_events
        if users * events * _EVENT_BYTES > MOST_BYTES:
            raise ConfigError(
                f"store.hot_histories of {users:_} users with 2 * store.anchor + store.tail_events = {events:_} events "
                f"each would be laid out for more than {MOST_BYTES >> 40} TiB"
            )

    @property
    def hidden_bits(self) -> int:
        """``umask`` as a number."""
        return int(self.umask, 8)


class StateConfig(Section, frozen=True):
    """The slab of per-user model states."""

    section = "states"

    # users whose states are in memory, over the serving version and the next one together
    hot_users: Annotated[int, Meta(ge=2, le=100_000_000)] = 16_384
    # "float32", or "bfloat16" at half the memory
    dtype: Literal["float32", "bfloat16"] = "float32"
    # where states are kept and advanced: "cpu", or "cuda" (needs the extra gpu)
    device: Literal["cpu", "cuda"] = "cpu"


class FastConfig(Section, frozen=True):
    """The counting memories."""

    section = "fast"

    # half-lives of decayed popularity, in events
    half_lives: Annotated[tuple[HalfLife, ...], Meta(min_length=1, max_length=64)] = (500.0, 5_000.0, 50_000.0)
    # neighbours kept per item, rounded up to a power of two
    neighbours: Annotated[int, Meta(ge=1, le=65_536)] = 512
    # pairs kept in all, of 12 bytes each, in each of three tables: co-occurrence, order, direct succession
    pair_entries: Annotated[int, Meta(ge=4, le=2**31 - 1)] = 16_777_216
    # slow and fast half-life of the pairs of items, in events
    pair_half_lives: tuple[HalfLife, HalfLife] = (200_000.0, 15_000.0)
    # last events of a user that a new one is paired with, and users for whom they are held in memory
    context: Annotated[int, Meta(ge=1, le=32_768)] = 20
    contexts: Users = 65_536
    # last events before which the user's vector is kept, to be searched by; 0 keeps none
    error_events: Annotated[int, Meta(ge=0, le=2**24)] = 4_096
    # buckets that categories, words of titles and other attributes of items are hashed into, to find items like a
    # user's last ones; 0 counts items alone
    attributes: Annotated[int, Meta(ge=0, le=2**24)] = 65_536
    # a snapshot of the memories is written after so many events; a start reads the log after it
    snapshot_events: Count = 200_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if len({f"{half_life:g}" for half_life in self.half_lives}) < len(self.half_lives):
            raise ConfigError(
                f"fast.half_lives must differ in their first six digits, got {shown(list(self.half_lives))}"
            )
        if self.contexts * self.context * _ENTRY_BYTES > MOST_BYTES:
            raise ConfigError(
                f"fast.contexts of {self.contexts:_} users with fast.context = {self.context:_} events each "
                f"would be laid out for more than {MOST_BYTES >> 40} TiB"
            )


class MixConfig(Section, frozen=True):
    """The mixture of slow and fast scores."""

    section = "mix"

    # the mixture learns from every event as long as that costs at most this share of a core, and from a part of them
    # beyond; the rate is that of the event times. 0: from `sample` of them, whatever that costs
    budget: Annotated[float, Meta(ge=0, le=1_024)] = 0.25
    # it learns at least from this share of the events
    sample: Share = 0.02


class RetrievalConfig(Section, frozen=True):
    """Search of items by the user's vector."""

    section = "retrieval"

    # catalogues up to this size are searched exactly
    exact_items: Rows = 50_000
    # candidates taken from each source before mixing
    candidates: Annotated[int, Meta(ge=1, le=100_000)] = 200
    # share of the exact answer that a search of a larger catalogue has to find
    recall_target: Share = 0.95
    # leave the items that a user had out of the user's answers, and of the negatives of the next item in training
    exclude_seen: bool = True
    # modulate the user's vector for the time of the query
    query_time: bool = True
    # a filter (`where`) waits so long for its turn, and may take so long; then the query is refused
    filter_ms: Annotated[int, Meta(ge=1, le=86_400_000)] = 2_000
