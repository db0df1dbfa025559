"""The planes beside RESP: client gRPC and admin HTTP, started and stopped together.

Guarantees: both answer from the start, also while the node loads: probes and metrics with the truth, gRPC with LOADING.
"""

from __future__ import annotations

from kvservice.admin import AdminPlane
from kvservice.api.metrics import CallMetrics
from kvservice.api.server import ApiServer
from kvservice.cluster.members import Members
from kvservice.config_values import HostPort
from kvservice.health import NodeHealth
from kvservice.loop_lag import LoopLag
from kvservice.metrics import add_log_metrics, node_registry
from kvservice.service import Service
from persistence.wal import WalStats


class Planes:
    """gRPC and admin HTTP of one node."""

    def __init__(self, service: Service, health: NodeHealth, members: Members, lag: LoopLag) -> None:
        self._service = service
        self._registry = node_registry(service, lag)
        self._admin = AdminPlane(service.config.admin_addr, self._registry, health)
        self._api = ApiServer(service, health, members)
        self._registry.register(CallMetrics(self._api.gate))

    async def start(self) -> None:
        """Bind both; raises OSError if an address cannot be had."""
        await self._admin.start()
        await self._api.start()

    @property
    def grpc_address(self) -> HostPort:
        """Where gRPC clients reach this node; the port is the true one once it has started."""
        return self._api.address

    def log_opened(self, wal_stats: WalStats) -> None:
        """Let metrics show log and consensus, which exist now."""
        add_log_metrics(self._registry, self._service, wal_stats)

    async def stop_api(self) -> None:
        """Finish gRPC calls that run, and close."""
        await self._api.stop()

    async def stop_admin(self) -> None:
        """Close the probes, last of all."""
        await self._admin.stop()
