"""What /metrics says of gRPC calls."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from kvservice.api.metrics import CallMetrics
from redan.kv.v1 import kv_pb2
from tests.kvservice.api.local_node import failure_of, serving


async def test_calls_are_shown_by_method_and_code_with_their_durations() -> None:
    async with serving() as (node, client):
        for number in range(3):
            await client.kv.Set(kv_pb2.SetRequest(key=b"k", value=b"%d" % number))
        await failure_of(client.kv.Set(kv_pb2.SetRequest(database=99)))
        stream = client.kv.Pipeline()
        await stream.write(kv_pb2.PipelineRequest())
        await stream.read()
        registry = CollectorRegistry()
        registry.register(CallMetrics(node.api.gate))

        def sample(name: str, **labels: str) -> float | None:
            return registry.get_sample_value(f"redan_grpc_{name}", labels)

        kv = "redan.kv.v1.KVService"
        assert sample("calls_total", method=f"{kv}/Set", code="OK") == 3
        assert sample("calls_total", method=f"{kv}/Set", code="INVALID_ARGUMENT") == 1
        assert sample("call_duration_seconds_count", method=f"{kv}/Set") == 4
        assert (sample("call_duration_seconds_sum", method=f"{kv}/Set") or 0) > 0
        assert sample("calls_running", method=f"{kv}/Pipeline") == 1
        assert sample("request_bytes") == 0
        assert sample("calls_total", method=f"{kv}/Get", code="OK") is None
        stream.cancel()
