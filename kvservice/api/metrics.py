"""What /metrics says of gRPC calls.

Guarantees: counting costs a call nothing beyond plain integers (kvservice.api.calls); a method that was never called
has no lines.
Leaves to the caller: rendering and serving (kvservice.admin).
Reference: Prometheus naming practice; grpc.StatusCode for the values of the label ``code``.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from kvservice.api.calls import Gate
from kvservice.metrics import cumulated


class CallMetrics(Collector):
    """Calls by method and code, their durations, and what is in memory of them."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        calls = CounterMetricFamily(
            "redan_grpc_calls", "Calls that ended; a client that went away is CANCELLED.", labels=["method", "code"]
        )
        running = GaugeMetricFamily("redan_grpc_calls_running", "Calls that have not ended.", labels=["method"])
        durations = HistogramMetricFamily(
            "redan_grpc_call_duration_seconds",
            "Time from the arrival of a unary call to its end, the wait for the log included.",
            labels=["method"],
        )
        for name, stats in sorted(self._gate.methods.items()):
            for code, count in sorted(stats.by_code.items()):
                calls.add_metric([name, code], count)
            if stats.running or stats.by_code:
                running.add_metric([name], stats.running)
            if any(stats.buckets):
                durations.add_metric([name], cumulated(stats.buckets), stats.nanoseconds / 1e9)
        yield calls
        yield running
        yield durations
        held = GaugeMetricFamily("redan_grpc_request_bytes", "Bytes of requests that have not been answered.")
        held.add_metric([], self._gate.request_bytes)
        yield held
