"""Client bytes to commands, fast: C where the bytes are plain, the strict walker for everything else.

Five readers stand before the walker, and each takes only what it can prove to read as the walker would.

a. One short command: cut at every CRLF, take every second piece as an argument and compare every header with the one
   that the argument's length demands. All headers equal means that the chunk is the canonical encoding of the command.
b. Many commands, none of the bytes that mark RESP3 types anywhere: hiredis reads them. A secret integer is fed behind
   the chunk; only between commands does it come back alone and last. Every item must be a non-empty list of bytes.
   The bytes ``( + = % > | ~`` are excluded because hiredis also reads these types as bytes or lists, and because it
   skips the two bytes behind a bulk string unseen, so no pattern of line starts would find them.
c. Many commands, one of those bytes in a value or the last command cut, that differ in arguments of fixed lengths only:
   cut at fixed places (keyspace/uniform). What is left goes to the walker.
d. The same, but unlike one another: hiredis reads the complete ones, and encoding them again must give the beginning of
   the chunk.
e. Inline commands without quotes, odd blanks, NUL, HTTP's words or the first byte of a TLS hello, and no multibulk
   among them: lines, split at blanks.

Guarantees: the same answer as ``Walker`` for any bytes in any cut; memory as the walker bounds it, because headers
that claim more than the chunk can hold never reach hiredis, which allocates what they claim, nested ones again;
``raw`` holds exactly ``commands`` for ``decode_commands``, so that it may be stored in the log as it is (in case b the
two bytes behind an argument may be other than CRLF: nobody looks at them).
Leaves to the caller: to run the commands, then send ``error``, then close and feed no more.
Cost (CPython 3.11, 2-core cloud machine; ns a command): a single GET 950, SET 1,150; GET at pipeline 64 310, SET of
64-byte values at pipeline 16 520 and with a ``=`` in each value 280, or 860 where their lengths differ; hiredis alone
takes 160 to 220 of that.
Reference: redis/src/networking.c; hiredis/read.c.
"""

from __future__ import annotations

import re
import secrets
from itertools import chain
from typing import Final

import hiredis

from kvservice.commands.table import Args
from kvservice.gateway.limits import (
    BULK_BYTES_FLOOR,
    HELD_PER_RECEIVED_MAX,
    INLINE_BYTES_MAX,
    MULTIBULK_LENGTH_MAX,
    Limits,
)
from kvservice.gateway.resp import encode_commands
from kvservice.gateway.walker import ProtocolError, Walker
from kvservice.keyspace.uniform import read_uniform

_MULTIBULK: Final = ord("*")
_LINE_FEED: Final = ord("\n")
_PERCENT, _PARENTHESIS, _PLUS, _EQUALS, _GREATER, _BAR, _TILDE = b"%(+=>|~"
"""As integers: ``37 in chunk`` is one memchr of 15 ns, ``b"%" in chunk`` takes 210 ns."""

_LARGE_HEADER: Final = re.compile(rb"\*([0-9]{3,8})")
_ARGUMENT_BYTES_MIN: Final = 6
_CUT_ARGUMENTS_MAX: Final = 100_000
"""What headers may claim beyond what the chunk can hold, for a last command that is cut."""
_NUL, _DOUBLE_QUOTE, _SINGLE_QUOTE, _VERTICAL_TAB, _FORM_FEED, _TLS = b"\0\"'\v\f\x16"
_SECRET: Final = (1 << 61) | secrets.randbits(61)
_END_MARK: Final = b":%d\r\n" % _SECRET
"""Secret, or a client could send the mark itself, and half a command behind it."""

_PIECES_MAX: Final = 46
"""Case a costs 700 ns and 140 ns an argument, case b 3,400 ns and 40 ns: a is faster up to 22, an MSET of ten."""

