"""The planes beside RESP: client gRPC and admin HTTP, started and stopped together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvservice.server import Server


class Planes:
    """gRPC and admin HTTP of one node."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def start(self) -> None:
        """Bind both; raises OSError if an address cannot be had."""

    async def stop(self) -> None:
        """Finish what runs and close both."""
