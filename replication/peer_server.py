"""The gRPC server of the peer plane, for other nodes only.

Guarantees: an address that is taken is an OSError before anything is served, also when the process that has it is one
of ours. With TLS every caller has to show a certificate of the nodes' authority. Calls at one time, sizes of messages
and pings are bounded (`PeerOptions`).
Leaves to the caller: what is answered (replication/peer_servicer); start it before the directory is looked at: nodes
that start together ask each other who they are.
Reference: gRPC core, grpc_types.h (channel arguments).
"""

from __future__ import annotations

import asyncio
from typing import Final

import grpc

from replication.peer_channel import PeerOptions, server_arguments, server_credentials
from replication.peer_pems import PeerTls
from replication.peer_servicer import PeerServicer

STOP_SECONDS: Final = 0.5
"""What calls get to end by themselves; streams are told first."""


class PeerServer:
    """The server of one node."""

    def __init__(self, address: str, servicer: PeerServicer, options: PeerOptions, tls: PeerTls | None = None) -> None:
        # address: host:port; port 0 lets the system choose.
        self.address = address
        """Where it listens; the port is the true one once it has started."""
        self._servicer = servicer
        self._options = options
        self._tls = tls
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Bind and serve. Raise OSError when the address cannot be had, or a certificate cannot be read."""
        options = self._options
        credentials = await asyncio.to_thread(server_credentials, self._tls) if self._tls is not None else None
        server = grpc.aio.server(options=server_arguments(options), maximum_concurrent_rpcs=options.rpcs_max)
        server.add_generic_rpc_handlers((self._servicer.handler(),))
        try:
            if credentials is None:
                port = server.add_insecure_port(self.address)
            else:
                port = server.add_secure_port(self.address, credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self.address} for other nodes: {error}") from error
        await server.start()
        self._server = server
        self.address = f"{self.address.rpartition(':')[0]}:{port}"

    async def stop(self) -> None:
        """End every call and close; may be called twice, and without a start."""
        server, self._server = self._server, None
        if server is not None:
            self._servicer.stop()
            await server.stop(STOP_SECONDS)