_BULK_HEADS: Final = tuple(b"$%d" % length for length in range(BULK_BYTES_FLOOR + 1))
_MULTIBULK_HEADS: Final = tuple(b"*%d" % count for count in range(_PIECES_MAX // 2))


_idle_readers: Final[list[hiredis.Reader]] = []
"""Readers that are empty and between commands; one in practice. Shared, or every connection would keep the buffer of
its longest chunk. Making one takes 320 ns."""


class Parsed:
    """What a chunk of bytes completed."""

    __slots__ = ("are_alike", "commands", "error", "raw")

    def __init__(
        self, commands: list[Args], raw: bytes | None, error: str | None = None, are_alike: bool = False
    ) -> None:
        self.commands = commands
        """Complete commands in order, none empty."""
        self.are_alike = are_alike
        """Whether they are known to have one name and length."""
        self.raw = raw
        """An encoding of exactly these commands where it was at hand, else None."""
        self.error = error
        """Why the stream cannot be read further: the answer behind the commands, without ``ERR`` and in Latin-1, or ""
        to close without one; None if all is well."""


class Parser:
    """The parser of one connection."""

    __slots__ = ("_limits", "_walker")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._walker: Walker | None = None
        """Holds the command under way; None between commands."""

    @property
    def partial_bytes(self) -> int:
        """Bytes held for a command that is not complete."""
        return 0 if self._walker is None else self._walker.held_bytes

    @property
    def missing_bytes(self) -> int:
        """Bytes that the argument under way certainly lacks; 0 where no length was read."""
        return 0 if self._walker is None else self._walker.missing_bytes

    def feed(self, chunk: bytes, authenticated: bool = True) -> Parsed:
        """Read a chunk of received bytes; hot. Strangers have bounds of their own, and only the walker reads them."""
        if self._walker is None and authenticated:
            if len(chunk) <= BULK_BYTES_FLOOR and chunk.rfind(b"*") == 0:
                command = _read_one(chunk)
                if command is not None:
                    return Parsed([command], chunk)
            return self._read_many(chunk)
        return self._resume(chunk, authenticated)

    def _read_many(self, chunk: bytes) -> Parsed:
        limits = self._limits
        if not chunk.startswith(b"*"):
            lines = _read_lines(chunk)
            return Parsed(lines, None) if lines is not None else self._walk(chunk, [], b"")
        if len(chunk) * HELD_PER_RECEIVED_MAX > limits.query_buffer_bytes_max:
            return self._walk(chunk, [], b"")
        is_plain = chunk[-1] == _LINE_FEED and not _has_type_marks(chunk)
        if not is_plain:
            uniform, end = read_uniform(chunk)
            if uniform:
                return (
                    Parsed(uniform, chunk, None, True)
                    if end == len(chunk)
                    else self._walk(chunk[end:], uniform, chunk[:end])
                )
        large = _LARGE_HEADER.findall(chunk)
        if large and _claims_too_much(large, len(chunk)):
            return self._walk(chunk, [], b"")
        commands = _read_whole(chunk) if is_plain else None
        encoded = chunk
        if commands is None:
            commands, encoded = _read_prefix(chunk)
        if len(encoded) > limits.bulk_bytes_max and commands:
            longest = max(map(len, chain.from_iterable(commands)))
            if longest > limits.bulk_bytes_max:
                return self._walk(chunk, [], b"")
        if len(encoded) == len(chunk):
            return Parsed(commands, chunk)
        return self._walk(chunk[len(encoded) :], commands, encoded)

    def _resume(self, chunk: bytes, authenticated: bool) -> Parsed:
        """Complete the command under way, then read on fast."""
        walker = self._walker
        if walker is None or not authenticated:
            return self._walk(chunk, [], b"", authenticated)
        try:
            walker.feed(chunk)
            command = walker.next_command()
        except ProtocolError as fault:
            return Parsed([], None, fault.text)
        if command is None:
            return Parsed([], None)
        self._walker = None
        rest = walker.take_rest()
        if not rest:
            return Parsed([command] if command else [], None)
        parsed = self.feed(rest)
        return Parsed([command, *parsed.commands], None, parsed.error) if command else parsed

    def _walk(self, chunk: bytes, commands: list[Args], raw: bytes, authenticated: bool = True) -> Parsed:
        """Read everything with the walker, behind commands that are already read and their encoding."""
        walker = self._walker or Walker(self._limits)
        self._walker = walker
        before = len(commands)
        try:
            walker.feed(chunk, authenticated)
            while (command := walker.next_command()) is not None:
                if command:
                    commands.append(command)
        except ProtocolError as fault:
            return Parsed(commands, _raw_of(commands, before, raw), fault.text)
        if walker.is_between_commands:
            self._walker = None
        return Parsed(commands, _raw_of(commands, before, raw))


def _read_one(chunk: bytes) -> list[bytes] | None:
    """Read a chunk that is one command in canonical form (case a), else return None."""
    pieces = chunk.split(b"\r\n")
    count, heads = len(pieces), _BULK_HEADS
    if count == 6:
        head, name_head, name, key_head, key, end = pieces
        if head == b"*2" and name_head == heads[len(name)] and key_head == heads[len(key)] and not end:
            return [name, key]
        return None
    if count == 8:
        head, name_head, name, key_head, key, value_head, value, end = pieces
        if (
            head == b"*3"
            and name_head == heads[len(name)]
            and key_head == heads[len(key)]
            and value_head == heads[len(value)]
            and not end
        ):
            return [name, key, value]
        return None
    if count > _PIECES_MAX or pieces.pop():
        return None
    args = pieces[2::2]
    if not args or pieces[0] != _MULTIBULK_HEADS[len(args)]:
        return None
    return args if pieces[1::2] == [heads[len(argument)] for argument in args] else None


def _read_whole(chunk: bytes) -> list[Args] | None:
    """Read a chunk without type marks that holds complete commands only (case b), else return None."""
    reader = _idle_readers.pop() if _idle_readers else hiredis.Reader()
    try:
        reader.feed(chunk)
        reader.feed(_END_MARK)
        commands: list[Args] = list(iter(reader.gets, False))
        mark: object = commands.pop() if commands else None
        if type(mark) is not int or mark != _SECRET or not all(commands):
            return None
        b"".join(chain.from_iterable(commands))
    except (hiredis.HiredisError, TypeError):
        return None
    _idle_readers.append(reader)
    return commands


def _claims_too_much(large: list[bytes], chunk_bytes: int) -> bool:
    """Tell whether headers claim more arguments than can be meant; hiredis allocates 8 bytes for each.

    Headers of up to 99 arguments need no look: nested for a whole chunk, they make hiredis allocate 160 times its size
    for some ms.
    """
    claims = list(map(int, large))
    return max(claims) > MULTIBULK_LENGTH_MAX or sum(claims) > chunk_bytes // _ARGUMENT_BYTES_MIN + _CUT_ARGUMENTS_MAX


def _read_lines(chunk: bytes) -> list[Args] | None:
    """Read a chunk of whole inline commands without quotes (case e), else return None."""
    if (
        chunk[-1:] != b"\n"
        or chunk.find(b"\n*") >= 0
        or _DOUBLE_QUOTE in chunk
        or _SINGLE_QUOTE in chunk
        or _NUL in chunk
        or _VERTICAL_TAB in chunk
        or _FORM_FEED in chunk
        or _TLS in chunk
    ):
        return None
    lowered = chunk.lower()
    if lowered.find(b"post") >= 0 or lowered.find(b"host:") >= 0:
        return None
    lines = chunk.split(b"\n")
    if len(chunk) > INLINE_BYTES_MAX and max(map(len, lines)) > INLINE_BYTES_MAX:
        return None
    return list(filter(None, map(bytes.split, lines)))


def _has_type_marks(chunk: bytes) -> bool:
    return (
        _EQUALS in chunk
        or _PLUS in chunk
        or _PERCENT in chunk
        or _PARENTHESIS in chunk
        or _GREATER in chunk
        or _BAR in chunk
        or _TILDE in chunk
    )


def _read_prefix(chunk: bytes) -> tuple[list[Args], bytes]:
    """Read the complete commands at the start of a chunk and their encoding (case d); nothing if not canonical."""
    reader = hiredis.Reader()
    try:
        reader.feed(chunk)
        commands: list[Args] = list(iter(reader.gets, False))
        encoded = encode_commands(commands)
    except (hiredis.HiredisError, TypeError):
        return [], b""
    if not all(commands) or not chunk.startswith(encoded):
        return [], b""
    return commands, encoded


def _raw_of(commands: list[Args], before: int, raw: bytes) -> bytes | None:
    """Return the encoding of the first ``before`` commands if these are all there are."""
    return raw if commands and len(commands) == before else None
