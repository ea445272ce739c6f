"""What the daemon counts, under the names that /metrics shows. One registry per daemon, so that tests can have many."""

from __future__ import annotations

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """See the module."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        self.sessions = Counter("tssd_sessions", "Sessions ended", ["type", "outcome"], registry=r)
        self.session_seconds = Histogram(
            "tssd_session_seconds",
            "Sessions, from the request to their end",
            ["type"],
            buckets=_SECONDS,
            registry=r,
        )
        self.round_seconds = Histogram(
            "tssd_round_seconds", "One protocol round", ["type"], buckets=_SECONDS, registry=r
        )
        self.running = Gauge("tssd_sessions_running", "Sessions under way", ["type"], registry=r)
        self.waiting = Gauge("tssd_sessions_waiting", "Sessions under way by what they wait for", ["on"], registry=r)
        self.since_progress = Gauge("tssd_seconds_since_progress", "Since any session made progress", registry=r)
        self.refused = Counter("tssd_requests_refused", "Requests not admitted", ["reason"], registry=r)
        self.unexpecting = Counter(
            "tssd_requests_without_expectations", "Admitted although they expect nothing", registry=r
        )
        self.inbox_drops = Counter("tssd_router_frames_dropped", "Router frames that did not read", registry=r)
        self.inbox = Gauge("tssd_router_inbox_frames", "Router frames that wait for their session", registry=r)
        self.channel_drops = Counter("tssd_channel_drops", "Frames the sealed channel dropped", registry=r)
        self.custodian_calls = Counter(
            "tssd_custodian_calls", "Calls across the wall", ["request", "outcome"], registry=r
        )
        self.custodian_seconds = Histogram(
            "tssd_custodian_seconds", "Calls across the wall", ["request"], buckets=_SECONDS, registry=r
        )
        self.custodian_restarts = Gauge("tssd_custodian_restarts", "Custodian processes after the first", registry=r)
        self.custodian_ready = Gauge("tssd_custodian_ready", "1 if shares can be opened now", registry=r)
        self.hsm_operations = Gauge("tssd_hsm_operations", "HSM calls of this custodian", registry=r)
        self.hsm_errors = Gauge("tssd_hsm_errors", "HSM calls of this custodian that failed", registry=r)
        self.arena_used = Gauge("tssd_arena_used_bytes", "Locked memory in use", registry=r)
        self.arena_size = Gauge("tssd_arena_size_bytes", "Locked memory", registry=r)
        self.outbox = Gauge("tssd_outbox_waiting", "Reports and events that have not left", ["kind"], registry=r)
        self.outbox_age = Gauge("tssd_outbox_age_seconds", "Age of the oldest of them", ["kind"], registry=r)
        self.prepared = Gauge("tssd_prepared_sets", "Pre-parameter sets that are ready", ["protocol"], registry=r)
        self.shares = Gauge("tssd_shares", "Shares by status", ["status"], registry=r)
        self.resealing = Gauge("tssd_shares_to_reseal", "Shares under an older version of the KEK", registry=r)
        self.router_reconnects = Counter("tssd_router_reconnects", "Router connections replaced", registry=r)

        self._calls = cache(self.custodian_calls.labels)
        self._call_seconds = cache(self.custodian_seconds.labels)

    def observe_call(self, request: str, outcome: str, seconds: float) -> None:
        """One call across the wall, as `open_custodian` reports it. Often: labels are looked up once."""
        self._calls(request, outcome).inc()
        self._call_seconds(request).observe(seconds)
