"""Errors that recurra raises on purpose, in one tree.

```
RecurraError
├── InputError (ValueError)
│   ├── BadEventError
│   ├── UnknownUserError (LookupError)
│   ├── UnknownItemError (LookupError)
│   └── ConfigError
├── StoreError
│   ├── StoreInUseError
│   ├── StoreFormatError
│   ├── StoreFencedError
│   ├── StoreFullError
│   └── StoreCorruptError
├── SourceError
│   ├── BrokerError
│   ├── SourceBehindError
│   └── SourceMismatchError
├── VersionError
├── TrainingError
│   └── TrainingBusyError
├── ServiceError
├── BusyError
└── ClosedError
```

Every message says what was expected, what was given and, where there is something to do, what to do.
"""

import errno

__all__ = [
    "BadEventError",
    "BrokerError",
    "BusyError",
    "ClosedError",
    "ConfigError",
    "InputError",
    "RecurraError",
    "ServiceError",
    "SourceBehindError",
    "SourceError",
    "SourceMismatchError",
    "StoreCorruptError",
    "StoreError",
    "StoreFencedError",
    "StoreFormatError",
    "StoreFullError",
    "StoreInUseError",
    "TrainingBusyError",
    "TrainingError",
    "UnknownItemError",
    "UnknownUserError",
    "VersionError",
    "shown",
]


class RecurraError(Exception):
    """Base of every error that recurra raises on purpose."""


class InputError(RecurraError, ValueError):
    """An argument or a piece of input is not acceptable."""


class BadEventError(InputError):
    """A message could not be decoded as an event, an item or a forget request."""


class UnknownUserError(InputError, LookupError):
    """No event of this user was ever applied, or the user was forgotten."""


class UnknownItemError(InputError, LookupError):
    """No event and no catalogue record of this item was ever applied."""


class ConfigError(InputError):
    """The configuration file or a flag is not acceptable."""


class StoreError(RecurraError):
    """The store could not be read or written."""

    @staticmethod
    def of_file(error: OSError, doing: str) -> "StoreError":
        """Return the error for a file that the system refused: `StoreFullError` where there is no room."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return StoreFullError(f"{doing}: {error.strerror}; free some space, nothing was applied")
        return StoreError(f"{doing}: {error.strerror}")


class StoreInUseError(StoreError):
    """Another process holds the store for writing."""


class StoreFormatError(StoreError):
    """The store was written in a format that this release does not read."""


class StoreFencedError(StoreError):
    """A newer owner opened the store; this one may not write any more."""


class StoreFullError(StoreError):
    """The device under the store is full; nothing of the batch at hand was applied."""


class StoreCorruptError(StoreError):
    """A record failed its check and was not used."""


class SourceError(RecurraError):
    """A source of events could not be read."""


class BrokerError(SourceError):
    """The Kafka broker could not be reached or refused the request."""


class SourceBehindError(SourceError):
    """The source no longer holds the events after the stored offset."""


class SourceMismatchError(SourceError):
    """The source is not the one that the stored offset belongs to."""


class VersionError(RecurraError):
    """A model version is missing, incomplete or fails its checks."""


class TrainingError(RecurraError):
    """The training program failed; the serving version stays."""


class TrainingBusyError(TrainingError):
    """A training is under way; there is one at a time."""


class ServiceError(RecurraError):
    """The HTTP service could not be reached, or answered with something that is not its own."""


class BusyError(RecurraError):
    """There is more to do than can be done at once, or the request took more than its share; ask again later."""


class ClosedError(RecurraError):
    """The object was used after it was closed."""


def shown(value: object) -> str:
    """Return a value for a message, cut short; Python refuses to write integers of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    try:
        return f"{value!r:.40}"
    except (ValueError, RecursionError):
        # it holds such an integer, or is nested deeper than Python goes
        return f"a {type(value).__name__} that cannot be shown"
