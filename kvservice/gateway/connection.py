"""One RESP connection: bytes in, commands to the service, replies out.

States: open → closing (an answer is still on its way out; input is ignored) → closed.

Guarantees: replies leave in the order of the commands; a client that does not read is not read from either, and what
is kept for it is bounded by ``output_buffer_bytes_max`` plus one slice of replies; replies not yet encoded refer to
the keyspace's own values and cost nothing.
Leaves to the caller: which commands exist and what they do (service), accepting connections (gateway/listener).
Bounds: ``PENDING_MAX`` submissions wait for a commit and ``BACKLOG_MAX`` slices are held before reading pauses; a slice
is 16 KiB, or the rest of one argument, and one read of 256 KiB (uvloop's size) waits beside them.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import Final, cast

from kvservice.commands.reply import PushReply, Reply
from kvservice.gateway.limits import Limits
from kvservice.gateway.outbox import Outbox
from kvservice.gateway.parser import Parser
from kvservice.gateway.resp import encode_resp2, encode_resp3
from kvservice.protected_mode import DENIED, denies
from kvservice.service import Service
from kvservice.session import Session

PENDING_MAX: Final = 64
BACKLOG_MAX: Final = 16
READ_SLICE_BYTES: Final = 16 * 1024
"""What of one connection is parsed and run in one turn of the event loop, as in Redis: some ms of small commands.
uvloop brings up to 32 times 256 KiB in one turn: with one client flooding, a PING of another took 2.5 s, now 4 ms."""
SLICE_BYTES: Final = 256 * 1024
"""Replies are encoded in slices of about this size."""
OUT_BYTES_MAX: Final = 64 * 1024
"""More than this waits for nothing."""
SLICE_REPLIES_MAX: Final = 1024
WRITE_BUFFER_BYTES: Final = 1024 * 1024
"""Encoded replies beyond this wait as values: four slices keep a fast reader busy, and a thousand deaf clients cost
1 GiB at the most."""


class Connection(Session, asyncio.Protocol):
    """A client connected to the RESP plane."""

    def __init__(self, service: Service, limits: Limits, loop: asyncio.AbstractEventLoop, outbox: Outbox) -> None:
        super().__init__(service.next_session_id(), "", "", loop.time())
        self.authenticated = not service.config.requirepass
        self._service = service
        self._loop = loop
        self._parser = Parser(limits)
        self._transport: asyncio.Transport | None = None
        self._unread = memoryview(b"")
        """Received bytes that later turns parse; reading is paused while there are any."""
        self._is_slice_due = False
        self._waiting: deque[Reply] = deque()
        """Replies not yet encoded, because the client does not read."""
        self._outbox = outbox
        self._out: list[bytes] = []
        """Encoded replies that leave with their batch, or at the end of the turn."""
        self._out_bytes = 0
        self._slice = 4
        """How many replies are encoded together; adapted so that a slice is about SLICE_BYTES."""
        self._is_write_paused = False
        self._is_read_paused = False
        self._is_closing = False
        self._failure = b""
        """Error line of a broken protocol, sent last."""

    # -- asyncio ------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register with the service."""
        transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._transport = transport
        self.address = _spelled(transport.get_extra_info("peername"))
        self.local_address = _spelled(transport.get_extra_info("sockname"))
        if denies(self._service.config, self.address):
            self._deny(transport)
            return
        self._service.stats.connections_received += 1
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None:
            self.fd = sock.fileno()
        keep_alive(sock, self._service.config.tcp_keepalive)
        transport.set_write_buffer_limits(high=min(WRITE_BUFFER_BYTES, self._service.config.output_buffer_bytes_max))
        self._service.sessions[self.id] = self

    def _deny(self, transport: asyncio.Transport) -> None:
        """Say why this caller is not served, and close; it never becomes a session."""
        self._service.stats.rejected_connections += 1
        self._is_closing = self.is_closed = True
        transport.write(f"-{DENIED}\r\n".encode())
        transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the session."""
        self.is_closed = True
        self._transport = None
        self.backlog.clear()
        self._waiting.clear()
        self._out.clear()
        self._unread = memoryview(b"")
        self._service.sessions.pop(self.id, None)

    def data_received(self, data: bytes) -> None:
        """Parse a chunk and submit its commands; hot."""
        if self._is_closing:
            return
        service = self._service
        stats = service.stats
        size = len(data)
        self.bytes_in += size
        stats.net_input_bytes += size
        stats.reads += 1
        self.last_active_s = self._loop.time()
        if size > READ_SLICE_BYTES:
            self._unread = memoryview(data)
            self._pause_reading()
            self._read_slice()
        else:
            self._read(data)

    def _read(self, data: bytes) -> None:
        """Parse bytes and submit their commands; hot."""
        parsed = self._parser.feed(data, self.authenticated)
        if parsed.commands:
            self._service.submit(self, parsed.commands, parsed.raw, parsed.are_alike)
        if parsed.error is not None:
            self._fail(parsed.error)
        elif self.pending > PENDING_MAX or len(self.backlog) > BACKLOG_MAX:
            self._pause_reading()

    def _read_slice(self) -> None:
        """Read what one turn may take of the bytes received; an argument under way is taken whole, that is cheap."""
        self._is_slice_due = False
        if self._is_closing or self.is_closed:
            self._unread = memoryview(b"")
            return
        length = max(READ_SLICE_BYTES, self._parser.missing_bytes)
        data, self._unread = bytes(self._unread[:length]), self._unread[length:]
        self._read(data)
        self._resume_reading()

    def eof_received(self) -> bool:
        """Close when the client has closed its side, once what it asked before is answered: ``echo SET a b | nc``."""
        self._is_closing = True
        self._end_if_answered()
        return not self.is_closed

    def pause_writing(self) -> None:
        """Stop encoding and reading: the client does not read."""
        self._is_write_paused = True
        self._pause_reading()

    def resume_writing(self) -> None:
        """Go on with the replies that wait."""
        self._is_write_paused = False
        self._send_waiting()
        if self._is_closing:
            self._end_if_answered()
        else:
            self._resume_reading()

    # -- session ------------------------------------------------------------------------------------------------------

    @property
    def query_buffer_bytes(self) -> int:
        """Bytes received and not yet parsed into commands."""
        return self._parser.partial_bytes + len(self._unread)

    @property
    def output_buffer_bytes(self) -> int:
        """Bytes of replies not yet handed to the kernel."""
        return self._out_bytes + (self._transport.get_write_buffer_size() if self._transport is not None else 0)

    def deliver(self, replies: list[Reply]) -> None:
        """Send replies; hot."""
        if self.is_closed:
            return
        if self.reply_mode != "on":
            replies = self._kept(replies)
        if len(replies) > self._slice or self._is_write_paused:
            self._waiting.extend(replies)
            if not self._is_write_paused:
                self._send_waiting()
        elif replies:
            self._write(replies)
        if self._is_closing:
            self._end_if_answered()
        elif self._is_read_paused:
            self._resume_reading()

    def close(self, after_replies: bool = True) -> None:
        """End the connection, after what was delivered has left if ``after_replies``."""
        self._is_closing = True
        self.backlog.clear()
        if not after_replies and self._transport is not None:
            self.is_closed = True
            self._transport.abort()
        else:
            self._end_if_answered()

    # -- details ------------------------------------------------------------------------------------------------------

    def _write(self, replies: list[Reply]) -> None:
        assert self._transport is not None
        encoded = encode_resp2(replies) if self.protocol == 2 else encode_resp3(replies)
        size = len(encoded)
        if size > SLICE_BYTES:
            self._slice = max(1, SLICE_BYTES * len(replies) // size)
        elif len(replies) >= self._slice < SLICE_REPLIES_MAX:
            self._slice *= 2
        self.bytes_out += size
        self._service.stats.net_output_bytes += size
        self._service.stats.writes += 1
        if not self._out:
            self._outbox.add(self)
        self._out.append(encoded)
        self._out_bytes += size
        if self._out_bytes > OUT_BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Hand the encoded replies to the transport."""
        out = self._out
        if out and self._transport is not None:
            encoded = out[0] if len(out) == 1 else b"".join(out)
            self._out = []
            self._out_bytes = 0
            self._transport.write(encoded)

    def _send_waiting(self) -> None:
        waiting = self._waiting
        while waiting and not self._is_write_paused and self._transport is not None:
            count = min(self._slice, len(waiting))
            self._write([waiting.popleft() for _ in range(count)])

    def _kept(self, replies: list[Reply]) -> list[Reply]:
        """Drop what CLIENT REPLY has switched off; pushes always go."""
        kept: list[Reply] = []
        for reply in replies:
            mode = self.reply_mode
            if isinstance(reply, PushReply) or mode == "on":
                kept.append(reply)
            elif mode == "skip-next":
                self.reply_mode = "skip"
            elif mode == "skip":
                self.reply_mode = "on"
        return kept

    def _fail(self, text: str) -> None:
        """Answer a protocol error behind everything else, then close."""
        self._failure = b"-ERR " + text.encode("latin-1") + b"\r\n" if text else b""
        self._is_closing = True
        self._pause_reading()
        self._end_if_answered()

    def _end_if_answered(self) -> None:
        """Close a connection that is closing once nothing is left to answer."""
        if self.pending or self.held or self.backlog or self._waiting or self.is_closed or self._transport is None:
            return
        self.flush()
        if self._failure:
            self._transport.write(self._failure)
        self.is_closed = True
        self._transport.close()

    def _pause_reading(self) -> None:
        if not self._is_read_paused and self._transport is not None:
            self._is_read_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if (
            self._is_read_paused
            and not self._is_write_paused
            and not self._is_closing
            and self.pending <= PENDING_MAX // 2
            and len(self.backlog) <= BACKLOG_MAX // 2
            and self._transport is not None
            and not self._transport.is_closing()
        ):
            if not self._unread:
                self._is_read_paused = False
                self._transport.resume_reading()
            elif not self._is_slice_due:
                self._is_slice_due = True
                self._loop.call_soon(self._read_slice)


def keep_alive(sock: socket.socket | None, seconds: int) -> None:
    """Let the kernel probe a silent peer after ``seconds``, as Redis does; 0 = off."""
    if seconds and sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 3))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def _spelled(address: object) -> str:
    """Return a socket address as Redis shows it."""
    if isinstance(address, tuple) and len(address) >= 2:
        host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        return f"{host}:{address[1]}"
    return str(address or "")
