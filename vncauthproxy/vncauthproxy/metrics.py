"""What Prometheus sees of a proxy."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (1, 10, 60, 300, 900, 3600, 14400, 28800)


class Metrics:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        prefix = "vncauthproxy_"
        self.tickets = Counter(f"{prefix}tickets", "Tickets issued", registry=self._registry)
        self.refused = Counter(
            f"{prefix}refused", "Clients refused", ["kind"], registry=self._registry
        )
        self.sessions = Gauge(
            f"{prefix}sessions", "Sessions that are open", ["kind"], registry=self._registry
        )
        self.ended = Counter(
            f"{prefix}sessions_ended", "Sessions that ended", ["kind"], registry=self._registry
        )
        self.bytes = Counter(
            f"{prefix}bytes", "Bytes of ended sessions", ["direction"], registry=self._registry
        )
        self.seconds = Histogram(
            f"{prefix}session_seconds",
            "How long sessions lasted",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.connections = Gauge(
            f"{prefix}connections", "Connections that are open", registry=self._registry
        )
        self.dropped = Counter(
            f"{prefix}connections_dropped", "Connections above a limit", registry=self._registry
        )

    def render(self) -> bytes:
        return generate_latest(self._registry)
