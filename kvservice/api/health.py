"""Health checks as gRPC clients know them: is a service worth calling, and is this node the leader.

Layout: `""`, `readiness` and `redan.kv.v1.KVService` serve while the node is ready for clients; `leader` while it is
ready and leads, so that a stock client with round_robin and a health check for `leader` follows the leader by itself;
`liveness` and `redan.cluster.v1.ClusterService` serve as long as the event loop turns.

Guarantees: ``Check`` tells the state of this moment, ``Watch`` tells a change within ``POLL_SECONDS``. A watcher that
does not read delays nobody.
Leaves to the caller: what ready means.
Reference: grpc.health.v1.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from kvservice.health import NodeHealth as NodeHealth

POLL_SECONDS: Final = 0.1
ALWAYS: Final = ("liveness", "redan.cluster.v1.ClusterService")
WHEN_READY: Final = ("", "readiness", "redan.kv.v1.KVService")
WHEN_LEADING: Final = ("leader",)

Watching = grpc.aio.ServicerContext[Any, Any]


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # the library has no types
    """The standard health service. grpcio's own holds a lock while it writes to a watcher, so one could stop all."""

    def __init__(self, health: NodeHealth, is_leader: Callable[[], bool]) -> None:
        self._health = health
        self._is_leader = is_leader
        self._is_stopping = False

    def stop(self) -> None:
        """Say of everything that it does not serve, and end the watches."""
        self._is_stopping = True

    def status_of(self, service: str) -> int | None:
        """Return the status of a service now, None if there is none of that name."""
        if service in ALWAYS:
            serving = True
        elif service in WHEN_READY:
            serving = not self._health.reasons_not_ready()
        elif service in WHEN_LEADING:
            serving = not self._health.reasons_not_ready() and self._is_leader()
        else:
            return None
        statuses = health_pb2.HealthCheckResponse
        return int(statuses.SERVING if serving and not self._is_stopping else statuses.NOT_SERVING)

    async def Check(self, request: Any, context: Watching) -> Any:  # noqa: N802 - the name of the call
        """Tell the status of one service."""
        status = self.status_of(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: Any, context: Watching) -> AsyncIterator[Any]:  # noqa: N802 - the name of the call
        """Tell the status of one service, and each change of it."""
        last: int | None = None
        while True:
            is_last = self._is_stopping
            status = self.status_of(request.service)
            if status is None:
                status = int(health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            if status != last:
                yield health_pb2.HealthCheckResponse(status=status)
                last = status
            if is_last:
                return
            await asyncio.sleep(POLL_SECONDS)
