"""RESP2 as a client sees it, for tests.

Layout: replies are kept as their raw bytes, one ``bytes`` a reply, so that comparing them misses nothing.
Reference: Redis serialization protocol specification, version 2.
"""

from __future__ import annotations

from kvservice.commands.reply import Reply
from kvservice.gateway.resp import encode_resp2

CRLF = b"\r\n"


class IncompleteError(Exception):
    """The stream ends within a reply."""


def encode_command(args: list[bytes]) -> bytes:
    """Return a command as clients send it."""
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)


def encode_reply(reply: Reply) -> bytes:
    """Return one reply as the gateway writes it on a RESP2 connection."""
    return encode_resp2([reply])


def end_of_reply(stream: bytes | bytearray, start: int) -> int:
    """Return the position after the reply that starts at ``start``. Raise IncompleteError."""
    line_end = stream.find(CRLF, start)
    if line_end < 0:
        raise IncompleteError
    position = line_end + 2
    kind = stream[start : start + 1]
    if kind in (b"+", b"-", b":"):
        return position
    size = int(stream[start + 1 : line_end])
    if kind == b"$":
        position += max(size + 2, 0) if size >= 0 else 0
        if position > len(stream):
            raise IncompleteError
        return position
    assert kind == b"*", bytes(stream[start : start + 40])
    for _ in range(size):
        position = end_of_reply(stream, position)
    return position


def parts_of(reply: bytes) -> list[bytes]:
    """Return the raw elements of a raw array reply."""
    assert reply.startswith(b"*"), reply
    position = reply.index(CRLF) + 2
    parts: list[bytes] = []
    while position < len(reply):
        end = end_of_reply(reply, position)
        parts.append(reply[position:end])
        position = end
    return parts


def bulk_of(reply: bytes) -> bytes:
    """Return the text of a raw bulk reply."""
    assert reply.startswith(b"$"), reply
    return reply[reply.index(CRLF) + 2 : -2]


def shown(reply: bytes, indent: str = "") -> str:
    """Return a raw reply the way redis-cli shows it."""
    kind, line = reply[:1], reply[1 : reply.index(CRLF)].decode("latin-1")
    if kind == b"+":
        return line
    if kind == b"-":
        return f"(error) {line}"
    if kind == b":":
        return f"(integer) {line}"
    if reply in (b"$-1\r\n", b"*-1\r\n"):
        return "(nil)"
    if kind == b"$":
        return quoted(bulk_of(reply))
    parts = parts_of(reply)
    if not parts:
        return "(empty array)"
    width = len(str(len(parts)))
    deeper = indent + " " * (width + 2)
    lines = [f"{number:>{width}}) {shown(part, deeper)}" for number, part in enumerate(parts, 1)]
    return f"\n{indent}".join(lines)


_NAMED = {0x22: '\\"', 0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x07: "\\a", 0x08: "\\b"}


def quoted(text: bytes) -> str:
    """Return ``text`` in double quotes, with everything that is not printable escaped as redis-cli does."""
    body = (_NAMED.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}") for byte in text)
    return '"' + "".join(body) + '"'
