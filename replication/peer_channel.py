"""Channels to other nodes: how one is opened, with which bounds, and by which certificates.

Guarantees: every channel is a connection of its own and resolves the name of the peer anew, so a member whose address
changed behind its name is found at the next attempt; no proxy of the environment stands between nodes; certificates are
read from their files for every channel and for every handshake that the server accepts, so replacing the files is
enough. With TLS both sides show a certificate of the same authority; with a cluster secret, every call its proof.
Leaves to the caller: when to try again, and closing what it opened.
Reference: gRPC core, grpc_types.h (channel arguments).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final, NamedTuple

import grpc

from replication.peer_pems import PeerTls, check_pems, read_pems
from replication.peer_secret import ClusterSecret, Proof, unproven

MEBIBYTE: Final = 1024 * 1024


class PeerOptions(NamedTuple):
    """Bounds of the traffic between nodes. Sizes in bytes, times in seconds."""

    message_bytes_max: int = 1024 * MEBIBYTE
    """Longest gRPC message: an entry travels whole, and may hold the largest value that can be configured."""
    queue_messages_max: int = 4096
    """Messages that wait for a peer; the core's own window is smaller, so only a flood of heartbeats reaches it."""
    queue_bytes_max: int = 64 * MEBIBYTE
    """Bytes that wait for a peer, or one message that is longer."""
    request_bytes_max: int = 4 * MEBIBYTE
    """A request is closed when it is so long: a heartbeat behind it waits 4 ms at 1 GB/s."""
    snapshot_bytes_per_second: int = 100 * MEBIBYTE
    """Of all snapshots together that this node sends; 0 = no limit. Half of what a disk takes, so the log keeps up."""
    retry_seconds_min: float = 0.02
    retry_seconds_max: float = 1.0
    greeting_seconds: float = 2.0
    """For connection, handshake and greeting; a lost SYN is sent again after one second."""
    keepalive_seconds: float = 5.0
    """A connection over which a ping is not answered for so long is given up; elections do not wait for it."""
    rpcs_max: int = 256
    """Calls that the server runs at one time: four a peer, with 64 members."""


def _sizes_and_pings(options: PeerOptions) -> list[tuple[str, int]]:
    keepalive_ms = int(options.keepalive_seconds * 1000)
    return [
        ("grpc.max_receive_message_length", options.message_bytes_max),
        ("grpc.max_send_message_length", options.message_bytes_max),
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", keepalive_ms),
        # What a ping waits for its answer is this one; without it, a minute whatever the time-out above says.
        ("grpc.http2.ping_timeout_ms", keepalive_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # Twice as patient as peers ping; the default of 5 minutes would answer them with GOAWAY too_many_pings.
        ("grpc.http2.min_ping_interval_without_data_ms", keepalive_ms // 2),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", keepalive_ms // 2),
    ]


def client_arguments(options: PeerOptions) -> list[tuple[str, int]]:
    """Return the arguments of a channel to a peer."""
    return [
        *_sizes_and_pings(options),
        # Without it, channels to one address share a connection: bulk would stand in front of heartbeats.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.service_config_disable_resolution", 1),
    ]


def server_arguments(options: PeerOptions) -> list[tuple[str, int]]:
    """Return the arguments of the server; an address that is taken is refused, also by a second process of ours."""
    return [*_sizes_and_pings(options), ("grpc.so_reuseport", 0)]


def problem_of(error: Exception) -> str:
    """Return why a call failed, for people."""
    return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.aio.AioRpcError) else str(error)


class Dialer:
    """Opens channels to other nodes."""

    def __init__(
        self, options: PeerOptions, tls: PeerTls | None = None, *, name: str = "", secret: ClusterSecret | None = None
    ) -> None:
        # name: this node's.
        self.options = options
        self._tls = tls
        self._name = name
        self._secret = secret

    async def channel(self, address: str) -> grpc.aio.Channel:
        """Return a new channel to ``host:port``; it connects with its first call. Raise OSError for a PEM file."""
        arguments = client_arguments(self.options)
        if self._tls is None:
            return grpc.aio.insecure_channel(address, options=arguments)
        key, certificate, authority = await asyncio.to_thread(read_pems, self._tls)
        credentials = grpc.ssl_channel_credentials(authority, key, certificate)
        return grpc.aio.secure_channel(address, credentials, options=arguments)

    async def proof(self, channel: grpc.aio.Channel) -> Proof:
        """Return what the next call on a channel carries to show who makes it. Raise AioRpcError, SecretUnknown."""
        if self._secret is None:
            return unproven(self._name)
        return await self._secret.prove(channel, self._name, self.options.greeting_seconds)


def server_credentials(tls: PeerTls) -> grpc.ServerCredentials:
    """Return credentials that ask every client for a certificate. Blocks on files; raise OSError if one is no use.

    The files are read again at each handshake, in gRPC's threads; files that cannot be read then leave the last ones
    in force.
    """
    check_pems(tls)
    last = _certificate_configuration(tls)

    def newest() -> grpc.ServerCertificateConfiguration:
        nonlocal last
        with suppress(OSError):
            last = _certificate_configuration(tls)
        return last

    return grpc.dynamic_ssl_server_credentials(last, newest, require_client_authentication=True)


def _certificate_configuration(tls: PeerTls) -> grpc.ServerCertificateConfiguration:
    key, certificate, authority = read_pems(tls)
    return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)
