"""The strict parser of client bytes, in plain Python: what it answers is by definition right.

It reads what Redis's ``processMultibulkBuffer`` and ``processInlineBuffer`` read, with the same error texts, and keeps
the one command that is not complete yet. The fast parser (gateway/parser) takes this one whenever bytes are not plain.

Guarantees: any bytes in any cut give the same commands and the same fault; no other exception; work is linear in the
bytes fed, whatever their cut; memory is bounded by ``Limits``; a length is judged before anything is buffered for it.
Leaves to the caller: to stop after a fault (commands before it are good, the connection is closed after their replies).
States: between commands (``_missing == 0``) → header read (``_missing`` arguments to come) → bulk length read
(``_bulk_bytes >= 0``) → argument complete → … → between commands.
Departures from Redis: at most 1,048,576 arguments; a NUL in an inline command or a header is a fault, not a wait for
64 KiB more; a line over 64 KiB is a fault even when it came in one piece; a TLS hello gets an answer that says so.
Reference: redis/src/networking.c, redis/src/sds.c (sdssplitargs).
"""

from __future__ import annotations

import re
from typing import Final

from kvservice.gateway.limits import (
    ARGUMENT_OVERHEAD_BYTES,
    INLINE_BYTES_MAX,
    MULTIBULK_LENGTH_MAX,
    UNAUTHENTICATED_ARGUMENTS_MAX,
    UNAUTHENTICATED_BULK_BYTES_MAX,
    Limits,
)

_MULTIBULK: Final = ord("*")
_TLS_HELLO: Final = b"\x16\x03"
_CREDENTIALS: Final = frozenset({b"auth", b"hello"})
_CROSS_PROTOCOL: Final = frozenset({b"post", b"host:"})
"""First words of HTTP lines: a browser made to post here must not have its body run as commands."""

_INTEGER: Final = re.compile(rb"(?:0|-?[1-9][0-9]{0,18})\Z")
_INT64_MAX: Final = (1 << 63) - 1
_IGNORED: Final = re.compile(rb"(?:\*(?:0|-[1-9][0-9]{0,17})\r\n|\r?\n)+")
"""What holds no command; a flood of it is skipped at once."""
_QUOTED: Final = re.compile(rb"[\"'\x0b\x0c]")
_ESCAPED: Final = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPES: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}
_TOKEN_PART: Final = re.compile(
    rb"""(?P<plain>[^ \n\r\t"']+)|"(?P<double>(?:\\.|[^"\\])*)"(?P<after>.?)"""
    rb"""|'(?P<single>(?:[^'\\]|\\'|\\(?!'))*)'(?P<behind>.?)""",
    re.DOTALL,
)
_SPACE: Final = b" \t\n\v\f\r"

_SHORT_BYTES: Final = 4096
"""Up to here a second copy costs less than a memoryview."""


class ProtocolError(Exception):
    """The stream cannot be read further; ``text`` is the answer, "" to close without one."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)


def parse_integer(text: bytes) -> int | None:
    """Read a canonical int64 as Redis's string2ll does; None when it is not one."""
    if _INTEGER.match(text) is None:
        return None
    value = int(text)
    return value if -_INT64_MAX - 1 <= value <= _INT64_MAX else None


