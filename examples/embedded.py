"""Embedded engine: events in, a list out, in one Python process over one directory.

Run it: ``python examples/embedded.py``
"""

import tempfile

import recurra

CATALOGUE = [
    recurra.Item("m1", title="The Quiet Harbour", categories=("Drama",)),
    recurra.Item("m2", title="Harbour Lights", categories=("Drama",)),
    recurra.Item("m3", title="A Night in Oslo", categories=("Crime",)),
]
NOON_MS = 1_700_000_000_000


def main() -> None:
    """Apply a few events and print lists."""
    with tempfile.TemporaryDirectory() as folder, recurra.open(folder) as engine:
        engine.ingest(CATALOGUE)
        plays = [("ann", "m1"), ("ann", "m2"), ("bob", "m3"), ("cid", "m1")]
        report = engine.ingest(
            [recurra.Event(user, item, time_ms=NOON_MS + 60_000 * minute) for minute, (user, item) in enumerate(plays)]
        )
        print(f"applied {report.applied} events")

        top = engine.recommend("cid", k=2)
        print("for cid:", list(zip(top.items, top.titles, strict=True)), "answered by", top.source)

        dramas = engine.recommend("bob", where="'Drama' in categories")
        print("dramas for bob:", dramas.items)

        # the list follows the last event
        engine.ingest([recurra.Event("cid", "m2", time_ms=NOON_MS + 300_000)])
        print("for cid, after m2:", engine.recommend("cid", k=2).items)


if __name__ == "__main__":
    main()
