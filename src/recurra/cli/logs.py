"""Logging of the commands: what the engine logs, where a person reads it."""

import datetime as dt
import logging
import sys

__all__ = ["Notes", "log_live", "timestamp"]

_LOGGER = logging.getLogger("recurra")


class Notes(logging.Handler):
    """Keeps warnings until a command has ended, so that a failure is said in one sentence and not in two."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._texts: dict[str, None] = {}

    @classmethod
    def install(cls) -> "Notes":
        """Take over what is logged."""
        notes = cls()
        _LOGGER.handlers = [notes]
        return notes

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message, once."""
        self._texts[record.getMessage()] = None

    def drop_what_is_in(self, message: str) -> None:
        """Forget what the message of a failure says too."""
        self._texts = {text: None for text in self._texts if text not in message and message not in text}

    def show(self) -> None:
        """Print what is left."""
        for text in self._texts:
            print(f"recurra: warning: {text}", file=sys.stderr)
        self._texts = {}


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Put the time of day in front, as the other lines of the service have it."""
        return f"{timestamp()} {record.levelname.lower()}: {super().format(record)}"


def log_live() -> None:
    """Print what is logged from now on at once, for a command that goes on for long."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line("%(message)s"))
    handler.setLevel(logging.WARNING)
    handler.addFilter(_is_ours)
    _LOGGER.handlers = [handler]


def _is_ours(record: logging.LogRecord) -> bool:
    # librdkafka repeats itself many times a second while a broker is away; the source says it once
    return "[rdkafka#" not in record.getMessage()


def timestamp() -> str:
    """Return the time of day in UTC, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
