"""A real Kafka broker for tests and benchmarks: one KRaft node on free ports, without docker.

``python tests/support/broker/broker.py`` starts one, prints its address and stops it at SIGTERM or at
the end of its input.
Needs Java 17 and Maven; the jars are fetched once into a cache outside the repository.
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KAFKA_VERSION = "4.1.0"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "recurra-tests" / f"kafka-{KAFKA_VERSION}"

_HERE = Path(__file__).resolve().parent
# one tester needs neither a big heap nor the optimising compiler, but a quick start
_JAVA = ("java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{behind},SIGNED://127.0.0.1:{signed},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxied},SIGNED://127.0.0.1:{signed}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,SIGNED:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
sasl.enabled.mechanisms=PLAIN
listener.name.signed.plain.sasl.jaas.config=\
 org.apache.kafka.common.security.plain.PlainLoginModule required user_ann="secret";
log.dirs={folder}/log
auto.create.topics.enable=false
# tests write messages of years ago
log.retention.ms=-1
broker.heartbeat.interval.ms=500
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
super.users=User:nobody
"""
# no other broker could take over from one that a test has frozen: it must not be fenced soon
_SESSION_MS = 120_000
# but one that was killed may register again only when the session that it left behind is over
_SESSION_AFTER_KILL_MS = 2_000
_LOGGING = """
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %m (%c)%n
"""


class BrokerUnavailableError(Exception):
    """A broker cannot be had here; the message says why."""


class Broker:
    """One broker process. ``stop`` and ``start`` may alternate: address and data stay the same.

    A second listener, at ``behind``, advertises the port ``proxied``: clients that come by way of a proxy stay on it.
    A third, at ``signed``, wants a password: ann's is "secret". Everybody may do what no access rule is about.
    """

    def __init__(self, proxied: int | None = None) -> None:
        self._classpath = f"{_jars()}/*"
        self._folder = Path(tempfile.mkdtemp(prefix="recurra-broker-"))
        self._port, controller, behind, signed = _free_ports(4)
        self.address = f"127.0.0.1:{self._port}"
        self.behind = ("127.0.0.1", behind)
        self.signed = f"127.0.0.1:{signed}"
        self._properties = self._folder / "server.properties"
        self._properties.write_text(
            _PROPERTIES.format(
                port=self._port,
                controller=controller,
                behind=behind,
                proxied=behind if proxied is None else proxied,
                signed=signed,
                folder=self._folder,
            ),
            encoding="utf-8",
        )
        (self._folder / "log4j2.properties").write_text(_LOGGING, encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False
        self._run("kafka.tools.StorageTool", "format", "-t", "cmVjdXJyYS10ZXN0cy0xMg", "-c", str(self._properties))

    def start(self, timeout_s: float = 60) -> None:
        """Start and wait until the port answers."""
        session = _SESSION_AFTER_KILL_MS if self._killed else _SESSION_MS
        command = self._command(
            "kafka.Kafka", str(self._properties), "--override", f"broker.session.timeout.ms={session}"
        )
        with (self._folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = (self._folder / "broker.log").read_text(errors="replace")[-2000:]
                self.close()
                raise BrokerUnavailableError(f"the broker did not start:\n{tail}")
            time.sleep(0.1)

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def stop(self, *, kill: bool = False) -> None:
        """Stop it, at once with ``kill``; the data stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            self._killed = kill
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                self._killed = True
            self._process = None

    def freeze(self) -> None:
        """Let its process stand still: connections stay open and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let its process go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop it and remove its data."""
        self.stop(kill=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def _command(self, *arguments: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self._folder}/log4j2.properties"
        return [*_JAVA, logging, "-cp", self._classpath, *arguments]

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(self._command(*arguments), capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise BrokerUnavailableError(f"{arguments[0]} failed: {done.stdout[-1000:]}{done.stderr[-1000:]}")


def _jars() -> Path:
    for tool in ("java", "mvn"):
        if shutil.which(tool) is None:
            raise BrokerUnavailableError(f"{tool} is not installed")
    CACHE.mkdir(parents=True, exist_ok=True)
    complete = CACHE / "complete"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            command = ["mvn", "-q", "-B", "-f", str(_HERE / "pom.xml"), "dependency:copy-dependencies"]
            command += [f"-DoutputDirectory={CACHE}/jars", "-DincludeScope=runtime"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
            if done.returncode:
                raise BrokerUnavailableError(f"Maven could not fetch the broker: {done.stdout[-1000:]}")
            complete.touch()
    return CACHE / "jars"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def main() -> None:
    """Run a broker until standard input ends or SIGTERM comes."""
    # Ctrl-C and SIGTERM end it in the same way
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        broker = Broker()
    except BrokerUnavailableError as error:
        sys.exit(f"no broker: {error}")
    try:
        broker.start()
        print(broker.address, flush=True)
        sys.stdin.read()
    except BrokerUnavailableError as error:
        sys.exit(f"no broker: {error}")
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        broker.close()


if __name__ == "__main__":
    main()
