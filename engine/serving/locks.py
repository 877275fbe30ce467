"""A lock that hands itself over in turn."""

import threading

__all__ = ["FairLock"]


class FairLock:
    """Mutual exclusion without starvation.

    ``threading.Lock`` lets a thread that releases it take it again at once, so a writer that works in slices could
    keep readers out for good. Here the one that waits holds the door, and the next queues behind it. Not re-entrant.
    """

    def __init__(self) -> None:
        self._door = threading.Lock()
        self._inner = threading.Lock()

    def __enter__(self) -> None:
        with self._door:
            self._inner.acquire()

    def __exit__(self, *_: object) -> None:
        self._inner.release()
