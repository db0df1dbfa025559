"""Accepts RESP connections: the limit of clients, keep-alive, idle time.

Guarantees: at most ``maxclients`` sessions, or as many as the limit of open files allows; one more is told so in
Redis's words and closed.
Leaves to the caller: everything after the accept (gateway/connection).
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from kvservice.gateway.connection import Connection
from kvservice.gateway.limits import Limits
from kvservice.gateway.open_files import clients_within_open_files
from kvservice.gateway.outbox import Outbox
from kvservice.logs import Event, Log
from kvservice.service import Service

BACKLOG: Final = 4096
"""Connections that the kernel may hold for us; asyncio's 100 drops connections when thousands arrive at once."""
TOO_MANY: Final = b"-ERR max number of clients reached\r\n"

log = Log("gateway")


class Refusal(asyncio.Protocol):
    """A connection over the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say why, and close."""
        transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        transport.write(TOO_MANY)
        transport.close()


class Listener:
    """The RESP port."""

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self._service = service
        self._loop = loop
        self._server: asyncio.Server | None = None
        self._limits = Limits()
        self._outbox = Outbox(loop.call_soon)
        # An entry or a round is answered in one go: its replies need not wait for what else the turn brings.
        service.runner.on_answered = self._outbox.flush
        service.on_config_changed.append(self._config_changed)
        self._config_changed(frozenset())

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port. Raises OSError if the address cannot be had."""
        self._server = await self._loop.create_server(self._accept, host, port, backlog=BACKLOG)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Accept no more; sessions stay."""
        if self._server is not None:
            self._server.close()

    @property
    def is_sending(self) -> bool:
        """Whether a connection that was closed has replies that have not left yet."""
        return any(session.is_closed for session in self._service.sessions.values() if isinstance(session, Connection))

    def close_idle(self, now_s: float) -> None:
        """Close sessions that have been silent for longer than ``timeout`` seconds; call about once a second."""
        timeout_s = self._service.config.timeout
        if timeout_s:
            for session in list(self._service.sessions.values()):
                if (
                    isinstance(session, Connection)
                    and now_s - session.last_active_s > timeout_s
                    and not session.pending
                ):
                    session.close(after_replies=False)

    def _accept(self) -> asyncio.Protocol:
        service = self._service
        if len(service.sessions) >= self._clients_max:
            service.stats.rejected_connections += 1
            return Refusal()
        return Connection(service, self._limits, self._loop, self._outbox)

    def _config_changed(self, _fields: frozenset[str]) -> None:
        config = self._service.config
        self._limits.bulk_bytes_max = config.value_bytes_max
        self._limits.query_buffer_bytes_max = config.query_buffer_bytes_max
        self._clients_max = clients_within_open_files(config.maxclients)
        if self._clients_max < config.maxclients:
            log.warning(Event.CLIENTS_LIMITED, maxclients=config.maxclients, allowed_by_open_files=self._clients_max)
