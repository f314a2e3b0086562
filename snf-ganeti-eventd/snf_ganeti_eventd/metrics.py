"""Figures for Prometheus, on loopback."""

import logging

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from snf_ganeti_eventd.settings import MetricsSettings

log = logging.getLogger(__name__)

_PREFIX = "snf_ganeti_eventd_"


class Metrics:
    """Every figure of the daemon; it lives as long as the process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.published = self._count("published", "Messages handed to the transport")
        self.confirmed = self._count("confirmed", "Messages that the transport confirmed")
        self.unconfirmed = self._count("unconfirmed", "Messages not confirmed, to be sent again")
        self.unroutable = self._count("unroutable", "Messages returned, since nobody takes them")
        self.redacted = self._count("redacted", "Values of operations that were held back")
        self.unreadable = self._count("unreadable", "Files in the queue that are no job")
        self.lost = self._count("lost", "Jobs that were removed before they were published")
        self.invalid = self._count("invalid", "Messages that break their schema")
        self.undetailed = self._count("undetailed", "Events without details: LUXI did not answer")
        self.rescans = Counter(
            f"{_PREFIX}rescans", "Looks at the whole queue", ["reason"], registry=self.registry
        )
        self.pending = self._gauge("pending", "Jobs that wait")
        self.parked = self._gauge("parked", "Jobs, among these, whose messages nobody takes")
        self.oldest = self._gauge("oldest_pending_seconds", "Age of the job that waits longest")
        self.connected = self._gauge("connected", "1 while the transport is open")
        self.master = self._gauge("master", "1 while this node is the master")

    def _count(self, name: str, text: str) -> Counter:
        return Counter(_PREFIX + name, text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(_PREFIX + name, text, registry=self.registry)

    def serve(self, settings: MetricsSettings) -> None:
        """Answer on loopback, in a thread; without the port, the daemon goes on all the same."""
        if not settings.port:
            return
        try:
            start_http_server(settings.port, settings.address, self.registry)
        except OSError as error:
            where = f"{settings.address}:{settings.port}"
            log.warning("metrics: %s can't be used: %s", where, error.strerror)