class Walker:
    """One stream of client bytes; ``feed`` then ``next_command`` until it answers None."""

    __slots__ = ("_args", "_args_bytes", "_at", "_buffer", "_bulk_bytes", "_limits", "_missing", "_scanned", "_trusted")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._at = 0
        """Where the unread part of the buffer starts."""
        self._scanned = 0
        """Up to here (absolute) no line end was found: bytes that trickle in are searched once."""
        self._args: list[bytes] = []
        self._args_bytes = 0
        self._missing = 0
        """Arguments that the command under way still lacks; 0 between commands."""
        self._bulk_bytes = -1
        """Length of the argument under way, -1 before its header."""
        self._trusted = True

    @property
    def held_bytes(self) -> int:
        """Bytes held for the command under way."""
        return len(self._buffer) - self._at + self._args_bytes

    @property
    def missing_bytes(self) -> int:
        """Bytes that the argument under way lacks, its line end included; 0 where no length was read."""
        return max(0, self._at + self._bulk_bytes + 2 - len(self._buffer)) if self._bulk_bytes >= 0 else 0

    @property
    def is_between_commands(self) -> bool:
        """Whether nothing is held: the next byte starts a command."""
        return not self._missing and self._at == len(self._buffer)

    def feed(self, chunk: bytes, authenticated: bool = True) -> None:
        """Take received bytes; raises ProtocolError when the command under way is too large for a stranger.

        An AUTH or HELLO lifts the strangers' bounds for the rest of its chunk only, because clients pipeline behind it
        and it is judged after the chunk was read.
        """
        del self._buffer[: self._at]
        self._scanned -= self._at
        self._at = 0
        self._buffer += chunk
        self._trusted = authenticated
        if not authenticated:
            if len(self._args) + self._missing > UNAUTHENTICATED_ARGUMENTS_MAX:
                raise ProtocolError("Protocol error: unauthenticated multibulk length")
            if self._bulk_bytes > UNAUTHENTICATED_BULK_BYTES_MAX:
                raise ProtocolError("Protocol error: unauthenticated bulk length")

    def take_rest(self) -> bytes:
        """Give back the bytes behind the last command; only between commands."""
        rest = bytes(self._buffer[self._at :])
        self._buffer.clear()
        self._at = self._scanned = 0
        return rest

    def next_command(self) -> list[bytes] | None:
        """Return the next complete command, [] for one that Redis ignores, None when more bytes are needed.

        Raises ProtocolError.
        """
        if not self._missing:
            if ignored := _IGNORED.match(self._buffer, self._at):
                self._at = ignored.end()
            if self._at == len(self._buffer):
                return None
            if self._buffer[self._at] != _MULTIBULK:
                return self._read_inline()
            count = self._read_multibulk_length()
            if count is None:
                return None
            if count <= 0:
                return []
            self._missing = count
        while self._missing:
            if not self._read_argument():
                return None
        command, self._args, self._args_bytes = self._args, [], 0
        self._note_credentials(command)
        return command

    def _read_header(self, what: str) -> bytes | None:
        """Return the line at the read position without its end, or None while it is incomplete.

        As in Redis a line ends at CR and the byte behind it is skipped unseen.
        """
        end = self._buffer.find(b"\r", max(self._scanned, self._at))
        if (len(self._buffer) if end < 0 else end) - self._at > INLINE_BYTES_MAX:
            raise ProtocolError(f"Protocol error: too big {what} count string")
        if end < 0 or end + 1 == len(self._buffer):
            self._scanned = len(self._buffer) if end < 0 else end
            return None
        line = bytes(self._buffer[self._at : end])
        self._at = end + 2
        return line

    def _read_multibulk_length(self) -> int | None:
        line = self._read_header("mbulk")
        if line is None:
            return None
        count = parse_integer(line[1:])
        if count is None or count > MULTIBULK_LENGTH_MAX:
            raise ProtocolError("Protocol error: invalid multibulk length")
        if count > UNAUTHENTICATED_ARGUMENTS_MAX and not self._trusted:
            raise ProtocolError("Protocol error: unauthenticated multibulk length")
        return count

    def _read_argument(self) -> bool:
        """Move one argument to the command; False while it is incomplete."""
        if self._bulk_bytes < 0:
            line = self._read_header("bulk")
            if line is None:
                return False
            self._bulk_bytes = self._judge_bulk_length(line)
        start, end = self._at, self._at + self._bulk_bytes
        if len(self._buffer) < end + 2:
            return False
        if self._bulk_bytes <= _SHORT_BYTES:
            self._args.append(bytes(self._buffer[start:end]))
        else:
            with memoryview(self._buffer) as view:
                self._args.append(bytes(view[start:end]))
        self._args_bytes += self._bulk_bytes + ARGUMENT_OVERHEAD_BYTES
        self._at = end + 2
        self._bulk_bytes = -1
        self._missing -= 1
        return True

    def _judge_bulk_length(self, line: bytes) -> int:
        if line[:1] != b"$":
            got = line[:1].strip(b"\0\n").decode("latin-1") or " "
            raise ProtocolError(f"Protocol error: expected '$', got '{got}'")
        length = parse_integer(line[1:])
        if length is None or not 0 <= length <= self._limits.bulk_bytes_max:
            raise ProtocolError("Protocol error: invalid bulk length")
        if length > UNAUTHENTICATED_BULK_BYTES_MAX and not self._trusted:
            raise ProtocolError("Protocol error: unauthenticated bulk length")
        if self._args_bytes + length > self._limits.query_buffer_bytes_max:
            raise ProtocolError("")
        return length

    def _read_inline(self) -> list[bytes] | None:
        buffer, start = self._buffer, self._at
        if buffer.startswith(_TLS_HELLO, start):
            raise ProtocolError("Protocol error: this port does not speak TLS")
        searched = max(self._scanned, start)
        newline = buffer.find(b"\n", searched)
        end = len(buffer) if newline < 0 else newline
        if end - start > INLINE_BYTES_MAX:
            raise ProtocolError("Protocol error: too big inline request")
        if buffer.find(b"\0", searched, end) >= 0:
            raise ProtocolError("Protocol error: NUL in inline request")
        if newline < 0:
            self._scanned = end
            return None
        self._at = newline + 1
        command = split_inline(bytes(buffer[start:newline].removesuffix(b"\r")))
        if command is None:
            raise ProtocolError("Protocol error: unbalanced quotes in request")
        if command and command[0].lower() in _CROSS_PROTOCOL:
            raise ProtocolError("")
        self._note_credentials(command)
        return command

    def _note_credentials(self, command: list[bytes]) -> None:
        if not self._trusted and command and command[0].lower() in _CREDENTIALS:
            self._trusted = True


def split_inline(line: bytes) -> list[bytes] | None:
    r"""Split an inline command into words as sdssplitargs does; None when its quotes are unbalanced.

    Words may hold parts in double quotes (escapes \n \r \t \b \a \xHH) and in single quotes (escape \'); a closing
    quote must end its word.
    """
    if _QUOTED.search(line) is None:
        return line.split()
    words: list[bytes] = []
    at, length = 0, len(line)
    while True:
        while at < length and line[at] in _SPACE:
            at += 1
        if at == length:
            return words
        word = b""
        while at < length and line[at] not in b" \n\r\t":
            part = _TOKEN_PART.match(line, at)
            if part is None:
                return None
            at = part.end()
            if part["plain"] is not None:
                word += part["plain"]
                continue
            quoted, behind = part["double"], part["after"]
            if quoted is not None:
                word += _ESCAPED.sub(_unescape, quoted)
            else:
                word += part["single"].replace(b"\\'", b"'")
                behind = part["behind"]
            if behind and behind not in _SPACE:
                return None
            break
        words.append(word)


def _unescape(escape: re.Match[bytes]) -> bytes:
    digits, character = escape.groups()
    return bytes.fromhex(digits.decode()) if digits else _ESCAPES.get(character, character)
