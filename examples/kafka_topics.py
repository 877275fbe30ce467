"""Service on Kafka: events go to one topic, each user's new list comes back on another.

Run it with a broker, such as that of ``docker compose up kafka``: ``python examples/kafka_topics.py 127.0.0.1:9094``
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

CONFIG = """
[kafka]
output_topic = "{lists}"
output_k = 3
"""
PLAYS = [("ann", "m1"), ("ann", "m2"), ("bob", "m3"), ("cid", "m1")]


def write_plays(broker: str, topic: str) -> None:
    """Write events, keyed by user, so that each user's events stay in order."""
    producer = ck.Producer({"bootstrap.servers": broker})
    now_ms = int(time.time() * 1000)
    for second, (user, item) in enumerate(PLAYS):
        event = {"user": user, "item": item, "time": now_ms + 1_000 * second}
        producer.produce(topic, json.dumps(event).encode(), user.encode())
    producer.flush(30)


def print_lists(broker: str, topic: str, users: set[str], patience_s: float = 120) -> None:
    """Print lists from the output topic until there was one for every user."""
    consumer = ck.Consumer({"bootstrap.servers": broker, "group.id": "example", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    deadline = time.monotonic() + patience_s
    try:
        while users and time.monotonic() < deadline:
            message = consumer.poll(1.0)
            if message is None or message.error() is not None:
                continue
            answer = json.loads(message.value() or b"{}")
            print(f"for {answer['user']}: {answer['items']}")
            users.discard(answer["user"])
    finally:
        consumer.close()
    if users:
        raise SystemExit(f"no list came for {', '.join(sorted(users))}")


def main() -> None:
    """Run a service over two topics for a moment."""
    broker = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9094"
    suffix = f"{time.time_ns():x}"
    plays, lists = f"plays-{suffix}", f"lists-{suffix}"
    admin = AdminClient({"bootstrap.servers": broker})
    for future in admin.create_topics([NewTopic(plays, 2, 1), NewTopic(lists, 1, 1)]).values():
        future.result(30)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "recurra.toml"
        config.write_text(CONFIG.format(lists=lists))
        command = [sys.executable, "-m", "recurra.cli", "run", "--config", str(config), "--data", f"{folder}/data"]
        service = subprocess.Popen([*command, "--source", f"kafka://{broker}/{plays}", "--api", "off"])
        try:
            write_plays(broker, plays)
            print_lists(broker, lists, {user for user, _ in PLAYS})
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait(30)


if __name__ == "__main__":
    main()
