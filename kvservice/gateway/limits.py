"""Bounds on what one connection may make the parser hold.

Guarantees: with these bounds a connection holds at most one unfinished command: ``query_buffer_bytes_max`` of arguments
(each counted with ``ARGUMENT_OVERHEAD_BYTES``) plus one header line of ``INLINE_BYTES_MAX``.
Leaves to the caller: the key-size limit (service), ``maxclients``, idle time and output buffers (connection).
Reference: redis/src/networking.c and server.h (PROTO_INLINE_MAX_SIZE, proto-max-bulk-len, client-query-buffer-limit).
"""

from __future__ import annotations

from typing import Final

INLINE_BYTES_MAX: Final = 64 * 1024
"""Longest inline command and longest header line; Redis's PROTO_INLINE_MAX_SIZE."""

MULTIBULK_LENGTH_MAX: Final = 1024 * 1024
"""Most arguments of a command; Redis before 7.0 had the same bound, 7.0 has 2^31 - 1, which is no bound."""

UNAUTHENTICATED_ARGUMENTS_MAX: Final = 10
UNAUTHENTICATED_BULK_BYTES_MAX: Final = 16_384
"""What a connection may send before it has authenticated; Redis's figures."""

BULK_BYTES_FLOOR: Final = 1024
"""``bulk_bytes_max`` is never below this, so that shorter chunks need no check of their arguments."""

ARGUMENT_OVERHEAD_BYTES: Final = 48
"""What a short ``bytes`` costs beside its text: 33 bytes of object, rounded up by the allocator, and a list slot."""

HELD_PER_RECEIVED_MAX: Final = 9
"""Held bytes for one received: an empty argument, six bytes on the wire, counts 48."""


class Limits:
    """The configurable bounds; one object is shared by all connections, so that CONFIG SET acts at once."""

    __slots__ = ("bulk_bytes_max", "query_buffer_bytes_max")

    def __init__(
        self, bulk_bytes_max: int = 16 * 1024 * 1024, query_buffer_bytes_max: int = 1024 * 1024 * 1024
    ) -> None:
        """Keep both bounds, in bytes; raises ValueError for a bulk bound under ``BULK_BYTES_FLOOR``."""
        if bulk_bytes_max < BULK_BYTES_FLOOR:
            raise ValueError(f"bulk_bytes_max is {bulk_bytes_max}, the least is {BULK_BYTES_FLOOR}")
        self.bulk_bytes_max = bulk_bytes_max
        self.query_buffer_bytes_max = query_buffer_bytes_max
