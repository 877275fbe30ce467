"""Kinds of settings that several sections have: types with their bounds, which are checked and documented from here.

Where nothing gives way at a size, the bound is what no machine holds: beyond it lie arrays that cannot be allocated,
rows beyond int32, and waits and sums beyond int64.
"""

from typing import Annotated

from msgspec import Meta

__all__ = [
    "MAX_TIME_MS",
    "MOST_BYTES",
    "Chance",
    "Count",
    "CountOrNone",
    "HalfLife",
    "LearningRate",
    "PartialShare",
    "Rows",
    "Seconds",
    "Seed",
    "Share",
    "Threads",
    "Topic",
    "Users",
    "Width",
]

# the year 5138: below 2**47, so that a time always fits the six bytes that the store gives it
MAX_TIME_MS = 100_000_000_000_000
# the most that one table in memory may be laid out for: 4 TiB
MOST_BYTES = 1 << 42

# events or tokens of a stream
Count = Annotated[int, Meta(ge=1, le=10**12)]
CountOrNone = Annotated[int, Meta(ge=0, le=10**12)]
# items, which have int32 rows
Rows = Annotated[int, Meta(ge=0, le=2**31 - 1)]
# users that are held in memory
Users = Annotated[int, Meta(ge=1, le=100_000_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
PartialShare = Annotated[float, Meta(ge=0, lt=1)]
Chance = Annotated[float, Meta(gt=0, lt=1)]
LearningRate = Annotated[float, Meta(gt=0, le=1)]
# in events
HalfLife = Annotated[float, Meta(ge=1, le=10**12)]
# threads can wait for 292 years, not longer
Seconds = Annotated[float, Meta(ge=0, le=10**9)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Threads = Annotated[int, Meta(ge=1, le=1_024)]
Width = Annotated[int, Meta(ge=1, le=8_192)]
# what Kafka takes as a name
Topic = Annotated[
    str,
    Meta(
        pattern=r"^(?!\.{1,2}\Z)[a-zA-Z0-9._-]{1,249}\Z",
        description="a topic's name: up to 249 letters, digits, dots, underscores and hyphens",
    ),
]
