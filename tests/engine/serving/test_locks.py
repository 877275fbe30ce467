"""The fair lock excludes and does not starve."""

import threading

from recurra.engine.serving.locks import FairLock


def test_a_waiter_gets_in_between_two_slices_of_a_busy_writer() -> None:
    lock = FairLock()
    order: list[str] = []
    waiting = threading.Event()

    def reader() -> None:
        waiting.set()
        with lock:
            order.append("reader")

    thread = threading.Thread(target=reader)
    with lock:
        thread.start()
        waiting.wait()
        # the reader holds the door as soon as it waits inside; only then is the next slice behind it
        while not lock._door.locked():
            pass
    with lock:
        order.append("writer")
    thread.join()
    assert order == ["reader", "writer"]


def test_excludes() -> None:
    lock, total = FairLock(), [0]

    def work() -> None:
        for _ in range(500):
            with lock:
                seen = total[0]
                total[0] = seen + 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total[0] == 2000
