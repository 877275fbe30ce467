"""Outlets beside a source: what they survive."""

import threading
import time
from collections.abc import Mapping

from recurra.connectors.kafka.outlets import RecommendationOutlet
from recurra.engine.results import IngestReport, Recommendation


class Sink:
    """A producer that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[bytes | None] = []

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes] | None = None
    ) -> None:
        self.sent.append(key)

    def flush(self, timeout_s: float) -> None: ...

    def close(self) -> None: ...


class Answers:
    """An engine with one answer."""

    def recommend(self, user: str, k: int = 10, *, where: str | None = None) -> Recommendation:
        return Recommendation(["m1"], [1.0], 0, "memory")


def test_reports_without_users_do_not_end_the_outlet() -> None:
    sink, stopped = Sink(), threading.Event()
    outlet = RecommendationOutlet(Answers(), sink, "lists", 1)
    thread = threading.Thread(target=outlet.run, args=(stopped,))
    thread.start()
    for _ in range(20):
        # catalogue records, repeats and refused events change no history
        outlet.changed(IngestReport(items=1))
        time.sleep(0.01)
    outlet.changed(IngestReport(applied=1, users=["ann"]))
    deadline = time.monotonic() + 10
    while not sink.sent and time.monotonic() < deadline:
        time.sleep(0.01)
    assert thread.is_alive()
    assert sink.sent == [b"ann"]
    stopped.set()
    thread.join(10)
    assert not thread.is_alive()


class OneFails(Answers):
    """An engine that has no answer for one user."""

    def recommend(self, user: str, k: int = 10, *, where: str | None = None) -> Recommendation:
        if user == "ben":
            raise ArithmeticError("no list for ben")
        return super().recommend(user, k, where=where)


def test_a_user_without_an_answer_keeps_nobody_elses_back() -> None:
    sink, stopped = Sink(), threading.Event()
    outlet = RecommendationOutlet(OneFails(), sink, "lists", 1)
    # all wait before the first is answered
    outlet.changed(IngestReport(applied=3, users=["ann", "ben", "cem"]))
    thread = threading.Thread(target=outlet.run, args=(stopped,))
    thread.start()
    deadline = time.monotonic() + 10
    while outlet.sent < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    stopped.set()
    thread.join(10)
    assert sink.sent == [b"ann", b"cem"]
    assert outlet.sent == 2
    assert "no list for ben" in str(outlet.problem)
