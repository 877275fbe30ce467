"""Client of a service: the verbs of the embedded engine over HTTP.

Start a service first, ``recurra run --source none``, then: ``python examples/http_client.py http://127.0.0.1:8000``
"""

import asyncio
import sys
import time

import recurra


def write_and_ask(service: recurra.Recommender) -> None:
    """Work with a service as with an embedded engine: both keep the protocol ``Recommender``."""
    now_ms = int(time.time() * 1000)
    # an id makes a repeated call safe
    events = [recurra.Event("ann", f"m{number}", now_ms + number, id=f"example-{number}") for number in range(3)]
    events.append(recurra.Event("bob", "m0", now_ms, id="example-bob"))
    print("applied", service.ingest(events).applied)
    top = service.recommend("bob", k=5)
    print("for bob:", top.items, "answered by", top.source, "version", top.version)
    print("status:", service.health().status)


async def ask_many(url: str, users: list[str]) -> None:
    """Ask for several users at the same time."""
    client = recurra.AsyncClient(url)
    try:
        answers = await asyncio.gather(*(client.recommend(user, k=3) for user in users))
    finally:
        await client.close()
    for user, answer in zip(users, answers, strict=True):
        print(f"for {user}:", answer.items)


def main() -> None:
    """Talk to the service whose address is the first argument."""
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    with recurra.Client(url) as client:
        write_and_ask(client)
    asyncio.run(ask_many(url, ["ann", "bob"]))


if __name__ == "__main__":
    main()
