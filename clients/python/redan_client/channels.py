"""How connections to nodes are made.

Guarantees: no proxy of the environment stands between; a node that comes back is reached within a second; a connection
that is silently gone is noticed within 15 seconds, and a call before that by its own time limit.
Leaves to the caller: closing.
Reference: gRPC core, grpc_types.h (channel arguments).
"""

from __future__ import annotations

from typing import Final

MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
"""The server's own bound, by default; gRPC's of 4 MiB is too small for values of 16 MiB."""


def channel_options() -> list[tuple[str, int]]:
    """Return the options of a channel."""
    return [
        ("grpc.enable_http_proxy", 0),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ]


def credentials_of(password: str | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata that prove the password. Raise ValueError, without it, for one that gRPC cannot carry."""
    if password and not (password.isascii() and password.isprintable()):
        raise ValueError("the password has characters that gRPC cannot carry: it takes printable ASCII")
    return (("authorization", f"Bearer {password}"),) if password else ()
