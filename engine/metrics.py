"""Metrics: counts and times of an engine, in one Prometheus registry per engine."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from .results import Alarm, IngestReport, MixWeights

__all__ = ["Metrics"]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """The engine's own metrics; connectors register theirs in the same ``registry``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.records = Counter(
            "recurra_records", "Records by what became of them.", ["outcome"], registry=self.registry
        )
        self.suspect_times = Counter(
            "recurra_suspect_times",
            "Events of early 1970, whose times would be of our time if they were seconds.",
            registry=self.registry,
        )
        self.commit_seconds = Histogram(
            "recurra_commit_seconds", "One micro-batch: order and commit.", buckets=_SECONDS, registry=self.registry
        )
        self.advance_seconds = Histogram(
            "recurra_advance_seconds", "One micro-batch: states and memories.", buckets=_SECONDS, registry=self.registry
        )
        self.query_seconds = Histogram(
            "recurra_query_seconds", "One recommendation.", buckets=_SECONDS, registry=self.registry
        )
        self.answers = Counter(
            "recurra_answers", "Recommendations by the source that gave them.", ["source"], registry=self.registry
        )
        self.version = Gauge("recurra_version", "Version that serves; 0 is none.", registry=self.registry)
        self.versions = Counter("recurra_versions", "Trained versions by verdict.", ["verdict"], registry=self.registry)
        self.users = Gauge("recurra_users", "Users in the store.", registry=self.registry)
        self.items = Gauge("recurra_items", "Items in the store.", registry=self.registry)
        self.hot_users = Gauge("recurra_hot_users", "Users whose state is in memory.", registry=self.registry)
        self.failures = Counter(
            "recurra_failures", "Failures that were survived, by kind.", ["kind"], registry=self.registry
        )
        self.mix_gain = Gauge(
            "recurra_mix_ndcg",
            "Decayed NDCG@10 of a part on the events learnt from.",
            ["part"],
            registry=self.registry,
        )
        self.mix_share = Gauge(
            "recurra_mix_share", "Share of the events that the mixture learns from at present.", registry=self.registry
        )

        self.drift_alarms = Counter(
            "recurra_drift_alarms", "Alarms of drift by kind.", ["kind"], registry=self.registry
        )
        self.drift_event = Gauge(
            "recurra_drift_event", "Log number of the event of the last alarm.", ["kind"], registry=self.registry
        )
        self.drift_event_time = Gauge(
            "recurra_drift_event_time_seconds", "Event time of the last alarm.", ["kind"], registry=self.registry
        )

    def observe(self, users: int, items: int, hot_users: int, mix: MixWeights, share: float) -> None:
        """Set the gauges of what the engine holds."""
        self.users.set(users)
        self.items.set(items)
        self.hot_users.set(hot_users)
        self.mix_share.set(share)
        for part, gain in mix.evidence.items():
            self.mix_gain.labels(part).set(gain)

    def alarm(self, alarm: Alarm) -> None:
        """Count an alarm of drift."""
        self.drift_alarms.labels(alarm.kind).inc()
        self.drift_event.labels(alarm.kind).set(alarm.seq)
        self.drift_event_time.labels(alarm.kind).set(alarm.time_ms / 1000)

    def count(self, report: IngestReport) -> None:
        """Count the records of one call by outcome."""
        for outcome in ("applied", "late", "duplicate", "too_late", "future", "moved", "forgotten", "items", "skipped"):
            if amount := getattr(report, outcome):
                self.records.labels(outcome).inc(amount)
